package request

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// MaxHeaderBytes is the size limit of the headers of a response.
const MaxHeaderBytes = 256 << 10

// maxRedirects is the maximum number of redirects of a request that are followed,
// as in lws.
const maxRedirects = 4

// IsRedirect reports whether a status redirects a request.
func IsRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// Redirect returns the target of a redirect, and whether it has the same origin
// (scheme, host and port). from is the URL of the request, hops the number of
// previous redirects. The rules are those of RFC 9110 section 15.4. In addition the
// policy must allow redirects, and a redirect must not leave TLS, a unix socket, or
// the server that a client certificate is for. The error is a *RedirectError.
func Redirect(s *transport.Setup, l transport.Link, from *url.URL, resp *http.Response, hops int) (to *url.URL, same bool, err error) {
	location := resp.Header.Get("Location")
	refuse := func(reason string) (*url.URL, bool, error) {
		return nil, false, &RedirectError{resp.StatusCode, location, reason}
	}
	st := s.Stream
	l.Answer(transport.Answer{Redirected: true})
	switch {
	case !st.HTTP.AllowRedirects:
		return refuse("the policy does not allow it")
	case hops == maxRedirects:
		return refuse("there were too many")
	case location == "":
		return refuse("it has no location")
	}
	if from.Opaque != "" {
		path, err := url.ParseRequestURI(from.Opaque)
		if err != nil { // err contains the URL
			return refuse("the URL of the request cannot be parsed")
		}
		path.Scheme, path.Host = from.Scheme, from.Host
		from = path
	}
	if to, err = from.Parse(location); err != nil {
		return refuse("it is not a URL")
	}
	to.User, to.Fragment, to.RawFragment = nil, "", ""
	if st.Protocol == policy.ProtocolWS {
		switch to.Scheme {
		case "ws":
			to.Scheme = "http"
		case "wss":
			to.Scheme = "https"
		}
	}
	same = sameOrigin(from, to)
	switch {
	case to.Scheme != "http" && to.Scheme != "https" || to.Host == "":
		return refuse("it is not http")
	case l.Target().Network == "unix":
		if !same {
			return refuse("it leaves the unix socket")
		}
	case strings.HasPrefix(to.Host, UnixHost):
		return refuse("it does not name a host")
	case from.Scheme == "https" && to.Scheme == "http":
		return refuse("it leaves TLS")
	case !same && st.ClientCert != 0 && to.Scheme == "https":
		return refuse("it leaves the server that the client certificate is for")
	}
	return to, same, nil
}

// maxRetryAfter is the maximum wait that a server can request.
const maxRetryAfter = 24 * time.Hour

// RetryAfter returns the wait of a Retry-After header (RFC 9110 section 10.2.3), at
// most 24 h; 0 means none. A date is relative to the Date of the response, if
// present, since the clock of a device may be wrong.
func RetryAfter(h http.Header) time.Duration {
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
