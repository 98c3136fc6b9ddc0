//go:build unix

package http

import (
	"net"
	"syscall"
)

// rawConn returns a connection for isQuiet, or nil.
func rawConn(c net.Conn) syscall.RawConn {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// isQuiet reports whether a connection is open and has nothing to read.
func isQuiet(raw syscall.RawConn) bool {
	var quiet bool
	err := raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && quiet
}
