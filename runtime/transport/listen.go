package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// Listen opens the port of the policy, or uses the socket that the program has
// provided. The endpoint is "" for all interfaces, or the address or name of one;
// "+path" and "+@name" are unix sockets, and "!name" is a socket in
// Options.Listeners; see also [ServerSetup.Joined]. The error wraps ErrEndpoint if
// the interface or socket does not exist.
//
// The listener enforces Limits on the number of connections and their rate. Its
// connections have the attributes of the policy.
func (s *ServerSetup) Listen() (net.Listener, error) {
	l := s.socket
	if l == nil {
		var err error
		if l, err = s.open(); err != nil {
			return nil, err
		}
	}
	return newLimitedListener(l, s), nil
}

// Joined returns the listener of another stream that a streamtype joins, or nil if
// it has a port of its own. A streamtype joins one by the endpoint "!" and the name
// of its streamtype, unless Options.Listeners has a socket of that name. In lws a
// server is a vhost with the name of its streamtype, and "!name" joins a vhost.
func (s *ServerSetup) Joined() Listener {
	name, ok := strings.CutPrefix(s.Stream.Endpoint, "!")
	if !ok || s.socket != nil || s.config.Listeners[name] != nil {
		return nil
	}
	l, _ := s.Env.open.Load(name)
	joined, _ := l.(Listener)
	return joined
}

// CannotJoin returns the error of a streamtype that cannot join a listener. It
// wraps ErrEndpoint.
func (s *ServerSetup) CannotJoin(why string) error {
	return &policy.EndpointError{Text: s.Stream.Endpoint, Why: why}
}

func (s *ServerSetup) open() (net.Listener, error) {
	network, address, err := s.address()
	if err != nil {
		return nil, err
	}
	if network == "" {
		if l := s.config.Listeners[address]; l != nil {
			return l, nil
		}
		return nil, &policy.EndpointError{Text: s.Stream.Endpoint, Why: "neither Options.Listeners has a socket of that name, nor is there a stream that serves it"}
	}
	return net.Listen(network, address)
}

// address returns the network and address for package net. The network is "" for a
// socket in Options.Listeners.
func (s *ServerSetup) address() (network, address string, err error) {
	endpoint, port := s.Stream.Endpoint, strconv.Itoa(int(s.Stream.Port))
	fail := func(why string) (string, string, error) {
		return "", "", &policy.EndpointError{Text: endpoint, Why: why}
	}
	if path, ok := strings.CutPrefix(endpoint, "+"); ok {
		if path == "" || path == "@" || strings.Contains(path, "\x00") {
			return fail("unix socket without a name")
		}
		return "unix", path, nil
	}
	if name, ok := strings.CutPrefix(endpoint, "!"); ok {
		return "", name, nil
	}
	host := strings.TrimSuffix(strings.TrimPrefix(endpoint, "["), "]")
	if host == "" {
		return "tcp", ":" + port, nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return "tcp", net.JoinHostPort(host, port), nil
	}
	iface, err := net.InterfaceByName(endpoint)
	if err != nil {
		return fail("neither the address nor the name of an interface")
	}
	if host, err = interfaceAddress(iface); err != nil {
		return fail(err.Error())
	}
	return "tcp", net.JoinHostPort(host, port), nil
}

// interfaceAddress returns the first IPv4 address of an interface, or otherwise the
// first IPv6 address.
func interfaceAddress(iface *net.Interface) (string, error) {
	all, err := iface.Addrs()
	if err != nil {
		return "", err
	}
	best := ""
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		switch {
		case !ok:
		case n.IP.To4() != nil:
			return n.IP.String(), nil
		case best == "" && n.IP.IsLinkLocalUnicast():
			best = n.IP.String() + "%" + iface.Name
		case best == "":
			best = n.IP.String()
		}
	}
	if best == "" {
		return "", fmt.Errorf("the interface has no address")
	}
	return best, nil
}

// A limitedListener is a listener that enforces the limits of a setup.
type limitedListener struct {
	net.Listener
	dialer Dialer
	slots  chan struct{} // holds a value per connection; nil means no limit
	rate   time.Duration // average time between connections; 0 means no limit
	burst  time.Duration // how early connections may arrive
	due    time.Time     // of the next connection; used only by Accept
	closed chan struct{}
	close  func()
}

func newLimitedListener(l net.Listener, s *ServerSetup) *limitedListener {
	n := &limitedListener{Listener: l, dialer: s.Dialer, closed: make(chan struct{})}
	n.close = sync.OnceFunc(func() { close(n.closed) })
	if s.Limits.Connections > 0 {
		n.slots = make(chan struct{}, s.Limits.Connections)
	}
	if s.Limits.AcceptRate > 0 {
		n.rate, n.burst = time.Second/time.Duration(s.Limits.AcceptRate), time.Second
	}
	return n
}

// Accept waits until the limits permit another connection. It must not be called
// concurrently.
func (l *limitedListener) Accept() (net.Conn, error) {
	if l.slots != nil {
		select {
		case l.slots <- struct{}{}:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
	conn, err := l.accept()
	if err != nil {
		l.release()
		return nil, err
	}
	l.dialer.mark(conn)
	return &acceptedConn{Conn: conn, l: l}, nil
}

func (l *limitedListener) accept() (net.Conn, error) {
	if l.rate > 0 {
		now := time.Now()
		if l.due.Before(now) {
			l.due = now
		} else if wait := l.due.Sub(now) - l.burst; wait > 0 {
			t := time.NewTimer(wait)
			defer t.Stop()
			select {
			case <-t.C:
			case <-l.closed:
				return nil, net.ErrClosed
			}
		}
		l.due = l.due.Add(l.rate)
	}
	return l.Listener.Accept()
}

func (l *limitedListener) release() {
	if l.slots != nil {
		<-l.slots
	}
}

// Close closes the port.
func (l *limitedListener) Close() error {
	l.close()
	return l.Listener.Close()
}

// An acceptedConn is a connection that counts against the limits of its listener.
type acceptedConn struct {
	net.Conn
	l      *limitedListener
	closed atomic.Bool
}

// Close closes the connection. It returns after at most closeWait.
func (c *acceptedConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	return closeConn(c.Conn, c.l.release)
}

// Dialed returns the connection of package net.
func (c *acceptedConn) Dialed() net.Conn { return c.Conn }

// CloseWrite closes the sending direction, if the connection supports that.
func (c *acceptedConn) CloseWrite() error { return closeWrite(c.Conn) }

// AcceptConn accepts a connection. It retries, after a pause, while the system
// lacks resources such as file descriptors.
func (s *ServerSetup) AcceptConn(l net.Listener) (net.Conn, error) {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		conn, err := l.Accept()
		if !temporary(err) {
			return conn, err
		}
		s.Logger().Warn("sspolicy: accepting connections", "streamtype", s.Stream.Name, "err", err)
		select {
		case <-time.After(pause):
		case <-s.Closing().Done():
			return nil, err
		}
	}
}

// temporary reports whether an error of Accept concerns a single connection or is
// likely to pass.
func temporary(err error) bool {
	return errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}
