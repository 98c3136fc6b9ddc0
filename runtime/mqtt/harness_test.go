package mqtt

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A client is a stream that sends queued messages and records its events.
type client struct {
	*runtime.Stream
	events teststream.Trace

	mu       sync.Mutex
	messages []string // received
	part     []byte   // partial message
	queue    [][]byte // messages to send
}

// open returns a new stream, which is not connected.
func open(t testing.TB, c *runtime.Context, name string, options ...runtime.StreamOption) *client {
	t.Helper()
	cl := new(client)
	cl.Stream = teststream.Must(c.NewStream(name, runtime.Handlers{State: cl.events.State, Rx: cl.rx, Tx: cl.tx}, options...))
	return cl
}

// on sets the actions of the handlers. It returns the client.
func (cl *client) on(actions teststream.Actions) *client {
	cl.events.On = actions
	return cl
}

// timed prefixes each event with the time since the call. It returns the client.
func (cl *client) timed() *client {
	cl.events.Prefix = teststream.Elapsed(0)
	return cl
}

func (cl *client) rx(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
	cl.mu.Lock()
	if (flags&policy.FlagSOM != 0) != (cl.part == nil) {
		cl.events.Note(s, "BAD FLAGS")
	}
	cl.part = append(cl.part, buf...)
	if cl.part == nil {
		cl.part = []byte{}
	}
	if flags&policy.FlagEOM == 0 {
		cl.mu.Unlock()
		return policy.OK
	}
	message := string(cl.part)
	cl.part = nil
	cl.messages = append(cl.messages, message)
	cl.mu.Unlock()
	if len(message) > 20 {
		message = fmt.Sprint(len(message))
	}
	return cl.events.Note(s, "rx("+message+")")
}

func (cl *client) tx(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
	cl.mu.Lock()
	if len(cl.queue) == 0 {
		cl.mu.Unlock()
		return 0, 0, policy.TxDontSend
	}
	n := copy(buf, cl.queue[0])
	if n < len(cl.queue[0]) {
		cl.queue[0] = cl.queue[0][n:]
		cl.mu.Unlock()
		return n, 0, policy.OK
	}
	cl.queue = cl.queue[1:]
	if len(cl.queue) > 0 {
		s.RequestTxLen(uint64(len(cl.queue[0])))
	}
	cl.mu.Unlock()
	return n, policy.FlagSOM | policy.FlagEOM, cl.events.Note(s, "tx")
}

// publish queues a message.
func (cl *client) publish(message string) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.queue = append(cl.queue, []byte(message)); len(cl.queue) == 1 {
		cl.RequestTxLen(uint64(len(message)))
	}
}

// received returns the messages received so far.
func (cl *client) received() []string {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.messages
}

func (cl *client) String() string { return cl.events.String() }

// await waits until the event has occurred n times.
func (cl *client) await(t testing.TB, n int, event string) {
	t.Helper()
	cl.events.AwaitCount(t, n, event)
}

// want compares all events.
func (cl *client) want(t testing.TB, want string) {
	t.Helper()
	cl.events.Want(t, want)
}

// wantErr compares the error of the stream.
func (cl *client) wantErr(t testing.TB, want error) {
	t.Helper()
	if err := cl.Err(); !errors.Is(err, want) {
		t.Errorf("Err %v, want %v", err, want)
	}
}

// streamType returns a streamtype for a server, changed by each of change.
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

// topics sets mqtt_topic, mqtt_subscribe and mqtt_qos.
func topics(topic, subscribe string, qos byte) func(*policy.StreamType) {
	return func(st *policy.StreamType) { st.MQTT.Topic, st.MQTT.Subscribe, st.MQTT.QoS = topic, subscribe, qos }
}

// retry gives a streamtype a retry table.
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

// identify returns options with the credentials of a client.
func identify(id, user, password string) runtime.Options {
	m := new(credentials.Memory)
	m.SetBlob(policy.BlobMQTTClientID, 0, id)
	m.SetBlob(policy.BlobMQTTUsername, 0, user)
	m.SetBlob(policy.BlobMQTTPassword, 0, password)
	return runtime.Options{Credentials: m}
}
