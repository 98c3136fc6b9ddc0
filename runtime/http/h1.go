package http

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// An h1Pool makes requests over HTTP/1.1. The caller's goroutine sends a request
// without a body and reads the response; only a request with a body needs another
// goroutine.
type h1Pool struct {
	key poolKey

	mu     sync.Mutex
	idle   map[string][]*h1Conn // by address; the most recently used last
	closed bool
}

func newH1Pool(k poolKey) *h1Pool { return &h1Pool{key: k, idle: make(map[string][]*h1Conn)} }

// An h1Conn is a connection, which carries one request at a time.
type h1Conn struct {
	conn
	p       *h1Pool
	address string
	raw     syscall.RawConn // nil if the connection cannot be examined
	br      *bufio.Reader
	bw      *bufio.Writer

	// About an idle connection; guarded by the mu of p.
	timer idleTimer
	watch chan struct{} // closed when the watcher ends; nil without one

	header   int         // bytes left for the headers; negative after them
	received bool        // part of the current response has arrived
	err      error       // of the latest Read
	broken   atomic.Bool // a Write has failed, or the server has closed it
}

var errHeader = fmt.Errorf("sspolicy: the headers of the response are longer than %d bytes", request.MaxHeaderBytes)

// Read reads from the connection.
func (c *h1Conn) Read(p []byte) (n int, err error) {
	switch {
	case c.header == 0:
		err = errHeader
	case c.header > 0:
		n, err = c.Conn.Read(p[:min(len(p), c.header)])
		c.header -= n
	default:
		n, err = c.Conn.Read(p)
	}
	c.received = c.received || n > 0
	if err != nil && err != io.EOF {
		err = tlsError(err)
	}
	c.err = err
	return n, err
}

// Write writes to the connection.
func (c *h1Conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		c.broken.Store(true)
	}
	return n, err
}

// RoundTrip makes one request.
func (p *h1Pool) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := check(req); err != nil {
		closeBody(req)
		return nil, err
	}
	ctx, address := req.Context(), hostOf(req)
	getConn(ctx, address)
	for {
		c, reused, err := p.get(ctx, address)
		if err != nil {
			closeBody(req)
			return nil, err
		}
		gotConn(ctx, c.Conn, reused)
		x := &h1Exchange{c: c, ctx: ctx}
		resp, err := x.roundTrip(req)
		// The server may have closed a kept connection before the request reached it.
		if err == nil || !reused || c.received || req.Body != nil || !idempotent(req.Method) || ctx.Err() != nil {
			return resp, err
		}
	}
}

// Close closes the idle connections. Those in use close with their request.
func (p *h1Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	for _, list := range idle {
		for _, c := range list {
			c.timer.stop()
		}
	}
	p.mu.Unlock()
	for _, list := range idle {
		for _, c := range list {
			c.leave()
		}
	}
	return nil
}

// closeBody closes the body of a request that is not sent.
func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// idempotent reports whether a request may be sent twice.
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// get returns a connection for a request.
func (p *h1Pool) get(ctx context.Context, address string) (c *h1Conn, reused bool, err error) {
	for {
		c := p.takeIdle(address)
		if c == nil {
			break
		}
		if c.resume(ctx) {
			return c, true, nil
		}
		c.abort()
		if ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
	}
	conn, err := p.dial(ctx, address)
	if err != nil {
		return nil, false, err
	}
	c = &h1Conn{conn: conn, p: p, address: address}
	if d, ok := conn.network.(interface{ Dialed() net.Conn }); ok {
		c.raw = rawConn(d.Dialed())
	}
	c.br, c.bw = bufio.NewReader(c), bufio.NewWriter(c)
	c.timer.call = func() { p.expire(c) }
	return c, false, nil
}

// dial makes a connection. It returns when ctx is done, whatever a dialer does.
func (p *h1Pool) dial(ctx context.Context, address string) (conn, error) {
	type result struct {
		conn
		err error
	}
	dialed := make(chan result)
	go func() {
		c, err := p.key.dial(ctx, address, "http/1.1")
		select {
		case dialed <- result{c, err}:
		case <-ctx.Done():
			if err == nil {
				c.abort()
			}
		}
	}()
	select {
	case r := <-dialed:
		return r.conn, r.err
	case <-ctx.Done():
		return conn{}, context.Cause(ctx)
	}
}

// takeIdle removes and returns the most recently used idle connection, or returns
// nil.
func (p *h1Pool) takeIdle(address string) *h1Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[address]
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	p.removeAtLocked(address, len(list)-1)
	return c
}

// put keeps a connection for the next request.
func (p *h1Pool) put(c *h1Conn) {
	p.mu.Lock()
	list := p.idle[c.address]
	if full := p.closed || len(list) >= maxIdlePerHost; full {
		p.mu.Unlock()
		c.leave()
		return
	}
	p.idle[c.address] = append(list, c)
	if c.raw == nil {
		c.watchLocked()
	}
	c.timer.start(watchAfter)
	p.mu.Unlock()
}

// watchAfter is how long an examinable connection is idle before a goroutine
// watches it, which costs more than examining it.
const watchAfter = 100 * time.Millisecond

// expire starts to watch a connection that has been idle for watchAfter, and closes
// one that has been idle for idleTimeout.
func (p *h1Pool) expire(c *h1Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !slices.Contains(p.idle[c.address], c):
		c.timer.at = time.Time{}
	case c.watch == nil:
		if c.timer.expired(watchAfter) {
			c.watchLocked()
			c.timer.expired(idleTimeout)
		}
	case c.timer.expired(idleTimeout):
		p.removeLocked(c)
		c.leave()
	}
}

// removeLocked removes an idle connection. It returns false if the connection is
// not idle.
func (p *h1Pool) removeLocked(c *h1Conn) bool {
	i := slices.Index(p.idle[c.address], c)
	if i >= 0 {
		p.removeAtLocked(c.address, i)
	}
	return i >= 0
}

// removeAtLocked removes idle connection i of an address.
func (p *h1Pool) removeAtLocked(address string, i int) {
	if list := p.idle[address]; len(list) > 1 {
		p.idle[address] = slices.Delete(list, i, i+1)
	} else {
		delete(p.idle, address)
	}
}

// watchLocked starts to watch an idle connection: it is closed if data arrives or
// the server closes it.
func (c *h1Conn) watchLocked() {
	if c.network.SetReadDeadline(time.Time{}) != nil {
		return // a read could not be interrupted
	}
	done := make(chan struct{})
	c.watch = done
	go func() {
		defer close(done)
		_, err := c.br.Peek(1)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		c.broken.Store(true)
		c.p.mu.Lock()
		idle := c.p.removeLocked(c)
		c.p.mu.Unlock()
		if idle {
			c.timer.stop()
			c.abort()
		}
	}()
}

// resume prepares an idle connection for a request. It returns false if the server
// has closed the connection or has sent data without a request.
func (c *h1Conn) resume(ctx context.Context) bool {
	if c.watch == nil {
		return c.raw == nil || isQuiet(c.raw) && c.drained()
	}
	c.network.SetReadDeadline(past)
	select {
	case <-c.watch:
	case <-ctx.Done():
		return false
	}
	c.watch = nil
	return !c.broken.Load() && c.network.SetReadDeadline(time.Time{}) == nil
}

// drained reports whether TLS holds no data that the server has sent without a
// request: it reads ahead, so isQuiet does not see everything.
func (c *h1Conn) drained() bool {
	if c.p.key.trust == nil {
		return true
	}
	if c.network.SetReadDeadline(past) != nil {
		return false
	}
	_, err := c.br.Peek(1)
	return errors.Is(err, os.ErrDeadlineExceeded) && c.network.SetReadDeadline(time.Time{}) == nil
}

// An h1Exchange is a request and its response. It is the body of the response.
type h1Exchange struct {
	c       *h1Conn
	ctx     context.Context
	stop    func() bool   // ends the wait for ctx
	wrote   chan error    // the result of sending; nil for a request without a body
	request io.Closer     // the body of the request, or nil
	body    io.ReadCloser // of the response
	keep    bool          // the connection can carry another request
	ended   atomic.Bool

	mu    sync.Mutex
	cause error // why the request failed
}

// roundTrip sends a request and reads the headers of the response.
func (x *h1Exchange) roundTrip(req *http.Request) (*http.Response, error) {
	x.stop = context.AfterFunc(x.ctx, x.c.abort)
	x.c.header, x.c.received, x.c.err = request.MaxHeaderBytes, false, nil
	resp, err := x.exchange(req)
	if err != nil {
		err = x.error(err)
		x.end(false)
		return nil, err
	}
	x.c.header = -1
	x.keep = !resp.Close && resp.StatusCode != http.StatusSwitchingProtocols
	x.body = resp.Body
	if x.body == http.NoBody {
		x.end(true)
	} else {
		resp.Body = x
	}
	return resp, nil
}

func (x *h1Exchange) exchange(req *http.Request) (*http.Response, error) {
	if req.Body == nil {
		if err := x.write(req); err != nil {
			return nil, err
		}
	} else {
		x.request, x.wrote = req.Body, make(chan error, 1)
		go func() {
			err := x.write(req)
			if err != nil && !x.c.broken.Load() { // an error of the body: the server waits for the rest
				x.mu.Lock()
				x.cause = err
				x.mu.Unlock()
				x.c.abort()
			}
			x.wrote <- err
		}()
	}
	if t := httptrace.ContextClientTrace(x.ctx); t != nil && t.GotFirstResponseByte != nil {
		if _, err := x.c.br.Peek(1); err == nil {
			t.GotFirstResponseByte()
		}
	}
	for {
		// Interim responses are ignored. All headers together are limited.
		resp, err := http.ReadResponse(x.c.br, req)
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
}

// write sends a request.
func (x *h1Exchange) write(req *http.Request) error {
	if err := req.Write(x.c.bw); err != nil {
		return err
	}
	return x.c.bw.Flush()
}

// error returns why the exchange has failed, given the error of a reader or writer.
func (x *h1Exchange) error(err error) error {
	if x.ctx.Err() != nil {
		return context.Cause(x.ctx)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch c := x.c; {
	case x.cause != nil:
		return x.cause
	case c.err == io.EOF && !c.received:
		return errNoAnswer
	case c.err != nil && c.err != io.EOF:
		return c.err
	}
	return transport.Printable(err) // it may quote the response
}

// Read reads from the body of the response.
func (x *h1Exchange) Read(p []byte) (int, error) {
	n, err := x.body.Read(p)
	switch err {
	case nil:
	case io.EOF:
		x.end(true)
	default:
		err = x.error(err)
		x.end(false)
	}
	return n, err
}

// Close ends the exchange. It may be called during a Read.
func (x *h1Exchange) Close() error {
	x.end(false)
	return nil
}

// end ends the use of the connection. complete means that the response was read to
// its end.
func (x *h1Exchange) end(complete bool) {
	if x.ended.Swap(true) {
		return
	}
	c := x.c
	keep := x.stop() && complete && x.keep && c.br.Buffered() == 0
	if keep && x.wrote != nil {
		// The server has answered the whole request, or does not want the rest.
		late := time.NewTimer(50 * time.Millisecond)
		defer late.Stop()
		select {
		case err := <-x.wrote:
			keep = err == nil
		case <-late.C:
			keep = false
		}
	}
	if keep {
		c.p.put(c)
		return
	}
	c.abort()
	if x.request != nil {
		x.request.Close() // ends a Read that waits for the program
	}
}
