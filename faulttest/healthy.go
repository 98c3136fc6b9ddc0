package faulttest

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// payload is the answer of healthy servers.
const payload = "hello from the healthy peer\n"

// healthyHandler returns the handler of a healthy HTTP server: the upstream server
// or a simulation.
func (p *peer) healthyHandler() http.Handler {
	switch {
	case p.options.Upstream != "":
		return p.reverseProxy()
	case p.Protocol == policy.ProtocolWS:
		return http.HandlerFunc(p.serveWS)
	}
	return http.HandlerFunc(p.answer)
}

// answer answers a request as the policy expects.
func (p *peer) answer(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(p.status())
	if p.hasBody(p.status()) {
		io.WriteString(w, payload)
	}
}

// serveWS sends a greeting, and echoes each message.
func (p *peer) serveWS(w http.ResponseWriter, r *http.Request) {
	var protocols []string
	if p.HTTP.WSSubprotocol != "" {
		protocols = []string{p.HTTP.WSSubprotocol}
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: protocols, InsecureSkipVerify: true})
	if err != nil {
		p.logf("ws: %v", err)
		return
	}
	defer c.CloseNow()
	if c.Write(p.ctx, websocket.MessageText, []byte(payload)) != nil {
		return
	}
	for {
		kind, message, err := c.Read(p.ctx)
		if err != nil || c.Write(p.ctx, kind, message) != nil {
			return
		}
	}
}

// reverseProxy forwards requests to the upstream server, under the policy's host
// name.
func (p *peer) reverseProxy() http.Handler {
	scheme := "http"
	if p.tls {
		scheme = "https"
	}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.options.Upstream)
		},
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return p.dialUpstream(ctx, network, p.options.Upstream)
		},
		ForceAttemptHTTP2: p.Protocol == policy.ProtocolH2,
	}
	p.onClose(t.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Transport: t,
		ErrorLog:  quiet,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = scheme, p.name, p.name
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			p.logf("upstream: %v", err)
			w.WriteHeader(http.StatusBadGateway)
		},
	}
}
