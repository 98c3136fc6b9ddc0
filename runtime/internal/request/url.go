package request

import (
	"net"
	"net/url"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// UnixHost is the host of the URL of a request to a unix socket. It is neither a
// valid name nor an address, and no other URL has it.
const UnixHost = "+"

// URL returns the URL of a request and the value of its Host header. text is the
// policy's http_url.
func URL(target *policy.Target, text string) (u *url.URL, host string) {
	path := text
	if target.Path != "" {
		path = target.Path
	}
	u = &url.URL{Scheme: "http", Opaque: requestTarget(path)}
	defaultPort := uint16(80)
	if target.TLS {
		u.Scheme, defaultPort = "https", 443
	}
	if target.Network == "unix" {
		u.Host, host = UnixHost, "localhost"
	} else {
		u.Host = target.Address()
		host = target.Host
		if target.Port != defaultPort {
			host = u.Host
		} else if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
	}
	return u, host
}

// requestTarget returns a path and query as the target of a request (RFC 9112
// section 3.2.1). It escapes invalid bytes; '%' is assumed to begin an escape.
func requestTarget(path string) string {
	path = "/" + strings.TrimLeft(path, "/") // "//" begins an authority
	bad := 0
	for i := range len(path) {
		if mustEscape(path[i]) {
			bad++
		}
	}
	if bad == 0 {
		return path
	}
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(path)+2*bad)
	for i := range len(path) {
		if c := path[i]; mustEscape(c) {
			b = append(b, '%', digits[c>>4], digits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

func mustEscape(b byte) bool {
	return b <= ' ' || b >= 0x7f || strings.IndexByte("\"#<>\\^`{|}", b) >= 0
}

// splitPort returns the host and port of a URL.
func splitPort(u *url.URL) (host, port string) {
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		host = u.Host
	}
	if port == "" {
		port = "80"
		if u.Scheme == "https" {
			port = "443"
		}
	}
	return strings.ToLower(host), port
}

func sameOrigin(a, b *url.URL) bool {
	ah, ap := splitPort(a)
	bh, bp := splitPort(b)
	return a.Scheme == b.Scheme && ah == bh && ap == bp
}
