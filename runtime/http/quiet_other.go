//go:build !unix

package http

import (
	"net"
	"syscall"
)

// rawConn returns nil: package syscall cannot examine the input of a socket.
func rawConn(net.Conn) syscall.RawConn { return nil }

func isQuiet(syscall.RawConn) bool { return true }
