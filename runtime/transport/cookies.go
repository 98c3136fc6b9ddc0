package transport

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A CookieJar keeps the cookies of streams whose policy says "http_cookies".
// Package runtime/cookies has one. Its methods may be called from many
// goroutines.
type CookieJar interface {
	// Cookies returns the value of the Cookie header of a request for u, or "".
	Cookies(scope CookieScope, u *url.URL) string

	// SetCookies takes the values of the Set-Cookie headers of a response from
	// u, as the server sent them.
	SetCookies(scope CookieScope, u *url.URL, lines []string)
}

// A CookieScope limits who may see a cookie, beyond the limits of the cookie.
type CookieScope struct {
	StreamType string

	// Peer is what the name of a host depends on: another trust store, client
	// certificate, proxy or unix socket may lead to another server of the same
	// name, which must not get the cookies. It is "" for the trust store of the
	// operating system and none of the others. It holds no secrets.
	Peer string
}

// CookieScope returns the scope of the cookies of a connection.
func (s *Setup) CookieScope(t *policy.Target) CookieScope {
	var peer []string
	if store := s.Stream.TrustStore; store != nil {
		// The names of stores can mean something else in the next policy.
		h := sha256.New()
		for _, cert := range store.Stack {
			sum := sha256.Sum256([]byte(cert.DER))
			h.Write(sum[:])
		}
		peer = append(peer, "trust="+hex.EncodeToString(h.Sum(nil)[:16]))
	}
	if s.Stream.ClientCert != 0 {
		peer = append(peer, fmt.Sprintf("client=%d", s.Stream.ClientCert-1))
	}
	if t.Network == "unix" {
		peer = append(peer, fmt.Sprintf("unix=%q", t.Host))
	} else if p := s.Dialer.proxy; p != nil {
		peer = append(peer, fmt.Sprintf("proxy=%q", p.address))
	}
	return CookieScope{s.Stream.Name, strings.Join(peer, " ")}
}
