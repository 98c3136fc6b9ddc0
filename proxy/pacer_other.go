//go:build !linux

package proxy

import "net"

// newPacer returns nil: the system does not report what the peer has read.
func newPacer(net.Conn) pacer { return nil }

// hungUp returns false: the end of the connection is noticed at the next read.
func hungUp(net.Conn) bool { return false }
