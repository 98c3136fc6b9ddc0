package sink

import (
	"context"
	"io"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A pipe connects a source to its accepted stream.
type pipe struct {
	toSink, toSource lane
	done             chan struct{} // closed by close
	close            func()        // disconnects both; may be called more than once
}

// A lane is one direction of a pipe. It holds one piece.
type lane struct {
	full  chan piece
	empty chan []byte // the buffer, while the lane is empty
}

// A piece is payload with its flags, the first n bytes of buf.
type piece struct {
	buf   []byte
	n     int
	flags policy.Flags
}

// bufferSize is the size of the largest piece, in bytes.
const bufferSize = 16 << 10

// newPipe returns a pipe whose buffers are allocated at their first use.
func newPipe() *pipe {
	newLane := func() lane {
		l := lane{make(chan piece, 1), make(chan []byte, 1)}
		l.empty <- nil
		return l
	}
	p := &pipe{toSink: newLane(), toSource: newLane(), done: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.done) })
	return p
}

// over reports whether the pipe is closed.
func (p *pipe) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// An end is the data that the transport keeps with a source or an accepted stream.
// The stream may continue before the Run of an earlier attempt has returned.
type end struct {
	accepted bool

	mu   sync.Mutex
	pipe *pipe          // nil if a source is not connected
	link transport.Link // that Open has connected
}

// leave closes the pipe. A source gets another one from its next attempt.
func (e *end) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaveLocked()
}

func (e *end) leaveLocked() {
	if e.pipe != nil {
		e.pipe.close()
	}
	if !e.accepted {
		e.pipe = nil
	}
}

// over is like leave, unless another attempt than that on l has begun.
func (e *end) over(l transport.Link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.link == l {
		e.link = nil
		e.leaveLocked()
	}
}

// A connector executes a streamtype that is a local_sink.
type connector struct {
	t     *Transport
	setup *transport.Setup
}

// Admit connects a new stream, which is a source, to the sink.
func (c connector) Admit() (transport.Option, error) {
	p, err := c.t.accept(c.setup.Stream.Name)
	if err != nil {
		return transport.Option{}, err
	}
	return source(&end{pipe: p}), nil
}

// source returns the Option of a source.
func source(e *end) transport.Option {
	return transport.Option{
		Protocol: policy.ProtocolSink,
		Data:     func() any { return e },
		Connect:  true,
		Declined: e.leave,
		End:      e.leave,
	}
}

// Open implements transport.Opener.
func (c connector) Open(l transport.Link) error {
	e := endOf(l)
	e.mu.Lock()
	p := e.pipe
	e.mu.Unlock()
	if p == nil {
		var err error
		if p, err = c.t.accept(c.setup.Stream.Name); err != nil {
			return err
		}
	}
	e.mu.Lock()
	e.pipe, e.link = p, l
	e.mu.Unlock()
	if err := l.Connected(); err != nil {
		e.over(l)
		return err
	}
	return nil
}

// endOf returns the end of a stream. It makes one for a source that had another carrier
// until the policy changed.
func endOf(l transport.Link) *end { return l.Data(func() any { return new(end) }).(*end) }

// Run passes payload to and from the stream.
func (c connector) Run(ctx context.Context, l transport.Link) error {
	e := endOf(l)
	e.mu.Lock()
	p, open := e.pipe, e.link == l
	e.mu.Unlock()
	if !open {
		if err := c.Open(l); err != nil {
			return err
		}
		e.mu.Lock()
		p = e.pipe
		e.mu.Unlock()
	}
	if p == nil {
		return io.EOF // the stream has ended
	}
	defer e.over(l)
	in, out := p.toSource, p.toSink
	if e.accepted {
		in, out = out, in
	}
	received := make(chan error, 1)
	go func() { received <- c.receive(ctx, l, p, in) }()
	// receive and transmit end for the same reasons, so one error is enough.
	transmit(ctx, l, p, out)
	return <-received
}

// receive passes payload to the stream until ctx is done or the pipe is closed.
func (c connector) receive(ctx context.Context, l transport.Link, p *pipe, in lane) error {
	rx := func(m piece) error {
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
		case <-p.done:
			select {
			case m := <-in.full: // the last piece
				if err := rx(m); err != nil {
					return err
				}
			default:
			}
			if c.setup.Closing().Err() != nil { // the stream is about to be destroyed
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return io.EOF
		}
	}
}

// transmit passes payload from the stream until ctx is done or the pipe is closed.
func transmit(ctx context.Context, l transport.Link, p *pipe, out lane) {
	ready := l.Ready()
	var buf []byte // not nil if a piece can be sent
	for {
		empty, ready := out.empty, ready
		if buf != nil {
			empty = nil
		} else {
			ready = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-p.done:
			return
		case buf = <-empty:
			if buf == nil {
				buf = make([]byte, bufferSize)
			}
		case <-ready:
			m, err := l.Tx(buf)
			if err != nil {
				return
			}
			if flags := m.Flags &^ policy.FlagEnd; m.N > 0 || flags != 0 {
				out.full <- piece{buf, m.N, flags}
				buf = nil
			}
		}
	}
}

// Close does nothing: a connector holds no resources.
func (connector) Close() error { return nil }
