package faulttest

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
)

// Faults of names, routes and proxies.
var (
	DNSNXDomain = &Fault{
		Name: "dns-nxdomain", Family: "network", Summary: "The name of the server does not exist",
		Why:       "The release has a typo, the domain has expired, or a resolver blocks the name. The answer is fast and final, but the device still retries.",
		misbehave: func(p *peer) *behavior { return &behavior{resolve: new(3)} },
		expect:    fails,
		Cause:     "no such host",
	}
	DNSServfail = &Fault{
		Name: "dns-servfail", Family: "network", Summary: "The name server fails",
		Why:       "The zone or the resolver of the network is broken, often only for minutes.",
		misbehave: func(p *peer) *behavior { return &behavior{resolve: new(2)} },
		expect:    fails,
		Cause:     "server misbehaving",
	}
	DNSSilent = &Fault{
		Name: "dns-silent", Family: "network", Summary: "The name server does not answer",
		Why:       "The device has an address, but a captive portal or a firewall drops its packets. The resolver's own timeouts add to those of the policy.",
		misbehave: func(p *peer) *behavior { return &behavior{resolve: new(-1)} },
		expect:    fails,
		Cause:     timedOut,
	}
	NoNetwork = &Fault{
		Name: "no-network", Family: "network", H3: true, Summary: "There is no route to the server",
		Why:       "The cable is unplugged, or the radio has not joined yet, as on each device after power on. Attempts fail at once, so only the backoff keeps the device from spinning.",
		misbehave: func(p *peer) *behavior { return &behavior{address: "255.255.255.255:9"} },
		expect:    fails,
	}
	SOCKSRefused = &Fault{
		Name: "socks-refused", Family: "network", Summary: "The SOCKS5 proxy refuses to connect",
		Why:    "The proxy of the site does not know the device, or cannot reach the server.",
		Params: []Param{{Name: "reply", Help: "The reply of the proxy (RFC 1928, section 6).", Default: "5", Min: 1, Max: 8}},
		misbehave: func(p *peer) *behavior {
			return &behavior{socks: func(c net.Conn) { p.refuseSOCKS(c, byte(p.args.int("reply"))) }}
		},
		expect: fails,
	}
)

var networkFaults = []*Fault{NoNetwork, DNSNXDomain, DNSServfail, DNSSilent, SOCKSRefused}

// refuseSOCKS is a SOCKS5 proxy that refuses each request.
func (p *peer) refuseSOCKS(c net.Conn, reply byte) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, c, int64(head[1])); err != nil {
		return
	}
	c.Write([]byte{5, 0})
	request := make([]byte, 4)
	if _, err := io.ReadFull(c, request); err != nil {
		return
	}
	length := int64(4)
	switch request[3] {
	case 3:
		n := make([]byte, 1)
		if _, err := io.ReadFull(c, n); err != nil {
			return
		}
		length = int64(n[0])
	case 4:
		length = 16
	}
	if _, err := io.CopyN(io.Discard, c, length+2); err != nil {
		return
	}
	p.strike("the proxy answers %d", reply)
	c.Write([]byte{5, reply, 0, 1, 0, 0, 0, 0, 0, 0})
	p.hold(c)
}

// unknownHost is a name that cannot be resolved (RFC 2606).
const unknownHost = "faulttest.invalid"

// startResolver starts a name server that answers each query with a code, or does
// not answer if code is negative, and makes the target resolve names there.
func (p *peer) startResolver(t *Target, code int) error {
	pc, err := net.ListenPacket("udp", p.options.listen())
	if err != nil {
		return err
	}
	p.onClose(func() { pc.Close() })
	p.wg.Go(func() { p.answerDNS(pc, code) })
	d := &net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}}
	t.host, t.port, t.DialContext = unknownHost, p.port, d.DialContext
	p.logf("name server on %v", pc.LocalAddr())
	return nil
}

func (p *peer) answerDNS(pc net.PacketConn, code int) {
	buf := make([]byte, 1500)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		if n < 12 {
			continue
		}
		q := buf[:n]
		// Copy the header and the question, without additional records.
		end := 12
		for end < n && q[end] != 0 {
			end += 1 + int(q[end])
		}
		if end += 5; end > n {
			continue
		}
		if code < 0 {
			p.strike("a query is not answered")
			continue
		}
		p.strike("a query is answered with %s", rcode(code))
		q = slices.Clone(q[:end])
		binary.BigEndian.PutUint16(q[2:], 0x8180|uint16(code))
		clear(q[6:12])
		pc.WriteTo(q, from)
	}
}

func rcode(code int) string {
	switch code {
	case 2:
		return "SERVFAIL"
	case 3:
		return "NXDOMAIN"
	}
	return fmt.Sprint(code)
}
