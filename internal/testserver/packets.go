package testserver

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// A PacketNetwork carries datagrams within the process, immediately and in order, so that
// tests of time can run under testing/synctest.
type PacketNetwork struct {
	// Pass decides whether a datagram arrives.
	Pass func(from, to netip.AddrPort) bool

	mu    sync.Mutex
	conns map[netip.AddrPort]*packetConn
}

// Listen returns a socket with its own port of 127.0.0.1.
func (n *PacketNetwork) Listen() net.PacketConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns == nil {
		n.conns = make(map[netip.AddrPort]*packetConn)
	}
	c := &packetConn{
		network: n, addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(len(n.conns)+1)),
		in: make(chan packet, 1<<12), closed: make(chan struct{}), expired: make(chan struct{}),
	}
	n.conns[c.addr] = c
	return c
}

type packet struct {
	data []byte
	from netip.AddrPort
}

type packetConn struct {
	network *PacketNetwork
	addr    netip.AddrPort
	in      chan packet
	closed  chan struct{}
	once    sync.Once

	mu      sync.Mutex
	expired chan struct{} // closed at the deadline
	timer   *time.Timer
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	expired := c.expired
	c.mu.Unlock()
	select {
	case p := <-c.in:
		return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
	case <-expired:
		return 0, nil, os.ErrDeadlineExceeded
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo drops a datagram if the queue is full.
func (c *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	to := addr.(*net.UDPAddr).AddrPort()
	n := c.network
	n.mu.Lock()
	peer := n.conns[netip.AddrPortFrom(to.Addr().Unmap(), to.Port())]
	n.mu.Unlock()
	if peer != nil && n.Pass(c.addr, peer.addr) {
		select {
		case peer.in <- packet{append([]byte(nil), b...), c.addr}:
		default:
		}
	}
	return len(b), nil
}

// SetReadDeadline also applies to a pending ReadFrom.
func (c *packetConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil && !c.timer.Stop() {
		c.expired = make(chan struct{})
	}
	c.timer = nil
	if !t.IsZero() {
		expired := c.expired
		c.timer = time.AfterFunc(time.Until(t), func() { close(expired) })
	}
	return nil
}

func (c *packetConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *packetConn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(c.addr) }
func (c *packetConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }
