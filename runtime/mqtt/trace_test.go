package mqtt

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A trace is a stream, what it is to send, and what it was told.
type trace struct {
	*runtime.Stream
	seen  teststream.Trace
	on    map[string]func(*runtime.Stream) policy.Result
	times bool // put the time before each event

	mu   sync.Mutex
	msgs []string // received
	part []byte
	send [][]byte // messages, each as a whole
}

// open makes a stream that records what it is told.
func (tr *trace) open(t testing.TB, c *runtime.Context, name string, metadata ...runtime.StreamOption) *trace {
	t.Helper()
	tr.seen.On = tr.on
	if start := time.Now(); tr.times {
		tr.seen.Prefix = func() string {
			if d := time.Since(start); d != 0 {
				return d.String() + ":"
			}
			return ""
		}
	}
	s, err := c.NewStream(name, runtime.Handlers{State: tr.seen.State, Rx: tr.rx, Tx: tr.tx}, metadata...)
	if err != nil {
		t.Fatal(err)
	}
	tr.Stream = s
	return tr
}

func (tr *trace) rx(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
	tr.mu.Lock()
	if (flags&policy.FlagSOM != 0) != (tr.part == nil) {
		tr.seen.Note(s, "BAD FLAGS")
	}
	tr.part = append(tr.part, buf...)
	if tr.part == nil {
		tr.part = []byte{}
	}
	if flags&policy.FlagEOM == 0 {
		tr.mu.Unlock()
		return policy.OK
	}
	msg := string(tr.part)
	tr.part = nil
	tr.msgs = append(tr.msgs, msg)
	tr.mu.Unlock()
	if len(msg) > 20 {
		msg = fmt.Sprint(len(msg))
	}
	return tr.seen.Note(s, "rx("+msg+")")
}

func (tr *trace) tx(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
	tr.mu.Lock()
	if len(tr.send) == 0 {
		tr.mu.Unlock()
		return 0, 0, policy.TxDontSend
	}
	n := copy(buf, tr.send[0])
	if n < len(tr.send[0]) {
		tr.send[0] = tr.send[0][n:]
		tr.mu.Unlock()
		return n, 0, policy.OK
	}
	tr.send = tr.send[1:]
	if len(tr.send) > 0 {
		s.RequestTxLen(uint64(len(tr.send[0])))
	}
	tr.mu.Unlock()
	return n, policy.FlagSOM | policy.FlagEOM, tr.seen.Note(s, "tx")
}

// publish sends a message.
func (tr *trace) publish(msg string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.send = append(tr.send, []byte(msg)); len(tr.send) == 1 {
		tr.RequestTxLen(uint64(len(msg)))
	}
}

func (tr *trace) String() string { return tr.seen.String() }

// await waits until the event has come n times.
func (tr *trace) await(t testing.TB, n int, event string) {
	t.Helper()
	if !tr.seen.Await(func() bool { return tr.seen.Count(event) >= n }) {
		t.Fatalf("no %s, but %s; Err: %v", event, tr, tr.Err())
	}
}

// want compares all that was told.
func (tr *trace) want(t testing.TB, want string) {
	t.Helper()
	if got := tr.String(); got != want {
		t.Errorf("got  %s\nwant %s (Err %v)", got, want, tr.Err())
	}
}

func streamType(name string, addr netip.AddrPort, change ...func(*policy.StreamType)) *policy.StreamType {
	st := &policy.StreamType{
		Name: name, Protocol: policy.ProtocolMQTT, Opportunistic: true, MQTT: &policy.MQTT{CleanStart: true},
		Endpoint: addr.Addr().String(), Port: addr.Port(),
	}
	for _, f := range change {
		f(st)
	}
	return st
}

func topics(pub, sub string, qos byte) func(*policy.StreamType) {
	return func(st *policy.StreamType) { st.MQTT.Topic, st.MQTT.Subscribe, st.MQTT.QoS = pub, sub, qos }
}

func retry(conceal uint16) func(*policy.StreamType) {
	return func(st *policy.StreamType) {
		st.Opportunistic = false
		st.Retry = teststream.Retry(conceal)
	}
}

func newContext(t testing.TB, o runtime.Options, types ...*policy.StreamType) *runtime.Context {
	t.Helper()
	if o.Transports == nil {
		o.Transports = []transport.Transport{New()}
	}
	return teststream.NewContext(t, o, types...)
}

func credentials(id, user, password string) transport.Credentials {
	m := new(credentials.Memory)
	m.SetBlob(policy.BlobMQTTClientID, 0, id)
	m.SetBlob(policy.BlobMQTTUsername, 0, user)
	m.SetBlob(policy.BlobMQTTPassword, 0, password)
	return m
}
