// Package sink executes local_sink streamtypes: both ends of a stream are in the
// program.
//
// A stream of such a streamtype, a source, is connected to another one in the same
// context, its accepted stream. Each receives what the other sends. There is no
// network, and network keys of the policy have no effect.
//
//	t := sink.New()
//	c, err := runtime.NewContext(p, runtime.Options{Transports: []transport.Transport{t}})
//	...
//	_, err = t.Accept(c, "name", func(uint32) (runtime.Handlers, runtime.Result) {
//		return runtime.Handlers{Rx: receive}, runtime.OK
//	})
//	...
//	s, err := c.NewStream("name", runtime.Handlers{Tx: send})
package sink

import (
	"errors"
	"fmt"
	"sync"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Errors for use with [errors.Is].
var (
	// ErrNoSink is returned when a source is made of a streamtype without a Sink.
	ErrNoSink = errors.New("no sink for the streamtype")
	// ErrRefused is returned when a [Join], or a callback of the accepted stream,
	// refuses a source.
	ErrRefused = errors.New("refused by the sink")
	// ErrExists is returned when Accept is called for a streamtype that has a Sink.
	ErrExists = errors.New("the streamtype has a sink")
)

// A Transport executes the local_sink streamtypes of one context. Its methods are
// safe for concurrent use, also from callbacks.
type Transport struct {
	mu    sync.Mutex
	env   *transport.Env   // of the context; nil before the first stream
	sinks map[string]*Sink // by streamtype
}

// New returns a transport for one context. Accept must be called before the first
// stream of a streamtype is made.
func New() *Transport { return &Transport{sinks: make(map[string]*Sink)} }

// A Join decides about a new source, like the state SINK_JOIN of lws. joined is the
// number of existing sources of the sink. Join returns the handlers of the accepted
// stream and OK, or any other result to refuse the source with ErrRefused. It is
// called on the goroutine that connects the source, and must be safe for concurrent
// use.
type Join func(joined uint32) (runtime.Handlers, runtime.Result)

// A Sink accepts the sources of a streamtype. Its methods are safe for concurrent
// use, also from callbacks.
type Sink struct {
	t          *Transport
	c          *runtime.Context
	streamtype string
	join       Join
	joined     uint32 // number of sources; guarded by t.mu
}

// Accept makes the sink of a streamtype of c, which must have t as a transport.
// From then on join decides about each stream of the streamtype that NewStream,
// Open or Fetch makes, or that reconnects.
//
// Before NewStream returns the source, the accepted stream receives CREATING,
// CONNECTING and CONNECTED, followed by the source. When one of the two is
// disconnected, the other receives what was sent before, and is disconnected too.
// The accepted stream then receives DISCONNECTED and DESTROYING. The source
// receives DISCONNECTED, and reconnects as the policy specifies, to another
// accepted stream.
//
// Payload is passed in pieces of at most 16 KiB, with flags, as Tx returned them. A
// piece waits until the other side can receive it, and Tx is not called meanwhile.
//
// The error wraps runtime.ErrUnknownStreamType, runtime.ErrUnsupported if the
// streamtype is not a local_sink, ErrExists, or runtime.ErrClosed if the context
// had a stream of t and is closed.
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
	case t.env != nil && t.env.Closing().Err() != nil:
		return runtime.ErrClosed
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

// Close removes the sink, so that no more sources can join. Connected streams are
// not affected. It may be called more than once, and returns nil.
func (k *Sink) Close() error {
	k.t.mu.Lock()
	defer k.t.mu.Unlock()
	if k.t.sinks[k.streamtype] == k {
		delete(k.t.sinks, k.streamtype)
	}
	return nil
}

// Protocols returns policy.ProtocolSink.
func (t *Transport) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolSink} }

// Prepare implements transport.Transport. It returns runtime.ErrUnsupported if the
// transport belongs to another context.
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

// accept makes an accepted stream for a new source, and returns the pipe between them.
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
	p := newPipe()
	e := &end{pipe: p, accepted: true}
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
	case err == nil && p.over(): // declined or destroyed by a callback
		s.Destroy()
		return nil, ErrRefused
	case errors.Is(err, runtime.ErrRefused):
		return nil, ErrRefused
	case err != nil:
		leave() // End is not called if the stream got no state
		return nil, errors.Unwrap(err)
	}
	return p, nil
}
