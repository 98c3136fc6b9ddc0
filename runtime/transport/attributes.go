package transport

import (
	"errors"
	"net"
	"syscall"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// attributes holds the attr_ keys of a streamtype: properties of its packets.
type attributes struct {
	priority uint8 // SO_PRIORITY, 0 to 7; 0 is the default
	tos      uint8 // type of service
}

// The bits of the type of service (RFC 1349 section 4) that lws sets for the attr_
// keys (lib/plat/unix/unix-sockets.c; disabled in lws 5.0.0).
const (
	tosLowDelay        = 0x10
	tosHighThroughput  = 0x08
	tosHighReliability = 0x04
	tosLowCost         = 0x02
)

func attributesOf(st *policy.StreamType) attributes {
	a := attributes{priority: st.Priority}
	for _, bit := range []struct {
		set bool
		tos uint8
	}{
		{st.AttrLowLatency, tosLowDelay},
		{st.AttrHighThroughput, tosHighThroughput},
		{st.AttrHighReliability, tosHighReliability},
		{st.AttrLowCost, tosLowCost},
	} {
		if bit.set {
			a.tos |= bit.tos
		}
	}
	return a
}

// control is the Control of a net.Dialer: it sets the attributes of a socket. It
// returns nil, since the connection is usable without them.
func (d Dialer) control(_, _ string, conn syscall.RawConn) error {
	var err error
	if outer := conn.Control(func(fd uintptr) { err = d.attributes.set(fd) }); err == nil {
		err = outer
	}
	if err != nil {
		d.warn(err)
	}
	return nil
}

// mark sets the attributes of a connection made by Options.DialContext.
func (d Dialer) mark(conn net.Conn) {
	if d.attributes == (attributes{}) {
		return
	}
	var raw syscall.RawConn
	err := errNoSocket
	if c, ok := conn.(syscall.Conn); ok {
		raw, err = c.SyscallConn()
	}
	if err != nil {
		d.warn(err)
		return
	}
	_ = d.control("", "", raw)
}

var errNoSocket = errors.New("the connection from Options.DialContext is not a syscall.Conn")

// warn logs once for each value of the attributes that they have no effect.
func (d Dialer) warn(err error) {
	if _, known := d.env.ineffective.LoadOrStore(d.attributes, true); !known {
		d.env.Logger().Warn("sspolicy: attr_ keys of the policy have no effect on connections",
			"attr_priority", d.attributes.priority, "type of service", d.attributes.tos, "err", err)
	}
}
