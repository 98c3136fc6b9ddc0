package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// DefaultAddress is where clients of lws look for the proxy on Linux: a unix socket in
// the abstract namespace.
const DefaultAddress = "unix:@proxy.ss.lws"

// An Address is where a proxy listens, or a client finds it.
type Address struct {
	Network string // "unix" or "tcp"
	Host    string // the path or @name of a unix socket, or host and port
}

// ParseAddress parses "unix:@NAME", "unix:/PATH" or "tcp:HOST:PORT".
func ParseAddress(s string) (Address, error) {
	network, host, _ := strings.Cut(s, ":")
	switch {
	case network == "unix" && len(host) > 1 && (host[0] == '@' || host[0] == '/'):
		if len(host) > maxUnixName {
			return Address{}, fmt.Errorf("%q: the name of a unix socket has at most %d bytes", s, maxUnixName)
		}
		return Address{network, host}, nil
	case network == "tcp":
		if _, port, err := net.SplitHostPort(host); err == nil && port != "" {
			return Address{network, host}, nil
		}
	}
	return Address{}, fmt.Errorf("%q: want unix:@NAME, unix:/PATH or tcp:HOST:PORT", s)
}

// maxUnixName is what sun_path can hold, with the NUL after a path.
const maxUnixName = 107

// String returns what ParseAddress parses.
func (a Address) String() string { return a.Network + ":" + a.Host }

// Loopback reports whether only processes of the same system can connect.
func (a Address) Loopback() bool {
	if a.Network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(a.Host)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// Listen opens a socket. It replaces the file of a unix socket that nobody serves any
// more, and nothing else. Closing the listener removes the file.
func Listen(a Address) (net.Listener, error) {
	l, err := net.Listen(a.Network, a.Host)
	if a.Network == "unix" && errors.Is(err, syscall.EADDRINUSE) && removeStale(a.Host) {
		l, err = net.Listen(a.Network, a.Host)
	}
	return l, err
}

// removeStale removes the file of a socket if nobody listens on it.
func removeStale(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED) && os.Remove(path) == nil
}
