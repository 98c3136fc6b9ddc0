//go:build linux

package conformance

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
)

// A faultProxy forwards connections to a server, each with the fault that plan returns.
type faultProxy struct {
	ln     *net.TCPListener
	server string
	plan   func() fault
	end    chan struct{}
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// A fault is what happens to a connection.
type fault struct {
	kind  kind
	reply bool          // it counts the bytes of the response; else those of the request
	after int           // number of bytes that are forwarded before it
	stall time.Duration // of a black hole, before the reset
}

// breaks are the ways to break a connection.
var breaks = []struct {
	name  string
	fault fault
}{
	{"reset/request", fault{kind: reset}}, {"reset/reply", fault{kind: reset, reply: true}},
	{"shut/request", fault{kind: shut}}, {"shut/reply", fault{kind: shut, reply: true}},
}

// A kind is a kind of fault.
type kind int

const (
	none      kind = iota
	reset          // both sides are reset
	shut           // the client sees an orderly end, and may still send
	blackHole      // nothing more is forwarded for the time of stall
)

func newFaultProxy(server string, plan func() fault) *faultProxy {
	p := &faultProxy{ln: teststream.Must(net.Listen("tcp", "127.0.0.1:0")).(*net.TCPListener), server: server, plan: plan,
		end: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	p.wg.Go(func() {
		for {
			c, err := p.ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.carry(c.(*net.TCPConn)) })
		}
	})
	return p
}

func (p *faultProxy) addr() netip.AddrPort { return p.ln.Addr().(*net.TCPAddr).AddrPort() }

func (p *faultProxy) close() {
	close(p.end)
	p.ln.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// track makes close close a connection.
func (p *faultProxy) track(c net.Conn) (untrack func()) {
	p.mu.Lock()
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	select {
	case <-p.end:
		c.Close()
	default:
	}
	return func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		c.Close()
	}
}

// carry forwards a connection.
func (p *faultProxy) carry(client *net.TCPConn) {
	defer p.track(client)()
	f := p.plan()
	var server *net.TCPConn
	if f.kind == none || f.reply || f.after > 0 {
		c, err := net.Dial("tcp", p.server)
		if err != nil {
			return
		}
		server = c.(*net.TCPConn)
		defer p.track(server)()
	}
	strike := func() {
		switch f.kind {
		case blackHole:
			select {
			case <-time.After(f.stall):
			case <-p.end:
			}
			fallthrough
		case reset:
			client.SetLinger(0)
			if server != nil {
				server.SetLinger(0)
			}
		case shut:
			client.CloseWrite()
			if server != nil {
				server.CloseRead()
			}
			// Read what the client still sends.
			client.SetReadDeadline(time.Now().Add(time.Second))
			buf := make([]byte, 4096)
			for {
				if _, err := client.Read(buf); err != nil {
					break
				}
			}
		}
		client.Close()
		if server != nil {
			server.Close()
		}
	}
	if server == nil {
		strike()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { pass(server, client, f.kind != none && !f.reply, f.after, strike) })
	pass(client, server, f.kind != none && f.reply, f.after, strike)
	wg.Wait()
}

// pass copies from one side to the other until either ends, or, if faulty, until strike
// after that many bytes.
func pass(to, from *net.TCPConn, faulty bool, after int, strike func()) {
	buf := make([]byte, 16<<10)
	for {
		if faulty && after == 0 {
			strike()
			return
		}
		p := buf
		if faulty && after < len(p) {
			p = p[:after]
		}
		n, err := from.Read(p)
		if n > 0 {
			after -= n
			if _, err := to.Write(p[:n]); err != nil {
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

// A faultUDP is a faultProxy for UDP, where an address is a connection. Instead of
// breaking a connection it forwards nothing more: a black hole for the time of stall, any
// other fault for good.
type faultUDP struct {
	pc     *net.UDPConn
	server *net.UDPAddr
	plan   func() fault
	wg     sync.WaitGroup

	mu    sync.Mutex
	ended bool
	peers map[netip.AddrPort]*net.UDPConn
}

func newFaultUDP(server *net.UDPAddr, plan func() fault) *faultUDP {
	p := &faultUDP{pc: teststream.Must(net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})), server: server, plan: plan,
		peers: map[netip.AddrPort]*net.UDPConn{}}
	p.wg.Go(p.carry)
	return p
}

func (p *faultUDP) addr() netip.AddrPort { return p.pc.LocalAddr().(*net.UDPAddr).AddrPort() }

func (p *faultUDP) close() {
	p.pc.Close()
	p.mu.Lock()
	p.ended = true
	for _, c := range p.peers {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// carry forwards what clients send.
func (p *faultUDP) carry() {
	buf := make([]byte, 64<<10)
	gates := map[netip.AddrPort][2]*gate{}
	for {
		n, client, err := p.pc.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		g, ok := gates[client]
		if !ok {
			f := p.plan()
			g = [2]*gate{{after: f.after, fault: f}, {after: f.after, fault: f}}
			g[0].fault.reply, g[1].fault.reply = f.reply, !f.reply
			gates[client] = g
			up, err := net.DialUDP("udp", nil, p.server)
			if err != nil {
				continue
			}
			p.mu.Lock()
			p.peers[client] = up
			if p.ended {
				up.Close()
			}
			p.mu.Unlock()
			p.wg.Go(func() {
				buf := make([]byte, 64<<10)
				for {
					n, err := up.Read(buf)
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err == nil && g[1].pass(n) {
						p.pc.WriteToUDPAddrPort(buf[:n], client)
					}
				}
			})
		}
		if g[0].pass(n) {
			p.mu.Lock()
			up := p.peers[client]
			p.mu.Unlock()
			if up != nil {
				up.Write(buf[:n])
			}
		}
	}
}

// A gate is one direction of a faultUDP.
type gate struct {
	fault fault // with reply it concerns the other direction
	after int
	until time.Time
}

// pass reports whether a datagram of n bytes is forwarded.
func (g *gate) pass(n int) bool {
	if g.fault.kind == none || g.fault.reply {
		return true
	}
	if g.after -= n; g.after >= 0 {
		return true
	}
	if g.until.IsZero() {
		g.until = time.Now().Add(g.fault.stall)
	}
	return g.fault.kind == blackHole && time.Now().After(g.until)
}
