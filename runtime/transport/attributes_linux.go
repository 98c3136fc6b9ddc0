package transport

import (
	"errors"
	"os"
	"syscall"
)

// set sets the attributes of a socket.
func (a attributes) set(fd uintptr) error {
	var errs []error
	option := func(level, name int, value uint8) {
		if value != 0 {
			errs = append(errs, os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), level, name, int(value))))
		}
	}
	addr, err := syscall.Getsockname(int(fd))
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	switch addr.(type) {
	case *syscall.SockaddrInet4:
		option(syscall.IPPROTO_IP, syscall.IP_TOS, a.tos)
	case *syscall.SockaddrInet6:
		option(syscall.IPPROTO_IPV6, syscall.IPV6_TCLASS, a.tos)
	}
	// The last, since IP_TOS sets a priority too.
	option(syscall.SOL_SOCKET, syscall.SO_PRIORITY, a.priority)
	return errors.Join(errs...)
}
