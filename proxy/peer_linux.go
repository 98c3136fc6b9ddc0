package proxy

import (
	"net"

	"golang.org/x/sys/unix"
)

// credentials sets the IDs from SO_PEERCRED.
func (p *Peer) credentials(conn *net.UnixConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		c, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			p.Known, p.PID, p.UID, p.GID = true, int(c.Pid), c.Uid, c.Gid
		}
	})
}
