package runtime

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// A Sink is where the streams of a streamtype that is a local_sink end: in the
// program itself. Such a stream, which is called a source, has a peer in the same
// context, its accepted stream, and what one sends the other receives. There is
// no network, and what the policy says of one means nothing.
type Sink struct {
	c          *Context
	streamtype string
	join       func(joined uint32) (Handlers, Result)
	joined     uint32 // guarded by mu of the context
}

// NewSink makes the sink of a streamtype that the policy says local_sink of.
// From then on each stream that NewStream, Open or Fetch makes of that type is a
// source, and join is asked: joined is how many sources have joined by then and
// are still there. Any result but OK refuses the new one, with ErrSinkRefused;
// else it has joined, and the Handlers are those of its accepted stream. This is
// what SINK_JOIN is in lws. join may be called by many goroutines at a time.
//
// Before NewStream returns the source, the accepted stream gets CREATING,
// CONNECTING and CONNECTED, and then the source. When one of the two ends or
// disconnects, the other one is disconnected when it has received what was sent
// before: an accepted stream gets DISCONNECTED and DESTROYING; a source
// DISCONNECTED, and is connected anew as the policy says, if need be to another
// accepted stream.
//
// Payload is handed over piece by piece, with its flags, as Tx has given it. A
// piece that the other side is not ready for waits, and meanwhile Tx is not
// called.
//
// The error is ErrClosed, ErrUnknownStreamType, ErrUnsupported if the streamtype
// is no local_sink, or ErrSinkExists.
func (c *Context) NewSink(streamtype string, join func(joined uint32) (Handlers, Result)) (*Sink, error) {
	k := &Sink{c: c, streamtype: streamtype, join: join}
	if err := c.addSink(k); err != nil {
		return nil, fmt.Errorf("sspolicy: new sink %q: %w", streamtype, err)
	}
	return k, nil
}

func (c *Context) addSink(k *Sink) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.Policy().StreamType(k.streamtype)
	switch {
	case c.closed:
		return ErrClosed
	case st == nil:
		return ErrUnknownStreamType
	case !st.LocalSink:
		return fmt.Errorf("%w: the streamtype is no local_sink", ErrUnsupported)
	case c.sinks[k.streamtype] != nil:
		return ErrSinkExists
	}
	if c.sinks == nil {
		c.sinks, c.sinkConnector = make(map[string]*Sink), sinkConnector{c}
	}
	c.sinks[k.streamtype] = k
	return nil
}

// Close ends the sink: no source joins any more. Those that have joined stay. It
// may be called more than once, and returns nil.
func (k *Sink) Close() error {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	if k.c.sinks[k.streamtype] == k {
		delete(k.c.sinks, k.streamtype)
	}
	return nil
}

// A sinkJoiner is a sinkConnector, for what must not link it into a program that
// has no sinks.
type sinkJoiner interface {
	join(streamtype string) (*sinkPipe, error)
}

// callJoin asks the program. insideCallback looks for its name.
func (k *Sink) callJoin(joined uint32) (Handlers, Result) { return k.join(joined) }

// join makes an accepted stream for one more source, and the pipe to it.
func (n sinkConnector) join(streamtype string) (*sinkPipe, error) {
	c := n.c
	c.mu.Lock()
	k := c.sinks[streamtype]
	if k == nil {
		c.mu.Unlock()
		return nil, ErrNoSink
	}
	joined := k.joined
	k.joined++
	c.mu.Unlock()
	e := &sinkEnd{pipe: newSinkPipe()}
	e.leave = sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		k.joined--
	})
	h, r := k.callJoin(joined)
	if r != OK {
		e.leave()
		return nil, ErrSinkRefused
	}
	s, err := c.newStream(streamtype, h, func(s *Stream) error {
		if !s.t.policy.LocalSink { // any more
			return ErrNoSink
		}
		s.sink = e
		return nil
	})
	switch {
	case err == nil && e.pipe.over(): // declined or destroyed by a callback
		s.Destroy()
		return nil, ErrSinkRefused
	case err == ErrRefused:
		return nil, ErrSinkRefused
	case err != nil:
		e.leave() // it may not have come to be
		return nil, err
	}
	return e.pipe, nil
}

// A sinkPipe is between a source and its accepted stream.
type sinkPipe struct {
	toSink, toSource sinkLane
	done             chan struct{} // closed by close
	close            func()        // called when one of the two has ended
}

// A sinkLane has place for one piece.
type sinkLane struct {
	full  chan sinkPiece
	empty chan []byte // the buffer, while nothing is in it
}

type sinkPiece struct {
	buf   []byte
	n     int
	flags Flags
}

// sinkBuffer is the most that one piece has.
const sinkBuffer = 16 << 10

func newSinkPipe() *sinkPipe {
	lane := func() sinkLane {
		l := sinkLane{make(chan sinkPiece, 1), make(chan []byte, 1)}
		l.empty <- nil // made when it is needed
		return l
	}
	p := &sinkPipe{toSink: lane(), toSource: lane(), done: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.done) })
	return p
}

// over reports whether one of the two has ended.
func (p *sinkPipe) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// A sinkEnd is what a stream keeps that is a source or an accepted stream.
type sinkEnd struct {
	pipe  *sinkPipe // of a source: nil if it has not joined
	open  *Link     // that is connected
	leave func()    // of an accepted stream: it is gone; nil for a source
}

// accepted reports whether the stream is one that a sink has accepted.
func (s *Stream) accepted() bool { return s.sink != nil && s.sink.leave != nil }

// enterSink makes a new stream a source, if its streamtype is a local_sink and
// it is no accepted stream. After an error the stream has never been.
func (s *Stream) enterSink() error {
	joiner, ok := s.t.connector.(sinkJoiner)
	if !ok || s.sink != nil {
		return nil
	}
	pipe, err := joiner.join(s.t.policy.Name)
	if err != nil {
		s.mu.Lock()
		s.gone = true
		s.mu.Unlock()
		s.c.remove(s)
		return err
	}
	s.sink = &sinkEnd{pipe: pipe}
	return nil
}

// leaveSink ends what a stream has with a sink: it has come to no connection, or
// is gone.
func (s *Stream) leaveSink(gone bool) {
	e := s.sink
	if e == nil {
		return
	}
	if e.pipe != nil {
		e.pipe.close()
	}
	switch {
	case e.leave == nil:
		e.pipe = nil
	case gone:
		e.leave()
	}
}

// A sinkConnector executes the streamtypes that are a local_sink.
type sinkConnector struct{ c *Context }

// open connects the stream. NewStream calls it, so that the stream is connected
// when that returns.
func (n sinkConnector) open(l *Link) error {
	s := l.s
	if s.sink == nil { // a network connection until the policy has changed
		s.sink = new(sinkEnd)
	}
	e := s.sink
	if e.pipe == nil {
		pipe, err := n.join(l.StreamType().Name)
		if err != nil {
			return err
		}
		e.pipe = pipe
	}
	if s.accepted() {
		l.NoRetry()
	}
	if err := l.Connected(); err != nil {
		s.leaveSink(false)
		return err
	}
	e.open = l
	return nil
}

// Run hands payload to and from the stream.
func (n sinkConnector) Run(ctx context.Context, l *Link) error {
	s := l.s
	if s.sink == nil || s.sink.open != l {
		if err := n.open(l); err != nil {
			return err
		}
	}
	defer func() {
		s.sink.open = nil
		s.leaveSink(false)
	}()
	pipe := s.sink.pipe
	in, out := pipe.toSource, pipe.toSink
	if s.accepted() {
		in, out = out, in
	}
	received := make(chan error, 1)
	go func() { received <- n.receive(ctx, l, pipe, in) }()
	// What makes the one end makes the other end, so there is one error to tell.
	transmit(ctx, l, pipe, out)
	return <-received
}

// receive hands payload to the stream until one side has ended.
func (n sinkConnector) receive(ctx context.Context, l *Link, pipe *sinkPipe, in sinkLane) error {
	rx := func(m sinkPiece) error {
		err := l.Rx(m.buf[:m.n], m.flags)
		in.empty <- m.buf
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case m := <-in.full:
			if err := rx(m); err != nil {
				return err
			}
		case <-pipe.done:
			select {
			case m := <-in.full: // the last
				if err := rx(m); err != nil {
					return err
				}
			default:
			}
			if n.c.life.Err() != nil { // both sides are about to be destroyed
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return io.EOF
		}
	}
}

// transmit takes payload from the stream until one side has ended.
func transmit(ctx context.Context, l *Link, pipe *sinkPipe, out sinkLane) {
	ready := l.TxReady()
	var buf []byte // not nil if a piece can be sent
	for {
		empty, ask := out.empty, ready
		if buf != nil {
			empty = nil
		} else {
			ask = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-pipe.done:
			return
		case buf = <-empty:
			if buf == nil {
				buf = make([]byte, sinkBuffer)
			}
		case <-ask:
			k, flags, err := l.Tx(buf)
			if err != nil {
				return
			}
			if k > 0 || flags != 0 {
				out.full <- sinkPiece{buf, k, flags}
				buf = nil
			}
		}
	}
}

// Close does nothing: what a stream has is closed with it.
func (sinkConnector) Close() error { return nil }
