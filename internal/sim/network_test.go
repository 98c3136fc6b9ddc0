package sim

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A network connects the dialers of a world to its hosts like TCP, with the faults of a
// plan.
type network struct {
	seed   uint64
	plan   *plan
	tr     *trace
	moment func(host string, m moment, at time.Time)
	window int // maximum number of unread bytes in one direction

	serverBuffers bool // see protocol

	mu    sync.Mutex
	hosts map[string]*host
	open  map[*conn]bool // open client connections

	udp *datagrams
}

// A host is a name that can be dialed.
type host struct {
	name string

	onRestart func(lost bool) // called after a restart; may be nil
	server    *server         // that runs on it, or nil
	onFault   func(*event)    // called when a fault begins; may be nil

	// Guarded by the mu of the network.
	accept chan net.Conn // nil without a listener
	closed chan struct{} // of the listener
	dials  int
	conns  map[*conn]bool // open server connections
}

func newNetwork(w *world) *network {
	n := &network{seed: w.seed, plan: w.plan, tr: w.tr, moment: w.moment, window: cmp.Or(w.protocol.window, 64<<10), hosts: map[string]*host{}, open: map[*conn]bool{}}
	n.udp = newDatagrams(n)
	n.serverBuffers = w.protocol.serverBuffers
	return n
}

// host returns the host with the name, which need not have a listener.
func (n *network) host(name string) *host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	if h == nil {
		h = &host{name: name, conns: map[*conn]bool{}}
		n.hosts[name] = h
	}
	return h
}

// openConns returns the number of open client connections and sockets.
func (n *network) openConns() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.open) + n.udp.openClients()
}

// Errors of the network.
var (
	errRefused = syscall.ECONNREFUSED
	errReset   = syscall.ECONNRESET
)

func opError(op string, err error) error { return &net.OpError{Op: op, Net: "tcp", Err: err} }

// dialer returns an Options.DialContext. owner is the number of the context.
func (n *network) dialer(owner int) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) { return n.dial(ctx, owner, address) }
}

func (n *network) dial(ctx context.Context, owner int, address string) (net.Conn, error) {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	h := n.host(name)
	n.mu.Lock()
	h.dials++
	id := fmt.Sprintf("%s#%d", name, h.dials)
	n.mu.Unlock()
	conn, err := n.connect(ctx, h, id, owner)
	if err != nil {
		n.tr.note(id, "dial: %v", err)
		return nil, err
	}
	n.tr.note(id, "connected")
	return conn, nil
}

// wait sleeps for d, or until ctx is done.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *network) connect(ctx context.Context, h *host, id string, owner int) (net.Conn, error) {
	d := fork(n.seed, "dial", id)
	now := time.Now()
	delay := d.ms(1, 60)
	if e := n.plan.active(now, h.name, dnsSlow, dialSlow); e != nil {
		delay += d.ms(1, e.arg)
	}
	if err := wait(ctx, time.Until(d.at(now, delay))); err != nil {
		return nil, err
	}
	now = time.Now()
	if e := n.plan.active(now, h.name, dnsFail, dnsNone); e != nil {
		return nil, &net.DNSError{Err: e.kind.String(), Name: h.name, IsNotFound: e.kind == dnsNone, IsTemporary: e.kind == dnsFail}
	}
	if e := n.plan.active(now, h.name, partition, vanish); e != nil { // SYNs are retransmitted
		if err := wait(ctx, time.Until(d.at(e.end(), d.ms(10, 3000)))); err != nil {
			return nil, err
		}
	}
	if n.plan.active(time.Now(), h.name, blackHole) != nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if n.plan.active(time.Now(), h.name, refuse, restart, restartLost) != nil {
		return nil, opError("dial", errRefused)
	}
	l := &link{net: n, h: h, id: id, owner: owner}
	l.cond.L = &l.mu
	client, server := &conn{link: l}, &conn{link: l, server: true}
	client.peer, server.peer = server, client
	client.left, server.left = -1, -1
	if e := n.plan.active(time.Now(), h.name, cut); e != nil && d.oneIn(2) {
		if d.oneIn(2) {
			client.left = d.IntN(e.arg)
		} else {
			server.left = d.IntN(e.arg)
		}
	}
	n.mu.Lock()
	ch, closed := h.accept, h.closed
	n.open[client] = true
	h.conns[server] = true
	n.mu.Unlock()
	if ch != nil {
		select {
		case ch <- server:
			n.moment(h.name, dialed, time.Now())
			return client, nil
		case <-closed:
		case <-ctx.Done():
		}
	}
	n.mu.Lock()
	delete(n.open, client)
	delete(h.conns, server)
	n.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, opError("dial", errRefused)
}

// listen returns a listener on a host.
func (n *network) listen(h *host) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	h.accept, h.closed = make(chan net.Conn), make(chan struct{})
	return &listener{n: n, h: h, accept: h.accept, closed: h.closed}
}

type listener struct {
	n      *network
	h      *host
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.n.mu.Lock()
		defer l.n.mu.Unlock()
		close(l.closed)
		if l.h.accept == l.accept {
			l.h.accept, l.h.closed = nil, nil
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.h.name) }

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) + ":80" }

// strike applies an instantaneous fault to the connections of its host.
func (n *network) strike(e *event) {
	h := n.host(e.target)
	n.mu.Lock()
	var conns []*conn
	for c := range h.conns {
		conns = append(conns, c)
	}
	n.mu.Unlock()
	for _, c := range conns {
		c.strike(e)
	}
	if h.onRestart != nil && (e.kind == restart || e.kind == restartLost) {
		h.onRestart(e.kind == restartLost)
	}
	if h.onFault != nil {
		h.onFault(e)
	}
}

// heal spares the connections that were to be cut.
func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.hosts {
		for c := range h.conns {
			c.mu.Lock()
			c.left, c.peer.left = -1, -1
			c.mu.Unlock()
		}
	}
}

// A link is a connection with its two ends.
type link struct {
	net   *network
	h     *host
	id    string
	owner int // number of the context

	mu   sync.Mutex
	cond sync.Cond // signals a change of either end
	lost bool      // packets do not arrive
}

// A conn is an end of a connection, guarded by the mu of its link.
type conn struct {
	*link
	peer   *conn
	server bool

	buf      []byte // received, unread
	err      error  // returned after buf
	closed   bool   // Close has been called
	finSent  bool
	writeErr error

	left     int       // bytes until the connection is cut, or -1
	greeted  bool      // the server has sent a packet
	pend     *packet   // the packet of instant pendAt
	pendAt   time.Time //
	last     time.Time // arrival of the latest packet
	sent     int       // bytes that the peer has not acknowledged
	read     int       // bytes read but not acknowledged
	acking   bool      // an acknowledgement is scheduled
	deadline [2]deadline
}

type packet struct {
	data     []byte
	fin, rst bool
}

// A deadline is a read or write deadline.
type deadline struct {
	timer   *time.Timer
	expired bool
}

const (
	forRead = iota
	forWrite
)

func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, opError("read", net.ErrClosed)
		case c.deadline[forRead].expired:
			return 0, opError("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case len(c.buf) > 0:
			n := copy(p, c.buf)
			c.buf = c.buf[n:]
			c.acknowledgeLocked(n)
			return n, nil
		case c.err != nil:
			return 0, c.err
		}
		c.cond.Wait()
	}
}

// window returns the maximum number of unread bytes in one direction.
func (c *conn) window() int {
	if c.h.name == proxyHost {
		return proxyWindow
	}
	return c.net.window
}

// proxyWindow is the window of links to a proxy.
const proxyWindow = 8 << 10

// acknowledgeLocked schedules the acknowledgement of n more bytes read. The time depends
// only on the number of bytes, not on the number of reads.
func (c *conn) acknowledgeLocked(n int) {
	c.read += n
	if c.acking || c.read < c.window()/4 {
		return
	}
	c.acking = true
	now := time.Now()
	time.AfterFunc(instant(fork(c.net.seed, "ack", c.id, c.server), now, 5*time.Millisecond).Sub(now), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.peer.sent -= c.read
		c.read, c.acking = 0, false
		c.cond.Broadcast()
	})
}

func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for {
		switch {
		case c.closed || c.finSent:
			return n, opError("write", net.ErrClosed)
		case c.writeErr != nil:
			return n, c.writeErr
		case c.deadline[forWrite].expired:
			return n, opError("write", os.ErrDeadlineExceeded)
		case n == len(p):
			return n, nil
		}
		room := c.window() - c.sent
		if c.server && c.net.serverBuffers {
			room = math.MaxInt
		}
		if room > 0 {
			k := min(room, len(p)-n)
			c.sendLocked(p[n:n+k], false, false)
			n += k
			continue
		}
		c.cond.Wait()
	}
}

// sendLocked sends bytes, the end of the stream, or a reset.
func (c *conn) sendLocked(b []byte, fin, rst bool) {
	c.sent += len(b)
	if c.left >= 0 && len(b) > c.left {
		b = b[:c.left]
		rst = true
	}
	now := time.Now()
	if c.pend == nil || !now.Equal(c.pendAt) {
		c.pend, c.pendAt = new(packet), now
		p, at := c.pend, c.arrivalLocked(now)
		c.momentLocked(at)
		time.AfterFunc(at.Sub(now), func() { c.arrive(p) })
	}
	p := c.pend
	if !p.rst {
		p.data = append(p.data, b...)
		p.fin = p.fin || fin
		p.rst = rst
	}
	if c.left >= 0 {
		if c.left -= len(b); rst && c.peer.writeErr == nil { // tell both ends
			c.left = 0
			c.peer.left = -1
			c.peer.sendLocked(nil, false, true)
		}
	}
}

// momentLocked reports the arrival of a packet at the given time.
func (c *conn) momentLocked(at time.Time) {
	switch {
	case !c.server:
		c.net.moment(c.h.name, requested, at)
		return
	case !c.greeted:
		c.greeted = true
		c.net.moment(c.h.name, greeted, at)
	}
	c.net.moment(c.h.name, answered, at)
}

// arrivalLocked returns the arrival time of a packet sent now.
func (c *conn) arrivalLocked(now time.Time) time.Time {
	// The number of packets may depend on the scheduler, so random numbers depend on the
	// time.
	d := fork(c.net.seed, "packet", c.id, c.server, now.UnixNano())
	latency := d.ms(1, 40)
	plan := c.net.plan
	if e := plan.active(now, c.h.name, slow); e != nil {
		latency += d.ms(1, e.arg)
	}
	at := d.at(now, latency)
	if e := plan.active(now, c.h.name, partition); e != nil {
		at = d.at(e.end(), latency+d.ms(1, 2000))
	}
	if !at.After(c.last) {
		at = c.last.Add(time.Millisecond)
	}
	c.last = at
	return at
}

// arrive delivers a packet to the peer.
func (c *conn) arrive(p *packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	to := c.peer
	if c.lost {
		return
	}
	if to.closed && !p.rst {
		if len(p.data) > 0 && to.writeErr == nil {
			to.writeErr = errReset // once
			to.sendLocked(nil, false, true)
		}
		return
	}
	if to.err == nil {
		to.buf = append(to.buf, p.data...)
		if p.fin {
			to.err = io.EOF
		}
	}
	if p.rst {
		to.err, to.writeErr = opError("read", errReset), opError("write", errReset)
	}
	c.cond.Broadcast()
}

// strike applies a fault. c is the server's end.
func (c *conn) strike(e *event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.kind {
	case reset, restart, restartLost:
		c.peer.sendLocked(nil, false, true)
		c.sendLocked(nil, false, true)
	case hangUp:
		if !c.finSent && !c.closed {
			c.finSent = true
			c.sendLocked(nil, true, false)
		}
	case vanish:
		// The server forgets the connection. The client notices when it probes and the host
		// is up again.
		c.lost = true
		c.err, c.writeErr = opError("read", errReset), opError("write", errReset)
		now := time.Now()
		d := fork(c.net.seed, "vanish", c.id)
		time.AfterFunc(d.at(e.end(), d.ms(10, 15_000)).Sub(now), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.peer.err, c.peer.writeErr = opError("read", errReset), opError("write", errReset)
			c.cond.Broadcast()
		})
		c.cond.Broadcast()
	}
}

// CloseWrite closes the sending direction.
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return opError("close", net.ErrClosed)
	}
	if !c.finSent {
		c.finSent = true
		c.sendLocked(nil, true, false)
	}
	return nil
}

// isOpen reports whether this end of the connection is usable.
func (c *conn) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && c.err == nil
}

func (c *conn) Close() error {
	c.net.mu.Lock()
	delete(c.net.open, c)
	delete(c.h.conns, c)
	c.net.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return opError("close", net.ErrClosed)
	}
	c.closed = true
	if !c.server {
		c.net.moment(c.h.name, closed, time.Now())
	}
	// As in Linux, closing with unread bytes resets the connection.
	if !c.finSent || len(c.buf) > 0 {
		c.sendLocked(nil, true, len(c.buf) > 0)
	}
	for i := range c.deadline {
		c.deadline[i].setLocked(&c.cond, time.Time{})
	}
	c.cond.Broadcast()
	return nil
}

// setLocked sets the deadline; zero means none. cond.L guards the deadline. cond is
// signalled when it expires.
func (d *deadline) setLocked(cond *sync.Cond, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.expired = false
	if t.IsZero() {
		return
	}
	if left := time.Until(t); left > 0 {
		var timer *time.Timer
		timer = time.AfterFunc(left, func() {
			cond.L.Lock()
			defer cond.L.Unlock()
			if d.timer == timer {
				d.expired = true
				cond.Broadcast()
			}
		})
		d.timer = timer
		return
	}
	d.expired = true
	cond.Broadcast()
}

func (c *conn) setDeadlines(t time.Time, which ...int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return opError("set", net.ErrClosed)
	}
	for _, i := range which {
		c.deadline[i].setLocked(&c.cond, t)
	}
	return nil
}

func (c *conn) SetDeadline(t time.Time) error      { return c.setDeadlines(t, forRead, forWrite) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.setDeadlines(t, forRead) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, forWrite) }
func (c *conn) LocalAddr() net.Addr                { return addr("client") }
func (c *conn) RemoteAddr() net.Addr               { return addr(c.h.name) }
