package http

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An h2Pool makes requests over HTTP/2. Requests to a host share a connection up to
// the server's limit of streams. A new connection gets one request until the server
// has sent its limit.
type h2Pool struct {
	key   poolKey
	limit time.Duration // of an attempt

	// mu is acquired before the mu of a connection.
	mu     sync.Mutex
	hosts  map[string]*h2Host
	closed bool
}

// An h2Host holds the connections to an address. The mu of the pool guards it.
type h2Host struct {
	address string
	conns   []*h2Conn
	dialing int
	streams int          // the limit of the latest connection
	waiters []*h2Waiter  // requests without a connection
	waiting atomic.Int32 // len(waiters), readable without the lock
}

// An h2Waiter is a request that waits for a connection.
type h2Waiter struct {
	ctx context.Context
	c   *h2Conn // with a reserved stream
	err error
	got chan struct{} // closed when one of them is set
}

func newH2Pool(k poolKey) *h2Pool {
	return &h2Pool{key: k, limit: k.env.ConnectTimeout(), hosts: make(map[string]*h2Host)}
}

const (
	// maxSends limits how often a request is sent. It is resent only if the server
	// has certainly not processed it.
	maxSends = 16

	// maxConns limits the connections to a host.
	maxConns = 256
)

// RoundTrip makes one request.
func (p *h2Pool) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := check(req); err != nil {
		closeBody(req)
		return nil, err
	}
	ctx, address := req.Context(), hostOf(req)
	for sends := 1; ; sends++ {
		getConn(ctx, address)
		c, reused, err := p.get(ctx, address)
		if err != nil {
			closeBody(req)
			return nil, err
		}
		gotConn(ctx, c.Conn, reused)
		st := newH2Stream(c, ctx)
		resp, err := st.roundTrip(req, reused)
		if err == nil {
			return resp, nil
		}
		switch {
		case !errors.Is(err, errUnprocessed) || st.bodyRead.Load():
			closeBody(req)
			return nil, err
		case sends == maxSends:
			closeBody(req)
			return nil, errResets
		case sends > 1:
			pause := time.NewTimer(time.Duration(sends) * 5 * time.Millisecond)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				closeBody(req)
				return nil, context.Cause(ctx)
			}
		}
	}
}

// Close closes the connections when they have no more requests.
func (p *h2Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	var all []*h2Conn
	for _, h := range p.hosts {
		all = append(all, h.conns...)
	}
	p.mu.Unlock()
	for _, c := range all {
		c.retire()
	}
	return nil
}

// get returns a connection with a stream reserved.
func (p *h2Pool) get(ctx context.Context, address string) (c *h2Conn, reused bool, err error) {
	p.mu.Lock()
	h := p.hosts[address]
	if h == nil {
		h = &h2Host{address: address}
		p.hosts[address] = h
	}
	if c := h.reserveLocked(); c != nil {
		p.mu.Unlock()
		return c, true, nil
	}
	w := &h2Waiter{ctx: ctx, got: make(chan struct{})}
	h.waiters = append(h.waiters, w)
	h.waiting.Store(int32(len(h.waiters)))
	p.dispatchLocked(h)
	p.mu.Unlock()
	select {
	case <-w.got:
	case <-ctx.Done():
		p.mu.Lock()
		if i := slices.Index(h.waiters, w); i >= 0 {
			h.waiters = slices.Delete(h.waiters, i, i+1)
			h.waiting.Store(int32(len(h.waiters)))
			w.err = context.Cause(ctx)
			p.cleanLocked(h)
		}
		p.mu.Unlock()
		if w.c != nil {
			w.c.unreserve()
			return nil, false, context.Cause(ctx)
		}
	}
	if w.err != nil {
		return nil, false, w.err
	}
	return w.c, w.c.used.Swap(true), nil
}

// reserveLocked reserves a stream on one of the connections, or returns nil.
func (h *h2Host) reserveLocked() *h2Conn {
	for _, c := range h.conns {
		if c.reserve() {
			return c
		}
	}
	return nil
}

// dispatchLocked assigns connections to waiting requests, and makes the missing
// ones.
func (p *h2Pool) dispatchLocked(h *h2Host) {
	for len(h.waiters) > 0 {
		c := h.reserveLocked()
		if c == nil {
			break
		}
		h.nextLocked().take(c, nil)
	}
	pending := 0 // connections whose limit is not known yet
	for _, c := range h.conns {
		if !c.settled.Load() {
			pending++
		}
	}
	each := max(h.streams, 1)
	if h.streams == 0 {
		each = len(h.waiters) // unknown limit: one connection may suffice
	}
	for (h.dialing+pending)*each < len(h.waiters) && h.dialing+len(h.conns) < maxConns {
		h.dialing++
		// A dial continues after the request that caused it, and has its own limit.
		go p.dial(context.WithoutCancel(h.waiters[0].ctx), h)
	}
}

// nextLocked removes and returns the oldest waiting request.
func (h *h2Host) nextLocked() *h2Waiter {
	w := h.waiters[0]
	h.waiters = slices.Delete(h.waiters, 0, 1)
	h.waiting.Store(int32(len(h.waiters)))
	return w
}

// take ends the wait of a request.
func (w *h2Waiter) take(c *h2Conn, err error) {
	w.c, w.err = c, err
	close(w.got)
}

// dial makes a connection to a host.
func (p *h2Pool) dial(ctx context.Context, h *h2Host) {
	conn, err := p.key.dial(ctx, h.address, "h2")
	if err == nil && p.key.trust != nil && alpnOf(conn) != "h2" {
		conn.abort()
		err = errNoH2
	}
	var c *h2Conn
	if err == nil {
		c = newH2Conn(p, h, conn)
		c.start()
	}
	p.mu.Lock()
	h.dialing--
	if c != nil {
		err = c.ended()
	}
	switch {
	case err != nil:
		// If other dials fail too, each reports that to its share of the requests.
		n := len(h.waiters)
		if h.dialing > 0 {
			n = min(n, max(h.streams, 1))
		}
		for range n {
			h.nextLocked().take(nil, err)
		}
		p.cleanLocked(h)
	default:
		h.conns = append(h.conns, c)
		p.dispatchLocked(h)
	}
	closed := p.closed
	p.mu.Unlock()
	if c != nil && closed {
		c.retire()
	}
}

// ready is called when the limit of a connection is known or has changed.
func (p *h2Pool) ready(h *h2Host, streams int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.streams = streams
	p.dispatchLocked(h)
}

// released is called when a stream of a connection has ended.
func (p *h2Pool) released(h *h2Host) {
	if h.waiting.Load() > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dispatchLocked(h)
	}
}

// remove removes a connection from the list.
func (p *h2Pool) remove(c *h2Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := c.host
	if i := slices.Index(h.conns, c); i >= 0 {
		h.conns = slices.Delete(h.conns, i, i+1)
		if len(h.waiters) > 0 {
			p.dispatchLocked(h)
		}
		p.cleanLocked(h)
	}
}

// cleanLocked forgets a host without connections.
func (p *h2Pool) cleanLocked(h *h2Host) {
	if len(h.conns) == 0 && len(h.waiters) == 0 && h.dialing == 0 && p.hosts[h.address] == h {
		delete(p.hosts, h.address)
	}
}

// alpnOf returns the protocol that the server has selected.
func alpnOf(c conn) string {
	if s, ok := c.Conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return s.ConnectionState().NegotiatedProtocol
	}
	return ""
}
