package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
)

// A CookieJar keeps the cookies of streams whose policy says "http_cookies".
// Package runtime/cookies has one. Its methods may be called from many
// goroutines at a time.
type CookieJar interface {
	// Cookies returns the value of the Cookie header of a request for u, or "".
	Cookies(scope CookieScope, u *url.URL) string

	// SetCookies takes the values of the Set-Cookie headers of a response from
	// u, as the server sent them.
	SetCookies(scope CookieScope, u *url.URL, lines []string)
}

// A CookieScope says who may see a cookie, beside what the cookie says itself.
type CookieScope struct {
	StreamType string

	// Peer is what the name of a host depends on: another trust store, client
	// certificate, proxy or unix socket may lead to another server of the same
	// name, and so must not get the cookies. It is "" for the trust store of
	// the operating system and none of the others, and holds no secrets.
	Peer string
}

// CookieScope returns the scope of the cookies of the stream.
func (l *Link) CookieScope() (CookieScope, error) {
	st := l.s.t.policy
	var peer []string
	if st.TrustStore != nil {
		// The names of stores can mean something else in the next policy.
		h := sha256.New()
		for _, cert := range st.TrustStore.Stack {
			sum := sha256.Sum256([]byte(cert.DER))
			h.Write(sum[:])
		}
		peer = append(peer, "trust="+hex.EncodeToString(h.Sum(nil)[:16]))
	}
	if st.ClientCert != 0 {
		peer = append(peer, fmt.Sprintf("client=%d", st.ClientCert-1))
	}
	proxy, err := l.c.Proxy(st)
	if err != nil {
		return CookieScope{}, err
	}
	if l.target.Network == "unix" {
		peer = append(peer, fmt.Sprintf("unix=%q", l.target.Host))
	} else if proxy != nil {
		peer = append(peer, fmt.Sprintf("proxy=%q", proxy.address))
	}
	return CookieScope{st.Name, strings.Join(peer, " ")}, nil
}

// CookieJar returns Options.Cookies.
func (c *Context) CookieJar() CookieJar { return c.opts.Cookies }
