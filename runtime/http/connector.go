package http

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A connector makes the requests of one streamtype of one context.
type connector struct {
	t       *Transport
	setup   *transport.Setup
	st      *policy.StreamType // of setup
	method  string
	headers *request.Set
	form    *form  // nil unless requests are multipart
	signer  signer // nil unless requests are signed

	pools [4]lazyPool // by TLS and credit
	url   atomic.Pointer[requestURL]
}

// A requestURL is the URL of the latest request, kept for those that have the same
// target and text.
type requestURL struct {
	target *policy.Target
	text   string
	url    *url.URL
	host   string // of the Host header
}

// Prepare returns the connector of a streamtype. The error wraps ErrUnsupported or
// names an invalid key.
func (t *Transport) Prepare(s *transport.Setup) (transport.Connector, error) {
	if err := request.Check(s); err != nil {
		return nil, err
	}
	st := s.Stream
	n := &connector{t: t, setup: s, st: st, method: cmp.Or(st.HTTP.Method, http.MethodGet)}
	if !policy.IsToken(n.method) || n.method == http.MethodConnect {
		return nil, fmt.Errorf("%w: http_method %q", transport.ErrUnsupported, n.method)
	}
	var err error
	if n.form, err = newForm(s.Chain); err != nil {
		return nil, err
	}
	if n.signer, err = t.newSigner(s); err != nil {
		return nil, err
	}
	if n.headers, err = request.NewSet(s, n.reserves); err != nil {
		return nil, err
	}
	if st.HTTP.WWWFormURLEncoded {
		n.headers.SetBase("Content-Type", "application/x-www-form-urlencoded")
	}
	return n, nil
}

// reserves reports whether a header is derived from the policy, so that neither
// metadata nor credentials can be sent in it.
func (n *connector) reserves(name string) bool {
	return n.form != nil && (name == "Content-Type" || name == "Content-Length") || n.signer != nil && name == authorize
}

// Prompt reports whether Run returns as soon as its context is done. Over h1 only a
// source of credentials or a cookie jar can delay it.
func (n *connector) Prompt() bool {
	return n.t.version == nil && n.st.Protocol == policy.ProtocolH1 &&
		n.signer == nil && n.st.ClientCert == 0 && !n.st.HTTP.Cookies && !n.headers.HasSecrets()
}

// A lazyPool is a pool that a connector obtains at its first use.
type lazyPool struct {
	mu     sync.Mutex
	p      atomic.Pointer[pool]
	key    poolKey // of p
	closed bool    // a late attempt does not get a pool
}

// pool returns the pool for requests with or without TLS.
func (n *connector) pool(ctx context.Context, l transport.Link, secure bool) (*pool, error) {
	h2 := n.st.Protocol == policy.ProtocolH2
	credit := h2 && l.Credit() != nil
	z := &n.pools[0]
	switch {
	case secure && credit:
		z = &n.pools[3]
	case secure:
		z = &n.pools[2]
	case credit:
		z = &n.pools[1]
	}
	unix := ""
	if l.Target().Network == "unix" {
		unix = l.Target().Host
	}
	if p := z.p.Load(); p != nil && p.unix == unix && (!secure || n.st.ClientCert == 0) {
		return p, nil
	}
	k := poolKey{env: n.setup.Env, dialer: n.setup.Dialer, unix: unix, h2: h2, credit: credit}
	if n.st.Protocol != policy.ProtocolH1 {
		k.ping, k.hangup = n.st.Validity()
		k.wakes = n.st.SwakeValidity
		k.overflows = h2 && n.st.HTTP.H2OverflowTxCr
	}
	if secure {
		// A new client certificate means a new config; a missing one is an error.
		trust, err := n.setup.TLS(ctx)
		if err != nil {
			return nil, err
		}
		k.trust = trust
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.closed {
		return nil, transport.ErrClosed
	}
	p := z.p.Load()
	if p != nil {
		if z.key == k {
			return p, nil
		}
		n.t.release(z.key, p)
	}
	p = n.t.pool(k)
	z.key = k
	z.p.Store(p)
	return p, nil
}

// Close closes the connections that no other streamtype uses.
func (n *connector) Close() error {
	for i := range n.pools {
		z := &n.pools[i]
		z.mu.Lock()
		if p := z.p.Swap(nil); p != nil {
			n.t.release(z.key, p)
		}
		z.closed = true
		z.mu.Unlock()
	}
	return nil
}

// urlFor returns the URL of the request and the value of its Host header.
func (n *connector) urlFor(l transport.Link) (*url.URL, string) {
	target, text := l.Target(), l.URL()
	if m := n.url.Load(); m != nil && m.target == target && m.text == text {
		return m.url, m.host
	}
	u, host := request.URL(target, text)
	n.url.Store(&requestURL{target, text, u, host})
	return u, host
}

// Run makes one request, and follows its redirects.
func (n *connector) Run(ctx context.Context, l transport.Link) error {
	p, err := n.pool(ctx, l, l.Target().TLS)
	if err != nil {
		return err
	}
	u, host := n.urlFor(l)
	h, err := n.headers.Make(ctx, l)
	if err != nil {
		return err
	}
	b, err := n.body(ctx, l, h.Length)
	if err != nil {
		return err
	}
	if n.form != nil {
		n.headers.Put(&h, "Content-Type", b.w.FormDataContentType())
	}
	req := (&http.Request{
		Method: n.method,
		URL:    u,
		Host:   h.HostOr(host),
		Header: h.Header,
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if b != nil {
		req.Body = b
		req.ContentLength = b.length
	}
	if n.signer != nil {
		if err := n.signer.sign(ctx, l, req); err != nil {
			return err
		}
	}
	if req.Body == http.NoBody {
		req.Body = nil
	}
	resp, err := request.WithCookies(n.setup, l, req, p.RoundTrip)
	if err != nil && n.st.Protocol == policy.ProtocolH2 && !l.Target().TLS {
		// The error of net/http does not name the cause: a server without h2.
		err = fmt.Errorf("sspolicy: h2 without TLS: %w", err)
	}
	for hops := 0; err == nil && request.IsRedirect(resp.StatusCode) && resp.StatusCode != int(n.st.HTTP.Expect); hops++ {
		resp, err = n.redirect(l, req, resp, hops)
		if err == nil {
			req = resp.Request
		}
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return n.answer(ctx, l, resp)
}

// answer reports a response to the stream.
func (n *connector) answer(ctx context.Context, l transport.Link, resp *http.Response) error {
	a := transport.Answer{Status: resp.StatusCode}
	if n.st.DirectProtoStr {
		a.Header = resp.Header.Get
	}
	l.Answer(a)
	switch resp.StatusCode {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		l.Answer(transport.Answer{RetryAfter: request.RetryAfter(resp.Header)})
		discard(resp)
		return &StatusError{Code: resp.StatusCode}
	case http.StatusSwitchingProtocols:
		return errors.New("sspolicy: the server switched protocols without a request to")
	}
	n.headers.Receive(l, resp.Header)
	if err := request.UserState(n.setup, l, resp.StatusCode); err != nil {
		return err
	}
	if err := l.Connected(); err != nil {
		return err
	}
	if err := n.receive(ctx, l, resp); err != nil {
		return err
	}
	return l.Done(n.good(resp.StatusCode))
}

func (n *connector) good(status int) bool {
	if want := int(n.st.HTTP.Expect); want != 0 {
		return status == want
	}
	return status >= 200 && status <= 299
}

// receive delivers the body of a response. An empty body is not a message.
func (n *connector) receive(ctx context.Context, l transport.Link, resp *http.Response) error {
	body := resp.Body
	if body == http.NoBody {
		return nil
	}
	rx, credit := l.Rx, l.Credit()
	if credit != nil && n.st.Protocol != policy.ProtocolH1 {
		rx = withCredit(ctx, credit, rx)
	}
	if n.st.HTTP.MultipartSSIn {
		boundary, err := boundaryOf(resp.Header.Get("Content-Type"))
		if err != nil {
			return err
		}
		if boundary != "" {
			return split(body, boundary, rx)
		}
	}
	if credit != nil && n.st.Protocol == policy.ProtocolH2 {
		body = &creditBody{body, ctx, credit}
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	flags := policy.FlagSOM
	for {
		k, err := body.Read(buf[:])
		if k > 0 {
			if err := rx(buf[:k], flags); err != nil {
				return err
			}
			flags = 0
		}
		switch {
		case err == nil:
		case err != io.EOF:
			return err
		case flags == 0:
			return l.RxEnd()
		default:
			return nil
		}
	}
}

// bufferSize is the maximum size of a piece for Rx: the largest HTTP/2 frame that a
// client accepts by default, and the largest TLS record.
const bufferSize = 16 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// discard closes a body that is not needed. It first reads a short one that arrives
// soon, so that the connection can be kept.
func discard(resp *http.Response) {
	if resp.ContentLength >= 0 && resp.ContentLength <= 4<<10 {
		late := time.AfterFunc(100*time.Millisecond, func() { resp.Body.Close() })
		_, _ = io.Copy(io.Discard, resp.Body)
		late.Stop()
	}
	resp.Body.Close()
}
