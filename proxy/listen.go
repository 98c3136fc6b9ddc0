package proxy

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"syscall"

	"github.com/secure-streams/sspolicy/internal/sspcmux"
	"github.com/secure-streams/sspolicy/internal/sspcwire"
)

// DefaultAddress is the address at which clients of lws look for the proxy on
// Linux: a unix socket in the abstract namespace.
const DefaultAddress = sspcwire.DefaultAddress

// An Address is an address for a proxy to listen on.
type Address = sspcwire.Address

// ParseAddress parses "unix:@NAME", "unix:/PATH", "tcp:HOST:PORT", "tls:HOST:PORT",
// "mux:/DEVICE" or "mux:/DEVICE@SPEED".
func ParseAddress(s string) (Address, error) { return sspcwire.ParseAddress(s) }

// Listen opens a socket, without TLS, or a serial line, which logs to log if that is not
// nil. It replaces the file of a unix socket that is no longer served, but no other file.
// Closing the listener removes the file.
func Listen(a Address, log *slog.Logger) (net.Listener, error) {
	if a.Network == "mux" {
		return sspcmux.ListenDevice(a.Host, a.Speed, log)
	}
	l, err := net.Listen(a.Network, a.Host)
	if a.Network == "unix" && errors.Is(err, syscall.EADDRINUSE) && removeStale(a.Host) {
		l, err = net.Listen(a.Network, a.Host)
	}
	return l, err
}

// ListenMux returns a listener, for [Proxy.Serve], that accepts many links over one byte
// stream, by the transport mux of lws 5.0. It ends with the stream. Closing the listener
// refuses links, and closes the stream after the last one has ended.
func ListenMux(rw io.ReadWriteCloser, log *slog.Logger) net.Listener {
	return muxListener{sspcmux.NewSession(rw, sspcmux.Options{Server: true, Logger: log})}
}

// A muxListener is a session whose channels survive Close.
type muxListener struct{ *sspcmux.Session }

// Close implements net.Listener.
func (l muxListener) Close() error {
	l.Refuse()
	return nil
}

// removeStale removes the file of a socket if no process listens on it.
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
