package proxy

import (
	"fmt"
	"net"
)

// A Peer is the process at the other end of a link.
type Peer struct {
	// Addr is its address, for tcp.
	Addr net.Addr
	// Known reports whether the system has told PID, UID and GID: on Linux, for a
	// unix socket. They are those of the time when the process connected.
	Known    bool
	PID      int
	UID, GID uint32
}

// String returns "uid 1000 gid 1000 pid 4711", the address, or "unknown".
func (p Peer) String() string {
	switch {
	case p.Known:
		return fmt.Sprintf("uid %d gid %d pid %d", p.UID, p.GID, p.PID)
	case p.Addr != nil && p.Addr.String() != "":
		return p.Addr.String()
	}
	return "unknown"
}

func peerOf(conn net.Conn) Peer {
	p := Peer{Addr: conn.RemoteAddr()}
	if u, ok := conn.(*net.UnixConn); ok {
		p.credentials(u)
	}
	return p
}
