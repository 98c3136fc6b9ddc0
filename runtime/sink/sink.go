// Package sink executes streamtypes that are a local_sink: their streams end in
// the program itself.
//
// Such a stream, a source, has a peer in the same context, its accepted stream;
// each receives what the other sends. There is no network, and what the policy
// says about one has no effect.
package sink

import (
	"errors"
	"fmt"
	"sync"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Errors to compare with [errors.Is].
var (
	// ErrNoSink is returned when the streamtype is a local_sink without a Sink.
	ErrNoSink = errors.New("no sink for the streamtype")
	// ErrRefused is returned when the sink refuses a source.
	ErrRefused = errors.New("refused by the sink")
	// ErrExists is returned when the streamtype has a sink already.
	ErrExists = errors.New("the streamtype has a sink")
)

// A Transport executes the streamtypes of one context that are a local_sink. Its
// methods may be called from any goroutine.
type Transport struct {
	mu    sync.Mutex
	env   *transport.Env // of the context; nil until a stream is made
	sinks map[string]*Sink
}

// New returns a transport.
func New() *Transport { return &Transport{sinks: make(map[string]*Sink)} }

// A Join decides about a source that wants to join a sink. joined is how many
// sources have joined and still exist. The handlers are those of the accepted
// stream. Any result but OK refuses the source, with ErrRefused. It is what
// SINK_JOIN is in lws. It may be called from many goroutines.
type Join func(joined uint32) (runtime.Handlers, runtime.Result)

// A Sink is where the streams of a streamtype end.
type Sink struct {
	t          *Transport
	c          *runtime.Context
	streamtype string
	join       Join
	joined     uint32 // guarded by the mu of t
}

// Accept makes the sink of a streamtype of c, which the transport was given to.
// From then on each stream that NewStream, Open or Fetch makes of the streamtype
// is a source, and join decides about it.
//
// Before NewStream returns the source, the accepted stream gets CREATING,
// CONNECTING and CONNECTED, and then the source does. When one of the two ends or
// disconnects, the other one is disconnected once it has received what was sent
// before: an accepted stream gets DISCONNECTED and DESTROYING; a source gets
// DISCONNECTED, and connects again as the policy says, perhaps to another accepted
// stream.
//
// Payload is passed piece by piece, with its flags, as Tx returned it. A piece that
// the other side is not ready for waits, and Tx is not called meanwhile.
//
// The error wraps runtime.ErrUnknownStreamType, runtime.ErrUnsupported if the
// streamtype is not a local_sink, or ErrExists.
func (t *Transport) Accept(c *runtime.Context, streamtype string, join Join) (*Sink, error) {
	k := &Sink{t: t, c: c, streamtype: streamtype, join: join}
	if err := t.add(k); err != nil {
		return nil, fmt.Errorf("sspolicy: sink %q: %w", streamtype, err)
	}
	return k, nil
}

func (t *Transport) add(k *Sink) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch st := k.c.Policy().StreamType(k.streamtype); {
	case st == nil:
		return runtime.ErrUnknownStreamType
	case !st.LocalSink:
		return fmt.Errorf("%w: the streamtype is not a local_sink", runtime.ErrUnsupported)
	case t.sinks[k.streamtype] != nil:
		return ErrExists
	}
	t.sinks[k.streamtype] = k
	return nil
}

// Close ends the sink: no source joins any more. Those that have joined stay. It
// may be called more than once, and returns nil.
func (k *Sink) Close() error {
	k.t.mu.Lock()
	defer k.t.mu.Unlock()
	if k.t.sinks[k.streamtype] == k {
		delete(k.t.sinks, k.streamtype)
	}
	return nil
}

// Protocols returns the carrier of local sinks.
func (t *Transport) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolSink} }

// Prepare returns the connector of a streamtype.
func (t *Transport) Prepare(s *transport.Setup) (transport.Connector, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.env == nil {
		t.env = s.Env
	}
	if t.env != s.Env {
		return nil, fmt.Errorf("%w: a sink.Transport in two contexts", runtime.ErrUnsupported)
	}
	return connector{t, s}, nil
}

// accept makes an accepted stream for one more source, and the pipe to it.
func (t *Transport) accept(streamtype string) (*pipe, error) {
	t.mu.Lock()
	k := t.sinks[streamtype]
	if k == nil {
		t.mu.Unlock()
		return nil, ErrNoSink
	}
	joined := k.joined
	k.joined++
	t.mu.Unlock()
	leave := sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		k.joined--
	})
	h, r := k.join(joined)
	if r != runtime.OK {
		leave()
		return nil, ErrRefused
	}
	e := &end{pipe: newPipe(), accepted: true}
	s, err := k.c.NewStream(streamtype, h, transport.Option{
		Protocol: policy.ProtocolSink,
		Data:     func() any { return e },
		Connect:  true,
		Accepted: true,
		Declined: e.leave,
		End: func() {
			e.leave()
			leave()
		},
	})
	switch {
	case err == nil && e.pipe.over(): // declined or destroyed by a callback
		s.Destroy()
		return nil, ErrRefused
	case errors.Is(err, runtime.ErrRefused):
		return nil, ErrRefused
	case err != nil:
		leave() // End may not have been called
		return nil, errors.Unwrap(err)
	}
	return e.pipe, nil
}
