//go:build linux

package conformance

import (
	"net"

	"github.com/secure-streams/sspolicy/faulttest/link"
	"github.com/secure-streams/sspolicy/internal/teststream"
)

// breaks are the ways to break a connection.
var breaks = []struct {
	name string
	link.Fault
}{
	{"reset/request", link.Fault{Kind: link.Reset}}, {"reset/reply", link.Fault{Kind: link.Reset, Reply: true}},
	{"shut/request", link.Fault{Kind: link.FIN}}, {"shut/reply", link.Fault{Kind: link.FIN, Reply: true}},
}

// newProxy returns a proxy in front of a server.
func newProxy(server string, plan func() link.Fault) *link.Proxy {
	return teststream.Must(link.Listen("127.0.0.1:0", server, plan))
}

// newUDP is newProxy for UDP.
func newUDP(server *net.UDPAddr, plan func() link.Fault) *link.UDPProxy {
	return teststream.Must(link.ListenUDP("127.0.0.1:0", server, plan))
}
