package http

import (
	"net/http"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// redirect makes the request for the redirect resp, the response to req. It does
// not send the Host or credentials to another origin.
func (n *connector) redirect(l transport.Link, req *http.Request, resp *http.Response, hops int) (*http.Response, error) {
	discard(resp)
	to, same, err := request.Redirect(n.setup, l, req.URL, resp, hops)
	if err != nil {
		return nil, err
	}
	method := req.Method
	switch resp.StatusCode {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if req.Body != nil {
			return nil, &RedirectError{Code: resp.StatusCode, Location: resp.Header.Get("Location"),
				Reason: "the body of the request cannot be sent twice"}
		}
	default:
		if method != http.MethodHead {
			method = http.MethodGet
		}
	}
	next := (&http.Request{
		Method: method,
		URL:    to,
		Host:   to.Host,
		Header: req.Header.Clone(),
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(req.Context())
	if same {
		next.Host = req.Host
	} else {
		n.headers.Strip(next.Header)
	}
	if method != req.Method {
		for k := range next.Header {
			if strings.HasPrefix(k, "Content-") {
				next.Header.Del(k)
			}
		}
	}
	if n.signer != nil {
		// After another origin the request stays unsigned, since that origin chose
		// it.
		signed := next.Header[authorize] != nil
		for _, k := range []string{authorize, amzToken, amzDate, amzHash} {
			next.Header.Del(k)
		}
		if signed {
			if err := n.signer.sign(req.Context(), l, next); err != nil {
				return nil, err
			}
		}
	}
	p, err := n.pool(req.Context(), l, to.Scheme == "https")
	if err != nil {
		return nil, err
	}
	return request.WithCookies(n.setup, l, next, p.RoundTrip)
}
