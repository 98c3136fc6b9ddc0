package sim

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// datagrams connects the sockets of clients to those of hosts like UDP behind a NAT, with
// the faults of a plan. Datagrams that a client and a host exchange at one instant arrive
// at one instant, in order.
type datagrams struct {
	n *network

	mu      sync.Mutex
	clients map[*socket]bool // open
	made    int              // number of client sockets created
	hosts   map[string]*socket
	routes  map[netip.AddrPort]*flow // flows by the client address that the host sees
	flows   map[flowKey]*flow
	seen    map[string]int // number of flows, lookups and addresses of each host
}

type flowKey struct {
	client *socket
	host   string
}

func newDatagrams(n *network) *datagrams {
	return &datagrams{n: n, clients: map[*socket]bool{}, hosts: map[string]*socket{}, routes: map[netip.AddrPort]*flow{}, flows: map[flowKey]*flow{}, seen: map[string]int{}}
}

// openClients returns the number of open client sockets.
func (u *datagrams) openClients() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.clients)
}

// hostAddr returns the address of a host, hK.
func hostAddr(name string) netip.Addr {
	var k byte
	fmt.Sscanf(name, "h%d", &k)
	return netip.AddrFrom4([4]byte{10, 0, 0, k + 1})
}

// lookup is h3.Options.LookupNetIP.
func (u *datagrams) lookup(ctx context.Context, _, name string) ([]netip.Addr, error) {
	d := fork(u.n.seed, "lookup", name, u.count("lookup "+name))
	now := time.Now()
	delay := d.ms(1, 20)
	if e := u.n.plan.active(now, name, dnsSlow); e != nil {
		delay += d.ms(1, e.arg)
	}
	if err := wait(ctx, d.at(now, delay).Sub(now)); err != nil {
		return nil, err
	}
	if e := u.n.plan.active(time.Now(), name, dnsFail, dnsNone); e != nil {
		return nil, &net.DNSError{Err: e.kind.String(), Name: name, IsNotFound: e.kind == dnsNone, IsTemporary: e.kind == dnsFail}
	}
	return []netip.Addr{hostAddr(name)}, nil
}

// count returns the number of earlier calls with the name.
func (u *datagrams) count(name string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen[name]++
	return u.seen[name] - 1
}

// listen creates the socket of a client. It is h3.Options.ListenPacket.
func (u *datagrams) listen(context.Context) (net.PacketConn, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.made++
	s := newSocket(u, "", netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 0, 1}), uint16(1000+u.made)))
	u.clients[s] = true
	return s, nil
}

// serve creates the socket of a host.
func (u *datagrams) serve(h *host) *socket {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := newSocket(u, h.name, netip.AddrPortFrom(hostAddr(h.name), 80))
	u.hosts[h.name] = s
	return s
}

// A flow is the traffic between a client and a host.
type flow struct {
	u      *datagrams
	id     string
	host   string
	client *socket
	server *socket

	mu   sync.Mutex
	seen netip.AddrPort // client address that the host sees
	up   direction
	down direction
}

// A direction is one direction of a flow.
type direction struct {
	name   string
	sentAt time.Time
	burst  *burst
	last   time.Time // arrival of the latest burst
}

// A burst is the traffic in one direction at one instant.
type burst struct {
	d      draws      // depends only on the instant, so that an additional ACK changes nothing later
	packet []datagram // will arrive with the burst
}

type datagram struct {
	data []byte
	from netip.AddrPort
}

// flowLocked returns the flow between a client and a host.
func (u *datagrams) flowLocked(client *socket, server *socket) *flow {
	key := flowKey{client, server.host}
	f := u.flows[key]
	if f == nil {
		u.seen[server.host]++
		id := fmt.Sprintf("%s~%d", server.host, u.seen[server.host])
		f = &flow{u: u, id: id, host: server.host, client: client, server: server}
		f.up.name, f.down.name = "up", "down"
		u.flows[key] = f
		u.routeLocked(f)
	}
	return f
}

// routeLocked assigns a new address to the client.
func (u *datagrams) routeLocked(f *flow) {
	k := u.seen["address "+f.host]
	u.seen["address "+f.host]++
	delete(u.routes, f.seen)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, hostAddr(f.host).As4()[3], byte(k >> 8)}), uint16(1000+k&0xff))
	u.routes[f.seen] = f
}

// rebind assigns new addresses to all clients of a host.
func (u *datagrams) rebind(host string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, f := range u.flows {
		if key.host == host {
			u.routeLocked(f)
		}
	}
}

// send schedules the arrival of a datagram, or loses it.
func (f *flow) send(x *direction, to *socket, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	plan, now := f.u.n.plan, time.Now()
	if x.burst == nil || !now.Equal(x.sentAt) {
		b := &burst{d: fork(f.u.n.seed, x.name, f.id, now.UnixNano())}
		x.burst, x.sentAt = b, now
		at := x.arrivalLocked(plan, f.host, now, long(data))
		switch {
		case x == &f.up:
			f.u.n.moment(f.host, requested, at)
		case long(data):
			f.u.n.moment(f.host, greeted, at)
		default:
			f.u.n.moment(f.host, answered, at)
		}
		time.AfterFunc(at.Sub(now), func() { f.arrive(b, to) })
		if b.d.oneIn(8) && plan.active(now, f.host, reorder) != nil {
			time.AfterFunc(b.d.at(now, at.Sub(now)+b.d.ms(1, 300)).Sub(now), func() { f.arrive(b, to) })
		}
	}
	b := x.burst
	lost := b.d.IntN(1000)
	if e := plan.active(now, f.host, lose); e != nil && lost < e.arg {
		return
	}
	if plan.active(now, f.host, partition, vanish, restart, restartLost) != nil {
		return
	}
	if x == &f.up && long(data) && plan.active(now, f.host, blackHole) != nil {
		return
	}
	b.packet = append(b.packet, datagram{bytes.Clone(data), f.seen})
}

// long reports whether a datagram begins with a long header, as in a handshake.
func long(data []byte) bool { return len(data) > 0 && data[0]&0x80 != 0 }

// arrivalLocked returns the arrival time of the burst.
func (x *direction) arrivalLocked(p *plan, host string, now time.Time, handshake bool) time.Time {
	d := &x.burst.d
	latency := d.ms(1, 40)
	if e := p.active(now, host, slow); e != nil {
		latency += d.ms(1, e.arg)
	}
	if e := p.active(now, host, dialSlow); e != nil && handshake {
		latency += d.ms(1, e.arg)
	}
	overtakes := p.active(now, host, reorder) != nil
	if overtakes {
		latency += d.ms(1, 100)
	}
	at := d.at(now, latency)
	if !overtakes && !at.After(x.last) {
		at = x.last.Add(time.Millisecond)
	}
	x.last = later(x.last, at)
	return at
}

// arrive delivers a burst.
func (f *flow) arrive(b *burst, to *socket) {
	f.mu.Lock()
	packet := b.packet
	f.mu.Unlock()
	to.mu.Lock()
	defer to.mu.Unlock()
	if to.closed {
		return
	}
	for _, p := range packet {
		if to == f.client {
			p.from = f.server.addr
		}
		to.in = append(to.in, p)
	}
	to.cond.Broadcast()
}

// A socket is a net.PacketConn.
type socket struct {
	u    *datagrams
	host string // "" for a client
	addr netip.AddrPort

	mu       sync.Mutex
	cond     sync.Cond
	in       []datagram
	closed   bool
	deadline deadline
}

func newSocket(u *datagrams, host string, addr netip.AddrPort) *socket {
	s := &socket{u: u, host: host, addr: addr}
	s.cond.L = &s.mu
	return s
}

func (s *socket) WriteTo(b []byte, addr net.Addr) (int, error) {
	to := addr.(*net.UDPAddr).AddrPort()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	s.u.mu.Lock()
	var f *flow
	if s.host != "" {
		f = s.u.routes[to]
	} else {
		for _, server := range s.u.hosts {
			if server.addr == to {
				f = s.u.flowLocked(s, server)
			}
		}
	}
	s.u.mu.Unlock()
	switch {
	case f == nil: // no socket has the address
	case s.host != "":
		f.send(&f.down, f.client, b)
	default:
		f.send(&f.up, f.server, b)
	}
	return len(b), nil
}

func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, nil, net.ErrClosed
		case s.deadline.expired:
			return 0, nil, os.ErrDeadlineExceeded
		case len(s.in) > 0:
			p := s.in[0]
			s.in = s.in[1:]
			return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
		}
		s.cond.Wait()
	}
}

// forget drops unread datagrams.
func (s *socket) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in = nil
}

func (s *socket) Close() error {
	s.u.mu.Lock()
	delete(s.u.clients, s)
	for key := range s.u.flows {
		if key.client == s {
			s.u.n.moment(key.host, closed, time.Now())
		}
	}
	s.u.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.deadline.setLocked(&s.cond, time.Time{})
	s.cond.Broadcast()
	return nil
}

func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline.setLocked(&s.cond, t)
	return nil
}

func (s *socket) SetDeadline(t time.Time) error    { return s.SetReadDeadline(t) }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }
func (s *socket) SetReadBuffer(int) error          { return nil }
func (s *socket) SetWriteBuffer(int) error         { return nil }
func (s *socket) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(s.addr) }

// ofDatagramHost is ofHost for datagrams, which may be lost or reordered and are not
// acknowledged by the network.
var ofDatagramHost = func() (list []chance) {
	for _, c := range ofHost {
		if c.kind == cut {
			c = chance{lose, 5, [2]int{5000, 90_000}, [2]int{1, 600}}
		}
		list = append(list, c)
	}
	return append(list, chance{reorder, 3, [2]int{5000, 60_000}, [2]int{}}, chance{rebind, 3, [2]int{}, [2]int{}})
}()
