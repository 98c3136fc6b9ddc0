package sim

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// mqttProtocol is messages that a broker echoes. Streams of a host share a connection.
func mqttProtocol(name string, hosts, streams int, secure bool) *protocol {
	return &protocol{
		name: name, hosts: hosts, streams: streams, window: 4 << 10, serverBuffers: true, shared: hosts < streams,
		transports: func(*world) []transport.Transport { return []transport.Transport{mqtt.New()} },
		streamType: func(w *world, i int) *policy.StreamType {
			st := newStreamType(w, i, policy.ProtocolMQTT)
			// Streams that share a connection must agree on these.
			d := fork(w.seed, "mqtt", w.protocol.hostOf(i))
			m := &policy.MQTT{CleanStart: d.oneIn(3), Topic: "t/" + st.Name, QoS: byte((i + int(w.seed)) % 3)}
			if d.oneIn(2) {
				m.KeepAlive = 10 * time.Second
			}
			if d.oneIn(3) {
				m.WillTopic, m.WillMessage = "will", "gone"
			}
			switch m.Subscribe = m.Topic; i {
			case 2:
				m.Subscribe = ""
			case 3:
				m.Subscribe = "t/#"
			}
			st.MQTT = m
			st.Metadata = []policy.Metadata{{Name: "got", Header: "topic:"}}
			if w.seed%4 != 0 {
				w.creds.SetBlob(policy.BlobMQTTClientID, 0, "sim")
			}
			if secure {
				w.secure(st)
			}
			return st
		},
		serve: serveMQTT(secure),
		talk: func(p *program) talk {
			return &mqttTalk{p: p, counts: map[int]int{}, first: map[int]time.Time{}, got: map[string]int{}, ever: map[string]bool{}, acked: map[int]bool{}}
		},
	}
}

// An mqttTalk publishes messages, and receives them if it has subscribed.
type mqttTalk struct {
	p       *program
	n       int // of the message that was sent last
	message []byte
	sent    int   // bytes of it
	waiting []int // messages of this connection without a verdict
	acked   map[int]bool
	in      []byte // partial message
	within  bool
	got     map[string]int // number of times each message has been received in this epoch
	ever    map[string]bool
	epoch   int64 // of the world

	mu     sync.Mutex
	counts map[int]int // number of times the broker has received each message
	first  map[int]time.Time
	latest int // the highest number on the connection latestOn

	latestOn *brokerConn
}

func (t *mqttTalk) policy() *policy.MQTT { return t.p.w.protocol.streamType(t.p.w, t.p.i).MQTT }

// count is called for each message that the broker receives.
func (t *mqttTalk) count(on *brokerConn, n int, qos byte, whole bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p.w.tr.note(t.p.host, "message %s %d qos %d", t.p.name, n, qos)
	t.counts[n]++
	if on != t.latestOn {
		t.latest, t.latestOn = 0, on
	}
	switch {
	case !whole:
		t.p.find("message %d arrives in part", n)
	case t.counts[n] == 1:
		t.first[n] = time.Now()
	case qos != 1 && !lostSince(on, t.first[n]):
		t.p.find("message %d arrives again with QoS %d", n, qos)
	}
	if t.counts[n] == 1 && n < t.latest {
		t.p.find("message %d arrives after %d", n, t.latest)
	}
	t.latest = max(t.latest, n)
}

func (t *mqttTalk) create(*runtime.Stream) {
	// The in-memory half of a session ends with the context, and when the policy changes.
	if epoch := t.p.w.epoch.Load(); t.epoch != epoch {
		t.epoch, t.got = epoch, map[string]int{}
	}
}

func (t *mqttTalk) begin(*runtime.Stream) {
	t.message, t.sent, t.within, t.waiting = nil, 0, false, nil
}
func (t *mqttTalk) connected()    {}
func (t *mqttTalk) announce() int { return 0 }

func (t *mqttTalk) tx(buf []byte) (int, runtime.Flags, runtime.Result) {
	var flags runtime.Flags
	if t.sent == len(t.message) {
		t.n++
		d := fork(t.p.w.seed, "message", t.p.name, t.n)
		size := 20 + d.IntN(2000)
		if d.oneIn(10) {
			size = 20 + d.IntN(maxPayload-20)
		}
		t.message = fmt.Appendf(nil, "%s %d %d;", t.p.name, t.n, size)
		t.message = append(t.message, payload(t.p.name, t.n, len(t.message), size)...)
		t.sent = 0
		flags |= runtime.FlagSOM
		t.waiting = append(t.waiting, t.n)
	}
	n := copy(buf, t.message[t.sent:])
	if t.sent += n; t.sent == len(t.message) {
		flags |= runtime.FlagEOM
	}
	return n, flags, runtime.OK
}

func (t *mqttTalk) rx(buf []byte, flags runtime.Flags) (bool, string) {
	if (flags&runtime.FlagSOM != 0) == t.within {
		return false, fmt.Sprintf("flags %d within a message: %v", flags, t.within)
	}
	if !t.within {
		t.in = nil
	}
	t.in = append(t.in, buf...)
	if t.within = flags&runtime.FlagEOM == 0; t.within {
		return false, ""
	}
	var name string
	var n, size int
	if _, err := fmt.Sscanf(string(t.in[:min(20, len(t.in))]), "%s %d %d;", &name, &n, &size); err != nil || size != len(t.in) {
		return false, fmt.Sprintf("a message of %d bytes: %.20q", len(t.in), t.in)
	}
	head := strings.IndexByte(string(t.in), ';') + 1
	if mismatch(t.in[head:], name, n, head) {
		return false, fmt.Sprintf("message %s %d is not what was sent", name, n)
	}
	topic, _ := t.p.s.Metadata("got")
	m := t.policy()
	if topic != "t/"+name || m.Subscribe != topic && m.Subscribe != "t/#" {
		return false, fmt.Sprintf("message %s %d on the topic %q", name, n, topic)
	}
	key := fmt.Sprint(name, " ", n)
	t.ever[key] = true
	if t.got[key]++; t.got[key] > 1 && !t.atLeastOnce(name) {
		return false, fmt.Sprintf("message %s is received %d times", key, t.got[key])
	}
	return name == t.p.name, ""
}

// atLeastOnce reports whether messages of a stream may be received more than once.
func (t *mqttTalk) atLeastOnce(name string) bool {
	for _, p := range t.p.w.programs {
		if p.name == name {
			sent := p.talk.(*mqttTalk).policy().QoS
			return sent == 1 || min(t.policy().QoS, sent) == 1
		}
	}
	return false
}

func (t *mqttTalk) verdict(ack bool) (bool, string) {
	if len(t.waiting) == 0 {
		return false, "a verdict without a message"
	}
	n := t.waiting[0]
	t.waiting = t.waiting[1:]
	if !ack {
		return false, ""
	}
	t.acked[n] = true
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.policy().QoS > 0 && t.counts[n] == 0 {
		return false, fmt.Sprintf("message %d is acknowledged, and the broker does not have it", n)
	}
	return t.policy().Subscribe == "", ""
}

func (t *mqttTalk) check() string { return "" }
