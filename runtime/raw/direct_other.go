//go:build !unix

package raw

import "net"

// A directConn exists on unix systems only.
type directConn struct{}

func newDirectConn(net.Conn) *directConn { return nil }

func (*directConn) read() ([]byte, error)           { panic("unreachable") }
func (*directConn) write([]byte, bool) (int, error) { panic("unreachable") }
func (*directConn) take() *[largeBuffer]byte        { panic("unreachable") }
func (*directConn) release()                        {}
