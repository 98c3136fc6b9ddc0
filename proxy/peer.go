package proxy

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"

	"github.com/secure-streams/sspolicy/internal/sspcmux"
)

// A Peer is the process at the other end of a link.
type Peer struct {
	// Addr is its address, for tcp.
	Addr net.Addr
	// Known reports whether the system provides PID, UID and GID: on Linux, for a
	// unix socket. They are the values at the time when the process connected.
	Known    bool
	PID      int
	UID, GID uint32
	// Names are the common name and the DNS names of the client's certificate, if
	// the link has TLS.
	Names []string
}

// String returns "uid 1000 gid 1000 pid 4711", the address, or "unknown".
func (p Peer) String() string {
	switch {
	case p.Known:
		return fmt.Sprintf("uid %d gid %d pid %d", p.UID, p.GID, p.PID)
	case len(p.Names) > 0:
		return fmt.Sprintf("%q at %s", p.Names, p.Addr)
	case p.Addr != nil && p.Addr.String() != "":
		return p.Addr.String()
	}
	return "unknown"
}

// LogValue returns String as a slog.Value.
func (p Peer) LogValue() slog.Value { return slog.StringValue(p.String()) }

// key identifies the peer for limits: the user, the host, the serial line, or "" if
// none is known.
func (p Peer) key() string {
	if p.Known {
		return fmt.Sprintf("uid %d", p.UID)
	}
	switch a := p.Addr.(type) {
	case *net.TCPAddr:
		return a.IP.String()
	case sspcmux.Addr:
		return a.String()
	}
	return ""
}

func peerOf(conn net.Conn) Peer {
	p := Peer{Addr: conn.RemoteAddr()}
	if c, ok := conn.(*sspcmux.Channel); ok {
		conn = c.NetConn()
	}
	if u, ok := conn.(*net.UnixConn); ok {
		p.credentials(u)
	}
	return p
}

// authenticate completes the TLS handshake, and sets the names of the client.
func (p *Peer) authenticate(conn net.Conn) error {
	c, ok := conn.(*tls.Conn)
	if !ok {
		return nil
	}
	if err := c.Handshake(); err != nil {
		return err
	}
	if chains := c.ConnectionState().VerifiedChains; len(chains) > 0 {
		leaf := chains[0][0]
		if name := leaf.Subject.CommonName; name != "" {
			p.Names = append(p.Names, name)
		}
		p.Names = append(p.Names, leaf.DNSNames...)
	}
	return nil
}
