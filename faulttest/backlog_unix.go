//go:build unix

package faulttest

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// canFill reports whether fullListener works on this system.
const canFill = true

// fullListener returns a listening socket whose queue is full.
func fullListener(address string, onClose func(func())) (*net.TCPListener, error) {
	addr, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	ip := addr.IP.To4()
	if ip == nil {
		return nil, errors.New("the fault needs an IPv4 address to listen on")
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte(ip), Port: addr.Port}), syscall.Listen(fd, 0)); err != nil {
		return nil, err
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	onClose(func() { ln.Close() })
	for range 16 {
		c, err := net.DialTimeout("tcp", ln.Addr().String(), 50*time.Millisecond)
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
				return nil, err
			}
			return ln.(*net.TCPListener), nil
		}
		onClose(func() { c.Close() })
	}
	return nil, errors.New("the queue of a listener does not fill on this system")
}
