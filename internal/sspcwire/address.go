package sspcwire

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// DefaultAddress is where the proxy of lws listens on Linux, and its clients connect
// to.
const DefaultAddress = "unix:@proxy.ss.lws"

// ParseAddress parses the address of a proxy: "unix:@NAME" for an abstract socket of
// Linux, "unix:/PATH", "tcp:HOST:PORT", or "tls:HOST:PORT" for TLS over tcp, which lws
// does not have. network and address are as for package net. HOST may be empty. Port 0
// is for listening.
func ParseAddress(text string) (network, address string, secure bool, err error) {
	fail := func(why string) (string, string, bool, error) {
		return "", "", false, fmt.Errorf("address %q of a proxy: %s: want unix:@NAME, unix:/PATH, tcp:HOST:PORT or tls:HOST:PORT", text, why)
	}
	scheme, address, _ := strings.Cut(text, ":")
	switch scheme {
	case "unix":
		name, abstract := strings.CutPrefix(address, "@")
		switch {
		case name == "" || !abstract && name[0] != '/':
			return fail("neither @NAME nor an absolute path follows unix")
		case len(address) > maxSocketPath:
			return fail(fmt.Sprintf("it is longer than the %d bytes of a socket", maxSocketPath))
		case strings.ContainsRune(address, 0):
			return fail("it has a NUL")
		}
		return "unix", address, false, nil
	case "tcp", "tls":
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return fail("no HOST:PORT follows " + scheme)
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fail(fmt.Sprintf("%q is not a port", port))
		}
		return "tcp", address, scheme == "tls", nil
	}
	if scheme == text && len(text) > 1 && text[0] == '+' { // as lws spells a unix socket
		return fail(fmt.Sprintf("lws's %s is unix:%s here", text, text[1:]))
	}
	return fail("unknown kind of address")
}

// maxSocketPath is how long the path of a unix socket may be on Linux; elsewhere the
// system may accept less.
const maxSocketPath = 107
