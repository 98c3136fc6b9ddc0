package runtime

import (
	"context"
	"fmt"
	"iter"
	"sync"
)

// Accept makes a stream of a server streamtype over raw or ws, and iterates over
// the connections that clients make. The program must close each Conn. Up to the
// limits of the listener, connections wait in a queue for the loop.
//
//	for conn, err := range c.Accept("myserver") {
//		if err != nil {
//			return err
//		}
//		go serve(conn)
//	}
//
// The iteration ends with an error if NewStream fails or the stream can no longer
// accept: ErrClosed if the stream or the context was closed. The stream and its
// connections are destroyed at the end of the loop.
func (c *Context) Accept(streamtype string, o ...StreamOption) iter.Seq2[*Conn, error] {
	return func(yield func(*Conn, error) bool) {
		q := &acceptQueue{}
		q.cond.L = &q.mu
		s, err := c.NewStream(streamtype, Handlers{State: q.state}, append(o[:len(o):len(o)], WithClients(q.client))...)
		if err == nil && (s.Addr() == nil || s.StreamType().Protocol.IsHTTP()) {
			s.Destroy()
			err = fmt.Errorf("sspolicy: accept %q: %w: it is not a server over raw or ws", streamtype, ErrUnsupported)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		defer s.Destroy()
		for {
			conn := q.next()
			if conn == nil {
				err := s.Err()
				if err == nil {
					err = ErrClosed
				}
				yield(nil, fmt.Errorf("sspolicy: accept %q: %w", streamtype, err))
				return
			}
			if !yield(conn, nil) {
				return
			}
		}
	}
}

// An acceptQueue holds the connections that wait for the loop.
type acceptQueue struct {
	mu    sync.Mutex
	cond  sync.Cond
	conns []*Conn
	over  bool // the listener has ended
}

// state is the State callback of the listener.
func (q *acceptQueue) state(_ *Stream, state State, _ uint32) Result {
	if state == StateDestroying {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.over = true
		q.cond.Broadcast()
	}
	return OK
}

// client returns the handlers of an accepted stream.
func (q *acceptQueue) client(*Stream) Handlers {
	x := &exchange{ctx: context.Background()}
	x.cond.L = &x.mu
	x.call.limit = DefaultLimit
	return Handlers{Rx: x.rx, RxClosed: x.rxClosed, State: func(s *Stream, state State, arg uint32) Result {
		r := x.state(s, state, arg)
		if state == StateConnected && r == OK {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.conns = append(q.conns, &Conn{x})
			q.cond.Broadcast()
		}
		return r
	}}
}

// next waits for a connection. It returns nil when the listener has ended and the
// queue is empty.
func (q *acceptQueue) next() *Conn {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.conns) == 0 && !q.over {
		q.cond.Wait()
	}
	if len(q.conns) == 0 {
		return nil
	}
	conn := q.conns[0]
	q.conns = q.conns[1:]
	return conn
}

// Peer returns the client of a Conn that [Context.Accept] returned.
func (c *Conn) Peer() Peer { return c.x.s.Peer() }
