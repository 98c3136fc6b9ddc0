package proxy

import (
	"crypto/tls"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// A pacer waits until a client has read all.
type pacer interface{ wait() error }

// newPacer returns a pacer for a unix socket. Other connections have none: the system
// does not tell what the peer has read.
func newPacer(conn net.Conn) pacer {
	if _, ok := conn.(*net.UnixConn); !ok {
		return nil
	}
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil
	}
	return unixPacer{raw}
}

type unixPacer struct{ raw syscall.RawConn }

// wait relies on the write readiness that a unix socket signals each time that the peer
// has read a piece.
func (p unixPacer) wait() error {
	return p.raw.Write(func(fd uintptr) bool {
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCOUTQ)
		return err != nil || n == 0
	})
}

// hungUp reports whether the peer of a connection that is not read has closed it.
func hungUp(conn net.Conn) bool {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n > 0
	})
	return gone || err != nil
}
