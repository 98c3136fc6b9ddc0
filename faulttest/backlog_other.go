//go:build !unix

package faulttest

import (
	"errors"
	"net"
)

// canFill reports whether fullListener works on this system.
const canFill = false

// fullListener fails: this system has no way to bound the queue of a listener.
func fullListener(string, func(func())) (*net.TCPListener, error) {
	return nil, errors.ErrUnsupported
}
