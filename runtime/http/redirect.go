package http

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
)

// maxRedirects is how many redirects are followed, as in lws.
const maxRedirects = 4

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// confidential are the headers, beside those of the credentials, that must not reach another server than the one they
// were meant for.
var confidential = []string{"Authorization", "Cookie", "Cookie2", "Proxy-Authorization", "Www-Authenticate"}

// redirect makes the request that resp, the response to req, redirects to. The
// rules are those of RFC 9110 section 15.4. More than there: TLS is not left
// for plain HTTP, and a Host, credential or client certificate is not sent to
// another origin (scheme, host and port).
func (n *connector) redirect(l *runtime.Link, req *http.Request, resp *http.Response, hops int) (*http.Response, error) {
	location := resp.Header.Get("Location")
	refuse := func(reason string) (*http.Response, error) {
		return nil, &RedirectError{resp.StatusCode, location, reason}
	}
	discard(resp)
	switch {
	case !n.st.HTTP.AllowRedirects:
		return refuse("the policy does not allow it")
	case hops == maxRedirects:
		return refuse("there were too many before it")
	case location == "":
		return refuse("there is no location")
	}
	from := *req.URL
	if from.Opaque != "" {
		path, err := url.ParseRequestURI(from.Opaque)
		if err != nil { // which holds what was parsed
			return refuse("the URL of the request can not be parsed")
		}
		path.Scheme, path.Host = from.Scheme, from.Host
		from = *path
	}
	to, err := from.Parse(location)
	if err != nil {
		return refuse("it is no URL")
	}
	to.User, to.Fragment, to.RawFragment = nil, "", ""
	switch {
	case to.Scheme != "http" && to.Scheme != "https" || to.Host == "":
		return refuse("it is not http")
	case l.Target().Network == "unix":
		if !sameOrigin(&from, to) {
			return refuse("it leaves the unix socket")
		}
	case strings.HasPrefix(to.Host, unixHost):
		return refuse("it is no name of a host")
	case from.Scheme == "https" && to.Scheme == "http":
		return refuse("it gives up TLS")
	}
	method := req.Method
	switch resp.StatusCode {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if req.Body != nil {
			return refuse("the body of the request can not be sent twice")
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
	if sameOrigin(&from, to) {
		next.Host = req.Host
	} else {
		if n.st.ClientCert != 0 && to.Scheme == "https" {
			return refuse("it leaves the server that the client certificate is for")
		}
		for _, k := range confidential {
			next.Header.Del(k)
		}
		for _, s := range n.secrets {
			next.Header.Del(s.name)
		}
	}
	if method != req.Method {
		for k := range next.Header {
			if strings.HasPrefix(k, "Content-") {
				next.Header.Del(k)
			}
		}
	}
	p, err := n.pool(l, to.Scheme == "https")
	if err != nil {
		return nil, err
	}
	return p.RoundTrip(next)
}

func sameOrigin(a, b *url.URL) bool {
	ah, ap := splitPort(a)
	bh, bp := splitPort(b)
	return a.Scheme == b.Scheme && ah == bh && ap == bp
}

// maxRetryAfter is the longest wait that a server can ask for.
const maxRetryAfter = 24 * time.Hour

// retryAfter returns what a Retry-After header (RFC 9110 section 10.2.3) asks
// for, at most maxRetryAfter, or 0. A date is taken relative to that of the response if it has one,
// since the clock of a device may be wrong.
func retryAfter(h http.Header) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	s, err := strconv.ParseUint(v, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(s, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
