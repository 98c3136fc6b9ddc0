package request

import (
	"net/http"
	"net/url"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// WithCookies sends a request with do. It adds the jar's cookies for the URL to
// those that the program has set, and stores the cookies of the response, whatever
// its status. req is not modified, and is the Request of the response.
func WithCookies(s *transport.Setup, l transport.Link, req *http.Request, do func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	jar := s.CookieJar()
	if jar == nil || !s.Stream.HTTP.Cookies {
		return do(req)
	}
	scope := s.CookieScope(l.Target())
	u := plainURL(req.URL)
	sent := req
	if value := jar.Cookies(scope, u); value != "" {
		copied := *req
		sent = &copied
		sent.Header = req.Header.Clone()
		for _, own := range req.Header["Cookie"] {
			value = own + "; " + value
		}
		sent.Header["Cookie"] = []string{value}
	}
	resp, err := do(sent)
	if err != nil {
		return nil, err
	}
	if lines := resp.Header["Set-Cookie"]; len(lines) > 0 {
		jar.SetCookies(scope, u, lines)
	}
	resp.Request = req
	return resp, nil
}

// plainURL returns the URL of a request for a cookie jar: with a parsed path and
// without a query.
func plainURL(u *url.URL) *url.URL {
	plain := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if u.Opaque != "" {
		plain.Path = "/" // if the path cannot be parsed
		if p, err := url.ParseRequestURI(u.Opaque); err == nil {
			plain.Path = p.Path
		}
	}
	if plain.Host == UnixHost {
		plain.Host = "localhost"
	}
	return plain
}
