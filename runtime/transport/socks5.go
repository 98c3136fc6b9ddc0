package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Proxy is a SOCKS5 proxy (RFC 1928). Streamtypes of a context with the same
// proxy and login share one pointer, so it can be part of the key of a connection
// pool.
type Proxy struct {
	address string // host and port
	login   *login // nil means none; a pointer, so that fmt prints no secret
}

// A login is the user name and password of RFC 1929.
type login struct{ user, password string }

// String returns the host and port, without the login.
func (p *Proxy) String() string { return p.address }

// A ProxyError is an error of a proxy, or of the connection to it.
type ProxyError struct {
	Proxy string // host and port
	Err   error
}

func (e *ProxyError) Error() string {
	return fmt.Sprintf("sspolicy: SOCKS5 proxy %s: %v", e.Proxy, e.Err)
}

// Unwrap returns the cause.
func (e *ProxyError) Unwrap() error { return e.Err }

// proxy returns the proxy for the value of a via-socks5, or nil if text is empty.
func (e *Env) proxy(text string) (*Proxy, error) {
	if text == "" {
		return nil, nil
	}
	e.proxies.Lock()
	defer e.proxies.Unlock()
	if p := e.proxies.m[text]; p != nil {
		return p, nil
	}
	p, err := parseProxy(text)
	if err != nil {
		return nil, err
	}
	if e.proxies.m == nil {
		e.proxies.m = make(map[string]*Proxy)
	}
	e.proxies.m[text] = p
	return p, nil
}

// parseProxy parses "[user:password@]host[:port]". The error wraps ErrEndpoint. It
// does not quote the text, which may contain a password.
func parseProxy(text string) (*Proxy, error) {
	parsed, err := policy.ParseProxy(text)
	if err != nil {
		return nil, fmt.Errorf("via-socks5: %w", err)
	}
	p := &Proxy{address: parsed.Address}
	if parsed.User != "" {
		p.login = &login{parsed.User, parsed.Password}
	}
	return p, nil
}

// connect asks the proxy at the other end of conn to connect to address.
func (p *Proxy) connect(ctx context.Context, conn net.Conn, address string) error {
	request, err := p.request(address)
	if err != nil {
		return err
	}
	past := time.Unix(1, 0)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(past) })
	err = p.handshake(conn, request)
	if !stop() { // the deadline is set, or is about to be
		return context.Cause(ctx)
	}
	return err
}

// socksVersion is the first byte of each message of RFC 1928.
const socksVersion = 5

// handshake implements RFC 1928 sections 3 to 6. It reads no byte beyond the reply
// of the proxy.
func (p *Proxy) handshake(conn net.Conn, request []byte) error {
	if err := p.greet(conn); err != nil {
		return err
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	return readReply(conn)
}

// greet negotiates a method of authentication, and logs in if the proxy requires
// it.
func (p *Proxy) greet(conn net.Conn) error {
	const none, usernamePassword = 0, 2
	hello := []byte{socksVersion, 1, none}
	if p.login != nil {
		hello = []byte{socksVersion, 2, none, usernamePassword}
	}
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	var choice [2]byte
	if _, err := io.ReadFull(conn, choice[:]); err != nil {
		return err
	}
	switch {
	case choice[0] != socksVersion:
		return errors.New("it does not speak SOCKS5")
	case choice[1] == none:
		return nil
	case p.login == nil:
		return errors.New("it requires a login, and the policy has none")
	case choice[1] == usernamePassword:
		return p.login.send(conn)
	}
	return errors.New("it does not accept a user name and password")
}

// readReply reads the reply to a request.
func readReply(conn net.Conn) error {
	var buf [257]byte
	if _, err := io.ReadFull(conn, buf[:4]); err != nil {
		return err
	}
	if buf[0] != socksVersion {
		return errors.New("malformed reply")
	}
	if buf[1] != 0 {
		return replyError(buf[1])
	}
	n := 0 // length of the address that the proxy is bound to
	switch buf[3] {
	case addrIPv4:
		n = 4
	case addrIPv6:
		n = 16
	case addrName:
		if _, err := io.ReadFull(conn, buf[:1]); err != nil {
			return err
		}
		n = int(buf[0])
	default:
		return errors.New("malformed reply")
	}
	_, err := io.ReadFull(conn, buf[:n+2]) // and the port
	return err
}

// The address types (RFC 1928 section 5).
const (
	addrIPv4 = 1
	addrName = 3
	addrIPv6 = 4
)

// request returns the request to connect to address.
func (p *Proxy) request(address string) ([]byte, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("bad port %q", port)
	}
	b := []byte{socksVersion, 1, 0}
	switch a, err := netip.ParseAddr(host); {
	case err == nil && a.Zone() != "":
		return nil, fmt.Errorf("address %s has a zone, which a proxy cannot use", host)
	case err == nil && a.Unmap().Is4():
		b = append(append(b, addrIPv4), a.Unmap().AsSlice()...)
	case err == nil:
		b = append(append(b, addrIPv6), a.AsSlice()...)
	case len(host) == 0 || len(host) > 255:
		return nil, errors.New("a host name must have 1 to 255 bytes")
	default:
		b = append(append(b, addrName, byte(len(host))), host...)
	}
	return append(b, byte(n>>8), byte(n)), nil
}

// send sends the login and reads the answer (RFC 1929).
func (l *login) send(conn net.Conn) error {
	b := append([]byte{1, byte(len(l.user))}, l.user...)
	b = append(append(b, byte(len(l.password))), l.password...)
	if _, err := conn.Write(b); err != nil {
		return err
	}
	var reply [2]byte
	if _, err := io.ReadFull(conn, reply[:]); err != nil {
		return err
	}
	if reply[0] != 1 || reply[1] != 0 {
		return errors.New("it refused the user name or password")
	}
	return nil
}

// replyError returns the meaning of a reply code (RFC 1928 section 6).
func replyError(code byte) error {
	texts := [...]string{
		1: "general failure",
		2: "connection not allowed by its rules",
		3: "network unreachable",
		4: "host unreachable",
		5: "connection refused",
		6: "TTL expired",
		7: "command not supported",
		8: "address type not supported",
	}
	if int(code) < len(texts) {
		return errors.New(texts[code])
	}
	return fmt.Errorf("unknown reply %d", code)
}
