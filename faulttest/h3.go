package faulttest

import (
	"log/slog"
	"net"

	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/faulttest/link"
)

// startH3 starts an HTTP/3 server with the behavior.
func (p *peer) startH3(t *Target, b *behavior) error {
	address := p.options.listen()
	if b.link != nil {
		address = "127.0.0.1:0"
	}
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	p.onClose(func() { pc.Close() })
	addr := pc.LocalAddr().(*net.UDPAddr)
	t.host, t.port = addr.IP.String(), uint16(addr.Port)
	if b.link != nil {
		proxy, err := link.ListenUDP(p.options.listen(), addr, func() link.Fault {
			f := b.link()
			f.Strike = func(what string) { p.strike("%s", what) }
			return f
		})
		if err != nil {
			return err
		}
		p.onClose(proxy.Close)
		t.host, t.port = proxy.Addr().Addr().String(), proxy.Addr().Port()
	}
	config := p.config()
	if b.tls != nil {
		b.tls(config)
	}
	config = http3.ConfigureTLSConfig(config)
	server := &http3.Server{Handler: p.handler(b), TLSConfig: config, Logger: slog.New(slog.DiscardHandler)}
	p.onClose(func() { server.Close() })
	p.wg.Go(func() { server.Serve(pc) })
	return nil
}
