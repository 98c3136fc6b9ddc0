package transport

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A CookieJar keeps the cookies of streams whose policy sets http_cookies. Package
// runtime/cookies implements it. Implementations must be safe for concurrent use.
type CookieJar interface {
	// Cookies returns the value of the Cookie header of a request for u, or "".
	Cookies(scope CookieScope, u *url.URL) string

	// SetCookies stores the values of the Set-Cookie headers of a response from u,
	// exactly as the server sent them.
	SetCookies(scope CookieScope, u *url.URL, lines []string)
}

// A CookieScope limits who may see a cookie, in addition to the cookie's own
// attributes. Scopes are comparable.
type CookieScope struct {
	StreamType string // name

	// Peer distinguishes servers with the same host name: those reached with
	// another trust store or client certificate, or through another proxy or unix
	// socket. It is "" for the trust store of the operating system and none of the
	// others. It contains no secrets.
	Peer string
}

// CookieScope returns the scope of the cookies of connections to t.
func (s *Setup) CookieScope(t *policy.Target) CookieScope {
	var peer []string
	if store := s.Stream.TrustStore; store != nil {
		// Hash the certificates: another policy may use the name for another store.
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
