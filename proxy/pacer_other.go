//go:build !linux

package proxy

import "net"

// newPacer returns nil: the system does not tell what the peer has read.
func newPacer(net.Conn) pacer { return nil }

// hungUp reports false: the end of the connection is noticed when it is read again.
func hungUp(net.Conn) bool { return false }
