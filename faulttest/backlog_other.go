//go:build !unix

package faulttest

import (
	"errors"
	"net"
)

// canFill reports whether fullListener works on this system.
const canFill = false

// fullListener fails: on this system the queue of a listener cannot be limited.
func fullListener(string, func(func())) (*net.TCPListener, error) {
	return nil, errors.ErrUnsupported
}
