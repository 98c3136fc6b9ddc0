//go:build !linux

package proxy

import "net"

// A pacer waits until a client has read all.
type pacer interface{ wait() error }

// newPacer returns nil: the system does not tell what the peer has read.
func newPacer(net.Conn) pacer { return nil }

// hungUp reports false: the end of the connection is noticed when it is read again.
func hungUp(net.Conn) bool { return false }
