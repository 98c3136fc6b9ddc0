// Package h3 is the transport for streamtypes whose protocol is h3: HTTP/3 (RFC
// 9114), by means of quic-go. Streams are what those of package
// [github.com/secure-streams/sspolicy/runtime/http] are over h2, which makes them.
//
// A server that does not speak h3 is unreachable: there is no going back to h2 or
// h1. There is always TLS, and no 0-RTT. A unix socket or a SOCKS5 proxy is
// refused, since neither carries QUIC here. Options.DialContext of the context has
// no effect, for it makes no UDP sockets: Options.ListenPacket does.
package h3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

const (
	// idleTimeout is how long a connection is kept without a request.
	idleTimeout = 30 * time.Second
	// maxHeaderBytes is how many bytes the headers of a response may have.
	maxHeaderBytes = 256 << 10
	// never is how long a connection may be silent where the policy has no limit.
	never = 24 * time.Hour
	// streamWindow and connectionWindow are how many bytes the peer may send ahead
	// of what is read.
	streamWindow     = 4 << 20
	connectionWindow = 16 << 20
)

// errNoTLS is why a request without TLS is not made.
var errNoTLS = errors.New("sspolicy: h3 has no form without TLS")

// Options are the settings of a transport.
type Options struct {
	// ListenPacket makes the UDP socket of connections, one for all that share
	// them. Nil means one of any address and port.
	ListenPacket func(context.Context) (net.PacketConn, error)
}

// Transport is a [transport.Transport] for h3. It may be given to any number of
// contexts.
type Transport struct{ *sshttp.Transport }

// New returns a transport.
func New(options ...sshttp.Option) *Transport { return NewWith(Options{}, options...) }

// NewWith returns a transport with options.
func NewWith(o Options, options ...sshttp.Option) *Transport {
	if o.ListenPacket == nil {
		o.ListenPacket = func(ctx context.Context) (net.PacketConn, error) {
			return new(net.ListenConfig).ListenPacket(ctx, "udp", ":0")
		}
	}
	return &Transport{sshttp.NewVersion(sshttp.Version{
		Protocol:     policy.ProtocolH3,
		RoundTripper: func(c sshttp.Connections) sshttp.RoundTripper { return newPool(c, o) },
	}, options...)}
}

// Prepare refuses what QUIC can not do, and what the package http does not do.
func (t *Transport) Prepare(s *transport.Setup) (transport.Connector, error) {
	switch st := s.Stream; {
	case s.Dialer.Proxy() != nil:
		return nil, fmt.Errorf("%w: via-socks5 over h3", transport.ErrUnsupported)
	case strings.HasPrefix(st.Endpoint, "+"):
		return nil, fmt.Errorf("%w: a unix socket (endpoint) over h3", transport.ErrUnsupported)
	case !st.TLS:
		return nil, fmt.Errorf("%w: h3 without tls", transport.ErrUnsupported)
	}
	return t.Transport.Prepare(s)
}

// A pool is a set of connections, over one UDP socket.
type pool struct {
	o     Options
	limit time.Duration // of making a connection; 0: none
	http3 *http3.Transport

	mu      sync.Mutex
	quic    *quic.Transport       // nil: not open
	conns   map[string]*quic.Conn // for new requests, by address
	retired []retired
	count   uint64              // of all requests there have been
	active  map[uint64]struct{} // those under way, by their number
	idle    *time.Timer         // closes the connections; nil while there are requests
	closed  bool
}

// A retired is a connection that gets no new request: http3 makes another one
// after each request that failed, also where it was the server that reset it.
type retired struct {
	conn    *quic.Conn
	address string
	last    uint64 // request that may be on it
}

// maxRetired is how many connections to an address may be retired at a time.
const maxRetired = 4

func newPool(c sshttp.Connections, o Options) *pool {
	p := &pool{o: o, limit: c.Env.DialTimeout(), conns: map[string]*quic.Conn{}, active: map[uint64]struct{}{}}
	if c.TLS == nil {
		return p
	}
	config := &quic.Config{
		MaxIdleTimeout:             never,
		MaxStreamReceiveWindow:     streamWindow,
		MaxConnectionReceiveWindow: connectionWindow,
	}
	if c.Hangup > 0 {
		config.MaxIdleTimeout = c.Hangup
	}
	if c.Ping > 0 && (c.Hangup == 0 || c.Ping < c.Hangup) {
		config.KeepAlivePeriod = c.Ping
	}
	if p.limit > 0 {
		config.HandshakeIdleTimeout = p.limit
	}
	secure := c.TLS.Clone()
	if secure.ClientSessionCache != nil {
		secure.ClientSessionCache = ownSessions{secure.ClientSessionCache}
	}
	p.http3 = &http3.Transport{
		TLSClientConfig: secure,
		QUICConfig:      config,
		Dial: func(ctx context.Context, address string, config *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			conn, err := p.dial(ctx, address, config, qc)
			if err != nil {
				p.mu.Lock()
				defer p.mu.Unlock()
				return nil, &dialError{err, p.count}
			}
			return conn, nil
		},
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true,
	}
	return p
}

// A dialError is why a connection could not be made. http3 keeps it for the next
// request, though all that waited for the connection may have given up before.
type dialError struct {
	error
	last uint64 // request that it is for
}

func (e *dialError) Unwrap() error { return e.error }

// dial makes a connection, to the first address of the host that answers. It may
// go on when the request that wanted it has given up, so it has a limit of its own.
func (p *pool) dial(ctx context.Context, address string, config *tls.Config, qc *quic.Config) (*quic.Conn, error) {
	if p.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.limit)
		defer cancel()
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", text)
	if err != nil {
		return nil, err
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	t, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	trace := httptrace.ContextClientTrace(ctx)
	for i, addr := range found {
		if left := time.Duration(len(found) - i); left > 1 && p.limit > 0 {
			qc = qc.Clone()
			qc.HandshakeIdleTimeout = p.limit / left
		}
		if trace != nil && trace.ConnectStart != nil {
			trace.ConnectStart("udp", addr.String())
		}
		if trace != nil && trace.TLSHandshakeStart != nil {
			trace.TLSHandshakeStart()
		}
		var conn *quic.Conn
		conn, err = t.Dial(ctx, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr.Unmap(), uint16(port))), config, qc)
		if trace != nil && trace.TLSHandshakeDone != nil {
			trace.TLSHandshakeDone(tls.ConnectionState{}, err)
		}
		if trace != nil && trace.ConnectDone != nil {
			trace.ConnectDone("udp", addr.String(), err)
		}
		if err == nil {
			return conn, p.add(t, address, conn)
		}
		var handshake *quic.TransportError
		if ctx.Err() != nil || errors.As(err, &handshake) {
			break // it is the server that does not want, or is not trusted
		}
	}
	return nil, err
}

// open returns what sends and receives packets.
func (p *pool) open(ctx context.Context) (*quic.Transport, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, transport.ErrClosed
	}
	if p.quic == nil {
		conn, err := p.o.ListenPacket(ctx)
		if err != nil {
			return nil, err
		}
		p.quic = &quic.Transport{Conn: conn}
	}
	return p.quic, nil
}

// add makes a connection one for requests, though all that wanted it may have
// given up, unless the socket has been closed meanwhile.
func (p *pool) add(t *quic.Transport, address string, conn *quic.Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed && len(p.active) == 0 || p.quic != t {
		conn.CloseWithError(0, "")
		return transport.ErrClosed
	}
	if old := p.conns[address]; old != nil {
		p.retired = append(p.retired, retired{old, address, p.count})
		p.sweep(address)
	}
	p.conns[address] = conn
	return nil
}

// sweep closes the retired connections that no request is on any more, and the
// oldest one to an address that has too many. mu is held.
func (p *pool) sweep(address string) {
	first, excess := p.count+1, -maxRetired
	for number := range p.active {
		first = min(first, number)
	}
	for _, r := range p.retired {
		if r.address == address {
			excess++
		}
	}
	p.retired = slices.DeleteFunc(p.retired, func(r retired) bool {
		over := r.last < first
		if r.address == address && excess > 0 {
			excess--
			over = true
		}
		if over {
			r.conn.CloseWithError(0, "")
		}
		return over
	})
}

// RoundTrip makes one request.
func (p *pool) RoundTrip(req *http.Request) (*http.Response, error) {
	if p.http3 == nil || req.URL.Scheme != "https" {
		return nil, errNoTLS
	}
	number, before := p.begin(req.URL.Host)
	resp, err := p.http3.RoundTrip(req)
	for stale, ok := errors.AsType[*dialError](err); ok && stale.last < number; stale, ok = errors.AsType[*dialError](err) {
		resp, err = p.http3.RoundTrip(req) // which has not been looked at yet
	}
	if err != nil {
		if context.Cause(req.Context()) == transport.ErrTimeout {
			p.suspect(req.URL.Host, before)
		}
		p.end(number)
		if ctx := req.Context(); ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	resp.Body = &body{ReadCloser: resp.Body, end: sync.OnceFunc(func() { p.end(number) })}
	return resp, nil
}

// begin counts a request. It returns its number, and how many packets the server
// has sent so far.
func (p *pool) begin(address string) (number, packets uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	p.active[p.count] = struct{}{}
	if p.idle != nil {
		p.idle.Stop()
		p.idle = nil
	}
	if conn := p.conns[address]; conn != nil {
		packets = conn.ConnectionStats().PacketsReceived
	}
	return p.count, packets
}

// suspect gives up a connection on which a request went unanswered, if there is no
// other one on it, or nothing at all has come meanwhile: a server that is there
// acknowledges what it gets.
func (p *pool) suspect(address string, before uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if conn := p.conns[address]; conn != nil && (len(p.active) == 1 || conn.ConnectionStats().PacketsReceived == before) {
		conn.CloseWithError(0, "")
		delete(p.conns, address)
	}
}

// end says that a request has ended.
func (p *pool) end(number uint64) {
	p.mu.Lock()
	delete(p.active, number)
	if len(p.retired) > 0 {
		p.sweep("")
	}
	if len(p.active) == 0 && !p.closed {
		p.idle = time.AfterFunc(idleTimeout, p.shut)
	}
	closed := p.closed
	p.mu.Unlock()
	if closed {
		p.shut()
	}
}

// shut closes all connections, and their socket, unless there are requests.
func (p *pool) shut() {
	p.mu.Lock()
	if len(p.active) > 0 {
		p.mu.Unlock()
		return
	}
	t := p.quic
	p.quic = nil
	for _, conn := range p.conns {
		conn.CloseWithError(0, "")
	}
	for _, r := range p.retired {
		r.conn.CloseWithError(0, "")
	}
	p.retired = nil
	clear(p.conns)
	p.mu.Unlock()
	if p.http3 != nil {
		p.http3.CloseIdleConnections() // waits for dials that are under way
	}
	if t != nil {
		t.Close()
		t.Conn.Close()
	}
}

// Close closes all connections, at the end of the requests that there are.
func (p *pool) Close() error {
	p.mu.Lock()
	p.closed = true
	if p.idle != nil {
		p.idle.Stop()
		p.idle = nil
	}
	p.mu.Unlock()
	p.shut()
	return nil
}

// A body says when a request has ended.
type body struct {
	io.ReadCloser
	end func()
}

// Close ends the request.
func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}
