package link

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A UDPProxy is a [Proxy] for UDP, where an address counts as a connection. Instead
// of breaking a connection it stops forwarding: for the duration of Stall with a
// BlackHole, forever with any other Kind.
type UDPProxy struct {
	pc     *net.UDPConn
	server *net.UDPAddr
	plan   func() Fault
	wg     sync.WaitGroup

	mu    sync.Mutex
	ended bool
	peers map[netip.AddrPort]*net.UDPConn
}

// ListenUDP starts a proxy that forwards datagrams from address to server. plan
// returns the fault for each client.
func ListenUDP(address string, server *net.UDPAddr, plan func() Fault) (*UDPProxy, error) {
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, err
	}
	p := &UDPProxy{pc: pc.(*net.UDPConn), server: server, plan: plan, peers: map[netip.AddrPort]*net.UDPConn{}}
	p.wg.Go(p.carry)
	return p, nil
}

// Addr returns the address of the proxy.
func (p *UDPProxy) Addr() netip.AddrPort { return p.pc.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close closes the proxy and waits for its goroutines.
func (p *UDPProxy) Close() {
	p.pc.Close()
	p.mu.Lock()
	p.ended = true
	for _, c := range p.peers {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// carry forwards datagrams from clients.
func (p *UDPProxy) carry() {
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
			g = [2]*gate{{after: f.After, fault: f}, {after: f.After, fault: f}}
			g[0].fault.Reply, g[1].fault.Reply = f.Reply, !f.Reply
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

// A gate is one direction of a UDPProxy.
type gate struct {
	fault Fault // Reply selects the other direction
	after int
	until time.Time
}

// pass reports whether a datagram of n bytes is forwarded.
func (g *gate) pass(n int) bool {
	if g.fault.Kind == None || g.fault.Reply {
		return true
	}
	if g.after -= n; g.after >= 0 {
		return true
	}
	if g.until.IsZero() {
		if g.fault.Strike != nil {
			g.fault.Strike(g.fault.describe())
		}
		g.until = time.Now().Add(g.fault.Stall)
	}
	return g.fault.Kind == BlackHole && time.Now().After(g.until)
}
