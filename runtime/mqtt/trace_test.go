package mqtt

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
)

var short = map[runtime.State]string{
	runtime.StateCreating: "CRE", runtime.StateDisconnected: "DIS", runtime.StateUnreachable: "UNR",
	runtime.StateConnected: "CON", runtime.StateConnecting: "CNG", runtime.StateDestroying: "DES",
	runtime.StatePoll: "POL", runtime.StateAllRetriesFailed: "ARF", runtime.StateQoSAckRemote: "ACK",
	runtime.StateQoSNackRemote: "NAK", runtime.StateTimeout: "TMO",
}

// A trace is a stream, what it is to send, and what it was told.
type trace struct {
	*runtime.Stream
	on    map[string]func(*runtime.Stream) runtime.Result
	times bool // put the time before each event
	start time.Time

	mu     sync.Mutex
	cond   sync.Cond
	events []string
	msgs   []string // received
	part   []byte
	send   [][]byte // messages, each as a whole
	inside bool
}

// open makes a stream that records what it is told.
func (tr *trace) open(t testing.TB, c *runtime.Context, name string, metadata ...runtime.StreamOption) *trace {
	t.Helper()
	tr.cond.L = &tr.mu
	tr.start = time.Now()
	s, err := c.NewStream(name, runtime.Handlers{State: tr.state, Rx: tr.rx, Tx: tr.tx}, metadata...)
	if err != nil {
		t.Fatal(err)
	}
	tr.Stream = s
	return tr
}

func (tr *trace) note(s *runtime.Stream, event string) runtime.Result {
	tr.mu.Lock()
	if tr.inside {
		tr.events = append(tr.events, "CONCURRENT")
	}
	tr.inside = true
	e := event
	if d := time.Since(tr.start); tr.times && d != 0 {
		e = fmt.Sprintf("%v:%s", d, e)
	}
	tr.events = append(tr.events, e)
	tr.cond.Broadcast()
	f := tr.on[event]
	tr.mu.Unlock()
	r := runtime.OK
	if f != nil {
		r = f(s)
	}
	tr.mu.Lock()
	tr.inside = false
	tr.mu.Unlock()
	return r
}

func (tr *trace) state(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
	return tr.note(s, short[state])
}

func (tr *trace) rx(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
	tr.mu.Lock()
	if (flags&runtime.FlagSOM != 0) != (tr.part == nil) {
		tr.events = append(tr.events, "BAD FLAGS")
	}
	tr.part = append(tr.part, buf...)
	if tr.part == nil {
		tr.part = []byte{}
	}
	if flags&runtime.FlagEOM == 0 {
		tr.mu.Unlock()
		return runtime.OK
	}
	msg := string(tr.part)
	tr.part = nil
	tr.msgs = append(tr.msgs, msg)
	tr.mu.Unlock()
	if len(msg) > 20 {
		msg = fmt.Sprint(len(msg))
	}
	return tr.note(s, "rx("+msg+")")
}

func (tr *trace) tx(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
	tr.mu.Lock()
	if len(tr.send) == 0 {
		tr.mu.Unlock()
		return 0, 0, runtime.TxDontSend
	}
	n := copy(buf, tr.send[0])
	if n < len(tr.send[0]) {
		tr.send[0] = tr.send[0][n:]
		tr.mu.Unlock()
		return n, 0, runtime.OK
	}
	tr.send = tr.send[1:]
	if len(tr.send) > 0 {
		s.RequestTxLen(uint64(len(tr.send[0])))
	}
	tr.mu.Unlock()
	return n, runtime.FlagSOM | runtime.FlagEOM, tr.note(s, "tx")
}

// publish sends a message.
func (tr *trace) publish(msg string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.send = append(tr.send, []byte(msg)); len(tr.send) == 1 {
		tr.RequestTxLen(uint64(len(msg)))
	}
}

func (tr *trace) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return strings.Join(tr.events, " ")
}

func (tr *trace) count(event string) (n int) {
	for _, e := range tr.events {
		if e == event {
			n++
		}
	}
	return n
}

// await waits until the event has come n times.
func (tr *trace) await(t testing.TB, n int, event string) {
	t.Helper()
	late := false
	limit := time.AfterFunc(30*time.Second, func() {
		tr.mu.Lock()
		late = true
		tr.mu.Unlock()
		tr.cond.Broadcast()
	})
	defer limit.Stop()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for tr.count(event) < n {
		if late {
			t.Fatalf("no %s, but %s; Err: %v", event, strings.Join(tr.events, " "), tr.Err())
		}
		tr.cond.Wait()
	}
}

// want compares all that was told.
func (tr *trace) want(t testing.TB, want string) {
	t.Helper()
	if got := tr.String(); got != want {
		t.Errorf("got  %s\nwant %s (Err %v)", got, want, tr.Err())
	}
}

func streamType(name string, addr netip.AddrPort, change ...func(*runtime.StreamType)) *runtime.StreamType {
	st := &runtime.StreamType{
		Name: name, Protocol: runtime.ProtocolMQTT, Opportunistic: true, MQTT: &runtime.MQTT{CleanStart: true},
		Endpoint: addr.Addr().String(), Port: addr.Port(),
	}
	for _, f := range change {
		f(st)
	}
	return st
}

func topics(pub, sub string, qos byte) func(*runtime.StreamType) {
	return func(st *runtime.StreamType) { st.MQTT.Topic, st.MQTT.Subscribe, st.MQTT.QoS = pub, sub, qos }
}

func retry(conceal uint16) func(*runtime.StreamType) {
	return func(st *runtime.StreamType) {
		st.Opportunistic = false
		st.Retry = &runtime.Retry{Name: "r", Backoff: []time.Duration{5 * time.Millisecond}, Conceal: conceal}
	}
}

func newContext(t testing.TB, o runtime.Options, types ...*runtime.StreamType) *runtime.Context {
	t.Helper()
	o.Transports = []runtime.Transport{New()}
	o.Jitter = func() uint16 { return 0 }
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(complaints{t}, nil))
	}
	c, err := runtime.NewContext(&runtime.Policy{StreamTypes: types}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// complaints takes the log of a runtime that has no reason to log anything.
type complaints struct{ t testing.TB }

func (c complaints) Write(line []byte) (int, error) {
	c.t.Errorf("the runtime logged: %s", line)
	return len(line), nil
}

func credentials(id, user, password string) runtime.Credentials {
	m := new(runtime.MemoryCredentials)
	m.SetBlob(runtime.BlobMQTTClientID, 0, id)
	m.SetBlob(runtime.BlobMQTTUsername, 0, user)
	m.SetBlob(runtime.BlobMQTTPassword, 0, password)
	return m
}
