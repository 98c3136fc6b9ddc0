package sspcwire

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// DefaultAddress is the default address of lws's proxy and clients on Linux.
const DefaultAddress = "unix:@proxy.ss.lws"

// An Address is the address of a proxy.
type Address struct {
	Network string // "unix", "tcp", or "mux" for a serial line that carries many links
	Host    string // path or @name of a unix socket, host and port, or path of a device
	TLS     bool
	Speed   int // of a serial line, in bits per second; 0 keeps the current speed
}

// ParseAddress parses the address of a proxy: "unix:@NAME" for an abstract socket of Linux,
// "unix:/PATH", "tcp:HOST:PORT", "tls:HOST:PORT" for TLS over TCP, which lws does not
// support, or "mux:/DEVICE" and "mux:/DEVICE@SPEED". HOST may be empty. Port 0 is for
// listening.
func ParseAddress(text string) (Address, error) {
	fail := func(why string) (Address, error) {
		return Address{}, fmt.Errorf("address %q of a proxy: %s: want unix:@NAME, unix:/PATH, tcp:HOST:PORT, tls:HOST:PORT or mux:/DEVICE@SPEED", text, why)
	}
	scheme, address, _ := strings.Cut(text, ":")
	if strings.ContainsRune(address, 0) {
		return fail("it has a NUL")
	}
	switch scheme {
	case "unix":
		name, abstract := strings.CutPrefix(address, "@")
		switch {
		case name == "" || !abstract && name[0] != '/':
			return fail("neither @NAME nor an absolute path follows unix")
		case len(address) > maxSocketPath:
			return fail(fmt.Sprintf("it is longer than the %d bytes of a socket", maxSocketPath))
		}
		return Address{Network: "unix", Host: address}, nil
	case "tcp", "tls":
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return fail("no HOST:PORT follows " + scheme)
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fail(fmt.Sprintf("%q is not a port", port))
		}
		return Address{Network: "tcp", Host: address, TLS: scheme == "tls"}, nil
	case "mux":
		path, speed, has := strings.Cut(address, "@")
		a := Address{Network: "mux", Host: path}
		if !strings.HasPrefix(path, "/") {
			return fail("no absolute path of a device follows mux")
		}
		if has {
			n, err := strconv.ParseUint(speed, 10, 31)
			if err != nil || n == 0 {
				return fail(fmt.Sprintf("%q is not a speed in bits a second", speed))
			}
			a.Speed = int(n)
		}
		return a, nil
	}
	if scheme == text && len(text) > 1 && text[0] == '+' { // the spelling of lws for a unix socket
		return fail(fmt.Sprintf("lws's %s is unix:%s here", text, text[1:]))
	}
	return fail("unknown kind of address")
}

// String returns the address in the form that ParseAddress accepts.
func (a Address) String() string {
	switch {
	case a.TLS:
		return "tls:" + a.Host
	case a.Speed > 0:
		return fmt.Sprintf("%s:%s@%d", a.Network, a.Host, a.Speed)
	}
	return a.Network + ":" + a.Host
}

// Loopback reports whether only processes of the same system, or the peer of a serial line,
// can connect.
func (a Address) Loopback() bool {
	if a.Network != "tcp" {
		return true
	}
	host, _, err := net.SplitHostPort(a.Host)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// maxSocketPath is the maximum length of the path of a unix socket on Linux. Other systems
// may accept less.
const maxSocketPath = 107
