package link

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Proxy forwards TCP connections to a server.
type Proxy struct {
	ln     *net.TCPListener
	server string
	plan   func() Fault
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// Listen starts a proxy that forwards connections from address to server, each with
// the fault that plan returns. address is "host:port"; port 0 selects a free one.
// plan is called for each connection and must be safe for concurrent use.
func Listen(address, server string, plan func() Fault) (*Proxy, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	p := &Proxy{ln: ln.(*net.TCPListener), server: server, plan: plan, conns: map[net.Conn]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(func() {
		for {
			c, err := p.ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.carry(c.(*net.TCPConn)) })
		}
	})
	return p, nil
}

// Addr returns the address of the proxy.
func (p *Proxy) Addr() netip.AddrPort { return p.ln.Addr().(*net.TCPAddr).AddrPort() }

// Close closes the proxy and its connections, and waits for its goroutines.
func (p *Proxy) Close() {
	p.cancel()
	p.ln.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// track makes Close close a connection, until untrack is called.
func (p *Proxy) track(c net.Conn) (untrack func()) {
	p.mu.Lock()
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	if p.ctx.Err() != nil {
		c.Close()
	}
	return func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		c.Close()
	}
}

// sleep waits for d, and reports whether the proxy is still open.
func (p *Proxy) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// A carriage is a forwarded connection.
type carriage struct {
	*Proxy
	fault          Fault
	struck         sync.Once
	client, server *net.TCPConn // server may be nil
}

// carry forwards a connection.
func (p *Proxy) carry(client *net.TCPConn) {
	defer p.track(client)()
	f := p.plan()
	c := &carriage{Proxy: p, fault: f, client: client}
	if f.Kind == None || f.Reply || f.After > 0 {
		server, err := new(net.Dialer).DialContext(p.ctx, "tcp", p.server)
		if err != nil {
			return
		}
		c.server = server.(*net.TCPConn)
		defer p.track(server)()
	}
	if c.server == nil {
		c.destroy()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { c.pass(c.server, client, false) })
	c.pass(client, c.server, true)
	wg.Wait()
}

// strike reports that the fault acts.
func (c *carriage) strike() {
	c.struck.Do(func() {
		if c.fault.Strike != nil {
			c.fault.Strike(c.fault.describe())
		}
	})
}

// destroy breaks the connection as the fault specifies.
func (c *carriage) destroy() {
	c.strike()
	switch c.fault.Kind {
	case BlackHole:
		c.sleep(c.fault.Stall)
		fallthrough
	case Reset:
		c.client.SetLinger(0)
		if c.server != nil {
			c.server.SetLinger(0)
		}
	case FIN:
		c.client.CloseWrite()
		if c.server != nil {
			c.server.CloseRead()
		}
		// Read the rest of the client's data.
		c.client.SetReadDeadline(time.Now().Add(time.Second))
		buf := make([]byte, 4096)
		for {
			if _, err := c.client.Read(buf); err != nil {
				break
			}
		}
	}
	c.client.Close()
	if c.server != nil {
		c.server.Close()
	}
}

// pass copies one direction until either end closes or the connection breaks.
func (c *carriage) pass(to, from *net.TCPConn, reply bool) {
	breaks := c.fault.Kind != None && c.fault.Reply == reply
	after := c.fault.After
	buf := make([]byte, 16<<10)
	for {
		if breaks && after == 0 {
			c.destroy()
			return
		}
		p := buf
		if breaks && after < len(p) {
			p = p[:after]
		}
		n, err := from.Read(p)
		if n > 0 {
			after -= n
			if err := c.forward(to, p[:n]); err != nil {
				from.Close()
				return
			}
		}
		if err != nil {
			to.CloseWrite()
			return
		}
	}
}

// forward writes a piece, delayed and sliced as the fault specifies.
func (c *carriage) forward(to net.Conn, p []byte) error {
	f := &c.fault
	if !f.shapes() {
		_, err := to.Write(p)
		return err
	}
	size := len(p)
	if f.Rate > 0 {
		size = min(size, max(1, f.Rate/20)) // smooth enough at 20 pieces a second
	}
	if f.Slice > 0 {
		size = min(size, f.Slice)
	}
	delay := func() time.Duration {
		d := f.Latency
		if f.Jitter > 0 {
			d += rand.N(f.Jitter)
		}
		return d
	}
	wait := delay()
	for len(p) > 0 {
		n := min(size, len(p))
		if f.Rate > 0 {
			wait += time.Duration(n) * time.Second / time.Duration(f.Rate)
		}
		c.strike()
		if !c.sleep(wait) {
			return net.ErrClosed
		}
		if _, err := to.Write(p[:n]); err != nil {
			return err
		}
		p, wait = p[n:], 0
		if f.Slice > 0 {
			wait = delay()
		}
	}
	return nil
}
