package ws

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A handshake is the opening handshake of one attempt (RFC 6455 section 4.1). It is
// the http.RoundTripper of the library, so that the context makes the connection.
type handshake struct {
	n    *connector
	ctx  context.Context
	l    transport.Link
	head request.Header
	wire *wire // body of the response
}

// dial makes a connection and its handshake.
func (n *connector) dial(ctx context.Context, l transport.Link) (*websocket.Conn, *wire, error) {
	head, err := n.headers.Make(ctx, l)
	if err != nil {
		return nil, nil, err // before anything is sent
	}
	w := new(wire) // the only part of the handshake that is kept
	h := &handshake{n: n, ctx: ctx, l: l, head: head, wire: w}
	// RoundTrip replaces the URL: the library includes it in errors, and the real
	// one may contain metadata.
	ws, _, err := websocket.Dial(ctx, "ws://peer/", &websocket.DialOptions{
		HTTPClient:      &http.Client{Transport: h},
		HTTPHeader:      head.Header,
		Subprotocols:    n.subprotocols,
		CompressionMode: n.t.deflate,
		OnPingReceived:  pongs(w),
	})
	switch ue := (*url.Error)(nil); {
	case err == nil:
		ws.SetReadLimit(-1) // messages are not buffered
		return ws, w, nil
	case ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case errors.As(err, &ue) && errors.Is(ue.Err, io.EOF): // io.EOF is a clean close
		return nil, nil, io.ErrUnexpectedEOF
	case errors.As(err, &ue): // from RoundTrip
		return nil, nil, ue.Err
	default:
		return nil, nil, fmt.Errorf("sspolicy: ws: %w", err)
	}
}

// pongs returns the library's callback for a PING.
func pongs(w *wire) func(context.Context, []byte) bool {
	return func(context.Context, []byte) bool { return w.c.mayPong() }
}

// RoundTrip sends the request and follows redirects. It returns a response only if
// the status is 101.
func (h *handshake) RoundTrip(req *http.Request) (*http.Response, error) {
	target := h.l.Target()
	u, host := request.URL(target, h.l.URL())
	req.URL, req.Host = u, h.head.HostOr(host)
	for hops := 0; ; hops++ {
		resp, err := request.WithCookies(h.n.setup, h.l, req, func(req *http.Request) (*http.Response, error) { return h.exchange(req, target) })
		if err != nil {
			return nil, err
		}
		h.l.Answer(transport.Answer{Status: resp.StatusCode})
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
		if err := request.UserState(h.n.setup, h.l, resp.StatusCode); err != nil {
			return nil, err
		}
		switch {
		case request.IsRedirect(resp.StatusCode):
		case resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusTooManyRequests:
			h.l.Answer(transport.Answer{RetryAfter: request.RetryAfter(resp.Header)})
			fallthrough
		default:
			return nil, &StatusError{Code: resp.StatusCode}
		}
		to, same, err := request.Redirect(h.n.setup, h.l, req.URL, resp, hops)
		if err != nil {
			return nil, err
		}
		req = req.Clone(h.ctx)
		req.URL = to
		if !same {
			req.Host = to.Host
			h.n.headers.Strip(req.Header)
			target = &policy.Target{Network: "tcp", Host: to.Hostname(), Port: 80}
			if to.Scheme == "https" {
				target.TLS, target.Port = true, 443
			}
			if p := to.Port(); p != "" {
				n, err := strconv.ParseUint(p, 10, 16)
				if err != nil {
					return nil, &RedirectError{Code: resp.StatusCode, Location: resp.Header.Get("Location"), Reason: "bad port"}
				}
				target.Port = uint16(n)
			}
		}
	}
}

// exchange sends the request on a new connection. It closes the connection unless
// the status is 101.
func (h *handshake) exchange(req *http.Request, target *policy.Target) (*http.Response, error) {
	trace := transport.Trace(h.ctx)
	trace.GetConn(target.Address())
	conn, err := h.n.setup.Dial(h.ctx, target, "http/1.1")
	if err != nil {
		return nil, err
	}
	trace.GotConn(httptrace.GotConnInfo{Conn: conn})
	stop := context.AfterFunc(h.ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	resp, err := h.upgrade(req, conn)
	if !stop() && err == nil {
		err = context.Cause(h.ctx)
	}
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		transport.Close(conn)
	}
	return resp, err
}

// maxInformational limits the 1xx responses before the response.
const maxInformational = 8

// upgrade sends the request and reads the header of the response. The body of a 101
// is the connection; other bodies are not read.
func (h *handshake) upgrade(req *http.Request, conn net.Conn) (*http.Response, error) {
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	trace := transport.Trace(h.ctx)
	trace.WroteHeaders()
	limit := &io.LimitedReader{R: conn, N: request.MaxHeaderBytes}
	r := bufio.NewReader(limit)
	if _, err := r.Peek(1); err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	} else if err != nil {
		return nil, err
	}
	trace.GotFirstResponseByte()
	for range maxInformational {
		resp, err := http.ReadResponse(r, req)
		switch {
		case err != nil && limit.N <= 0:
			return nil, errHeaderTooLong
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			limit.N = math.MaxInt64
			first, _ := r.Peek(r.Buffered()) // sent with the headers
			h.wire.Conn, h.wire.first = conn, append([]byte(nil), first...)
			h.wire.check.deflate = resp.Header.Get("Sec-WebSocket-Extensions") != "" // no other one is offered
			h.n.headers.Receive(h.l, resp.Header)
			resp.Body = h.wire
			return resp, nil
		case resp.StatusCode >= 200:
			return resp, nil
		}
	}
	return nil, errInformational
}
