package transport

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
)

// set sets the attributes of the socket fd.
func (a attributes) set(fd uintptr) error {
	addr, err := syscall.Getsockname(int(fd))
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	var tosErr, priorityErr error
	if a.tos != 0 {
		switch addr := addr.(type) {
		case *syscall.SockaddrInet4:
			tosErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TOS, int(a.tos))
		case *syscall.SockaddrInet6:
			if netip.AddrFrom16(addr.Addr).Is4In6() { // from a server on all addresses
				tosErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TOS, int(a.tos))
			} else {
				tosErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_TCLASS, int(a.tos))
			}
		}
	}
	if a.priority != 0 { // after IP_TOS, which sets a priority too
		priorityErr = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PRIORITY, int(a.priority))
	}
	return os.NewSyscallError("setsockopt", errors.Join(tosErr, priorityErr))
}
