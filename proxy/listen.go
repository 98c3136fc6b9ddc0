package proxy

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
)

// DefaultAddress is the address at which clients of lws look for the proxy on
// Linux: a unix socket in the abstract namespace.
const DefaultAddress = sspcwire.DefaultAddress

// An Address is an address for a proxy to listen on.
type Address struct {
	Network string // "unix" or "tcp"
	Host    string // the path or @name of a unix socket, or host and port
	TLS     bool
}

// ParseAddress parses "unix:@NAME", "unix:/PATH", "tcp:HOST:PORT" or
// "tls:HOST:PORT".
func ParseAddress(s string) (a Address, err error) {
	a.Network, a.Host, a.TLS, err = sspcwire.ParseAddress(s)
	return a, err
}

// String returns a in the form that ParseAddress parses.
func (a Address) String() string {
	if a.TLS {
		return "tls:" + a.Host
	}
	return a.Network + ":" + a.Host
}

// Loopback reports whether only processes of the same system can connect.
func (a Address) Loopback() bool {
	if a.Network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(a.Host)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// Listen opens a socket, without TLS. It replaces the file of a unix socket that is
// no longer served, but no other file. Closing the listener removes the file.
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
