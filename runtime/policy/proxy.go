package policy

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// A Proxy is a SOCKS5 proxy, as in the key via-socks5.
type Proxy struct {
	Address        string // host and port, for net.Dial
	User, Password string // empty for a proxy without a login
}

// String returns only the address, since the password is secret.
func (p Proxy) String() string { return p.Address }

// GoString is like String, for %#v.
func (p Proxy) GoString() string { return p.Address }

// socksPort is the default port of a proxy (RFC 1928 section 3).
const socksPort = "1080"

// ParseProxy parses "[user:password@]host[:port]". The error is an
// [*EndpointError]. It does not contain the text, which may contain a password.
func ParseProxy(text string) (Proxy, error) {
	fail := func(why string) (Proxy, error) { return Proxy{}, &EndpointError{Why: why} }
	var p Proxy
	host := text
	if scheme, _, found := strings.Cut(text, "://"); found && !strings.Contains(scheme, ":") {
		return fail("a URL: write host:port")
	}
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		var found bool
		p.User, p.Password, found = strings.Cut(text[:i], ":")
		if !found || p.User == "" || p.Password == "" || len(p.User) > 255 || len(p.Password) > 255 {
			return fail(`before the "@" there must be user:password, of 1 to 255 bytes each`)
		}
		host = text[i+1:]
	}
	port := socksPort
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err == nil {
		host = addr.String()
	} else if h, s, err := net.SplitHostPort(host); err == nil {
		host, port = h, s
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fail(fmt.Sprintf("%q is not a port", port))
	}
	switch _, err := netip.ParseAddr(host); {
	case err == nil:
	case host == "":
		return fail("no host")
	case !IsHostName(host):
		return fail("bad character in the host")
	default:
		if why := wrongLabels(strings.TrimSuffix(host, ".")); why != "" {
			return fail(why)
		}
	}
	p.Address = net.JoinHostPort(host, port)
	return p, nil
}
