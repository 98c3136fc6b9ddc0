// Package h3 is the transport for streamtypes whose protocol is h3: HTTP/3 (RFC
// 9114). It uses quic-go and package
// [github.com/secure-streams/sspolicy/runtime/http]: a stream behaves as over h2.
//
// A server that does not support h3 is unreachable; there is no fallback to h2 or
// h1. TLS is always on; 0-RTT is not used. Unix sockets and SOCKS5 proxies are not
// supported. The DialContext of runtime.Options has no effect, since it does not
// make UDP sockets; [Options].ListenPacket does.
package h3

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
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
	// maxHeaderBytes is the size limit of the headers of a response.
	maxHeaderBytes = 256 << 10
	// defaultPing and defaultHangup are svalidping and svalidhup of a retry without
	// them. A UDP peer that disappears leaves no other sign.
	defaultPing   = 10 * time.Second
	defaultHangup = 30 * time.Second
	// streamWindow and connectionWindow are the number of unread bytes that the
	// peer may send.
	streamWindow     = 4 << 20
	connectionWindow = 16 << 20
)

var errNoTLS = errors.New("sspolicy: h3 needs TLS")

// Options configure a [Transport]. The zero value is ready to use.
type Options struct {
	// ListenPacket makes a UDP socket, which many connections share. Nil means a
	// socket on any address and port.
	ListenPacket func(context.Context) (net.PacketConn, error)

	// LookupNetIP resolves the name of a server, as the method of net.Resolver does.
	// Nil means that of net.DefaultResolver.
	LookupNetIP func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Transport is a [transport.Transport] for h3. Any number of contexts may use it.
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
	if o.LookupNetIP == nil {
		o.LookupNetIP = net.DefaultResolver.LookupNetIP
	}
	return &Transport{sshttp.NewVersion(sshttp.Version{
		Protocol:     policy.ProtocolH3,
		RoundTripper: func(c sshttp.Connections) sshttp.RoundTripper { return newPool(c, o) },
	}, options...)}
}

// Prepare returns the connector of a streamtype. The error wraps ErrUnsupported or
// names an invalid key.
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

// A pool is a set of connections that share a UDP socket.
type pool struct {
	o     Options
	limit time.Duration // of a dial; 0 means none
	http3 *http3.Transport

	opening sync.Mutex // locked before mu, during ListenPacket

	mu     sync.Mutex
	quic   *quic.Transport       // nil if not open
	conns  map[string]*quic.Conn // for new requests, by address
	old    []oldConn
	count  uint64              // of requests so far
	active map[uint64]string   // addresses of the requests under way, by number
	dials  map[string]*dialing // in progress, by address
	idle   *time.Timer         // closes the connections; nil while there are requests
	closed bool
}

// An oldConn is a connection that receives no new requests: http3 makes another one
// after each failed request, even if only that request was reset.
type oldConn struct {
	conn    *quic.Conn
	address string
	last    uint64 // number of the last request that may use it
}

// A dialing is a dial that the requests to an address share.
type dialing struct {
	cancel context.CancelFunc
	last   uint64 // number of the last request that it affects; 0 means any
}

// maxOld is the maximum number of old connections to an address.
const maxOld = 4

func newPool(c sshttp.Connections, o Options) *pool {
	p := &pool{o: o, limit: c.Env.DialTimeout(), conns: map[string]*quic.Conn{}, active: map[uint64]string{}, dials: map[string]*dialing{}}
	if c.TLS == nil {
		return p
	}
	config := &quic.Config{
		MaxIdleTimeout:             defaultHangup,
		KeepAlivePeriod:            defaultPing,
		MaxStreamReceiveWindow:     streamWindow,
		MaxConnectionReceiveWindow: connectionWindow,
	}
	switch {
	case c.Hangup > 0:
		config.MaxIdleTimeout, config.KeepAlivePeriod = c.Hangup, 0
	case c.Ping > 0: // the PINGs need time for an answer
		config.MaxIdleTimeout = max(defaultHangup, 3*c.Ping)
	}
	if c.Ping > 0 && (c.Hangup == 0 || c.Ping < c.Hangup) {
		config.KeepAlivePeriod = c.Ping
	}
	if p.limit > 0 {
		config.HandshakeIdleTimeout = p.limit
	}
	secure := c.TLS.Clone()
	if secure.ClientSessionCache != nil {
		secure.ClientSessionCache = copyingCache{secure.ClientSessionCache}
	}
	p.http3 = &http3.Transport{
		TLSClientConfig: secure,
		QUICConfig:      config,
		Dial: func(ctx context.Context, address string, config *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			d := &dialing{cancel: cancel}
			p.mu.Lock()
			p.dials[address] = d
			p.mu.Unlock()
			conn, err := p.dial(ctx, address, config, qc)
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.dials[address] == d {
				delete(p.dials, address)
			}
			if _, ok := errors.AsType[*dialError](err); err == nil || ok {
				return conn, err
			}
			return nil, &dialError{err, cmp.Or(d.last, p.count)}
		},
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true,
	}
	return p
}

// A dialError reports a failed dial. http3 returns it to the next request if those
// that waited for the connection have ended.
type dialError struct {
	error
	last uint64 // number of the last request that it affects
}

func (e *dialError) Unwrap() error { return e.error }

// dial makes a connection to the first address of the host that answers. A dial may
// outlast its request, so it has its own time limit.
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
	addrs, err := p.o.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	t, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.ClientSessionCache = transport.ByAddress(config.ClientSessionCache, "udp", address)
	trace := transport.Trace(ctx)
	for i, addr := range addrs {
		if left := time.Duration(len(addrs) - i); left > 1 && p.limit > 0 {
			qc = qc.Clone()
			qc.HandshakeIdleTimeout = p.limit / left
		}
		trace.ConnectStart("udp", addr.String())
		trace.TLSHandshakeStart()
		var conn *quic.Conn
		conn, err = t.Dial(ctx, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr.Unmap(), uint16(port))), config, qc)
		trace.TLSHandshakeDone(tls.ConnectionState{}, err)
		trace.ConnectDone("udp", addr.String(), err)
		if err == nil {
			return conn, p.add(t, address, conn)
		}
		var handshake *quic.TransportError
		if ctx.Err() != nil || errors.As(err, &handshake) {
			break // the server refuses, or is not trusted
		}
	}
	return nil, err
}

// open returns the transport of the socket, which it opens if necessary.
func (p *pool) open(ctx context.Context) (*quic.Transport, error) {
	p.opening.Lock()
	defer p.opening.Unlock()
	p.mu.Lock()
	t, closed := p.quic, p.closed
	p.mu.Unlock()
	switch {
	case closed:
		return nil, transport.ErrClosed
	case t != nil:
		return t, nil
	}
	conn, err := p.o.ListenPacket(ctx)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.active) == 0 { // the pool may even be closed
		conn.Close()
		return nil, &dialError{transport.ErrClosed, p.count}
	}
	p.quic = &quic.Transport{Conn: conn}
	return p.quic, nil
}

// add makes a connection available to requests, unless the socket has been closed
// meanwhile.
func (p *pool) add(t *quic.Transport, address string, conn *quic.Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed && len(p.active) == 0 || p.quic != t {
		conn.CloseWithError(0, "")
		return transport.ErrClosed
	}
	if old := p.conns[address]; old != nil {
		p.old = append(p.old, oldConn{old, address, p.count})
		p.sweepLocked(address)
	}
	p.conns[address] = conn
	return nil
}

// sweepLocked closes the old connections without requests, and the oldest one if
// there are too many to address.
func (p *pool) sweepLocked(address string) {
	first, excess := p.count+1, -maxOld
	for number := range p.active {
		first = min(first, number)
	}
	for _, o := range p.old {
		if o.address == address {
			excess++
		}
	}
	p.old = slices.DeleteFunc(p.old, func(o oldConn) bool {
		over := o.last < first
		if o.address == address && excess > 0 {
			excess--
			over = true
		}
		if over {
			o.conn.CloseWithError(0, "")
		}
		return over
	})
}

// RoundTrip makes one request.
func (p *pool) RoundTrip(req *http.Request) (*http.Response, error) {
	if p.http3 == nil || req.URL.Scheme != "https" {
		return nil, errNoTLS
	}
	number, packets := p.begin(req.URL.Host)
	resp, err := p.http3.RoundTrip(req)
	for stale, ok := errors.AsType[*dialError](err); ok && stale.last < number; stale, ok = errors.AsType[*dialError](err) {
		resp, err = p.http3.RoundTrip(req)
	}
	if err != nil {
		if context.Cause(req.Context()) == transport.ErrTimeout {
			p.suspect(req.URL.Host, packets)
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

// begin counts a request. It returns its number, and how many packets have arrived
// from the server.
func (p *pool) begin(address string) (number, packets uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	p.active[p.count] = address
	if p.idle != nil {
		p.idle.Stop()
		p.idle = nil
	}
	if conn := p.conns[address]; conn != nil {
		packets = conn.ConnectionStats().PacketsReceived
	}
	return p.count, packets
}

// suspect closes a connection on which a request was not answered, if it has no
// other requests, or if no packet has arrived since: a live server sends
// acknowledgements. It cancels a dial that no other request waits for, since the
// next one would wait for packets that are resent ever later.
func (p *pool) suspect(address string, packets uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	requests := 0
	for _, a := range p.active {
		if a == address {
			requests++
		}
	}
	if conn := p.conns[address]; conn != nil && (requests == 1 || conn.ConnectionStats().PacketsReceived == packets) {
		conn.CloseWithError(0, "")
		delete(p.conns, address)
	}
	if d := p.dials[address]; d != nil && requests == 1 {
		d.last = p.count
		d.cancel()
		delete(p.dials, address)
	}
}

// end counts the end of a request.
func (p *pool) end(number uint64) {
	p.mu.Lock()
	delete(p.active, number)
	if len(p.old) > 0 {
		p.sweepLocked("")
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

// shut closes all connections and their socket, unless there are requests.
func (p *pool) shut() {
	p.mu.Lock()
	if len(p.active) > 0 {
		p.mu.Unlock()
		return
	}
	t := p.quic
	p.quic = nil
	all := slices.Collect(maps.Values(p.conns))
	for _, o := range p.old {
		all = append(all, o.conn)
	}
	p.old = nil
	clear(p.conns)
	p.mu.Unlock()
	for _, conn := range all {
		conn.CloseWithError(0, "")
	}
	if p.http3 != nil {
		p.http3.CloseIdleConnections() // waits for dials under way
	}
	if t != nil {
		t.Close()
		t.Conn.Close()
	}
}

// Close closes all connections when the last request has ended.
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

// A body calls end when it is closed.
type body struct {
	io.ReadCloser
	end func()
}

// Close closes the body and ends the request.
func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}
