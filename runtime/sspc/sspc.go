// Package sspc lets a Secure Streams proxy execute the streams of a program. The
// program then needs no policy: the proxy has the policy and the secrets. The proxy
// may be that of libwebsockets (lws) or of this module; the protocol is that of
// lws.
//
//	proxy, err := sspc.New("unix:@proxy.ss.lws", sspc.Options{})
//	...
//	c, err := runtime.NewContext(nil, runtime.Options{Proxy: proxy})
//	...
//	response, err := c.Fetch(ctx, "get_weather", runtime.WithMetadata("city", "Paris"))
//
// Each stream has a link to the proxy. NewStream does not wait for it. Without a
// link, the stream receives UPSTREAM_LINK_RETRY about once a second, and its
// requests wait. If the link of a connected stream is lost, the stream receives
// DISCONNECTED first. The next link begins with all settings in force: metadata,
// the timeout, and a request for a connection if there was one or an attempt,
// unless the policy of the program sets opportunistic. So streams survive a restart
// of the proxy.
//
// A streamtype that the proxy refuses can be retried like a peer that cannot be
// reached: a request to connect is answered with UNREACHABLE, where [Stream.Err]
// returns [runtime.ErrUnknownStreamType], and ALL_RETRIES_FAILED.
//
// A proxy of this module reports the protocol to the peer, the HTTP status, and the
// cause of an error. That of lws does not. Without a description of the streamtype
// (see runtime.Options.Proxy) the functions of calls have to guess: a Conn sends
// each Write as a message and ends with its connection; a Fetch over ws takes a
// second longer.
//
// [Stream.Err]:
// https://pkg.go.dev/github.com/secure-streams/sspolicy/runtime#Stream.Err
package sspc

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"

	"github.com/secure-streams/sspolicy/internal/sspcmux"
	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// DefaultAddress is the address on which the proxy of lws listens on Linux.
const DefaultAddress = sspcwire.DefaultAddress

// Options configure a [Proxy]. The zero value is ready to use.
type Options struct {
	// TLS is the TLS config for an address with "tls:": trusted roots and a client
	// certificate. Nil means the roots of the operating system. If ServerName is
	// empty, it is set to the host of the address.
	TLS *tls.Config

	// SOCKS5 is a proxy to a tcp or tls address, "[user:password@]host[:port]", as
	// in via-socks5.
	SOCKS5 string
}

// A Proxy is a Secure Streams proxy for runtime.Options.Proxy.
type Proxy struct {
	address sspcwire.Address
	tls     *tls.Config // nil means none
	socks5  string
	line    *line // carries all links; nil if each has a connection
}

var _ transport.Driver = (*Proxy)(nil)

// New returns the proxy at an address: "unix:@NAME" for an abstract socket on
// Linux, "unix:/PATH", "tcp:HOST:PORT", "tls:HOST:PORT" for TLS over tcp, which the
// proxy of lws does not support, or "mux:/DEVICE" or "mux:/DEVICE@SPEED" for a serial
// line that carries all links. It does not connect.
func New(address string, o Options) (*Proxy, error) {
	a, err := sspcwire.ParseAddress(address)
	if err != nil {
		return nil, fmt.Errorf("sspolicy: %w", err)
	}
	p := &Proxy{address: a, socks5: o.SOCKS5}
	if a.Network == "mux" {
		p.line = &line{open: func(context.Context) (io.ReadWriteCloser, error) {
			return sspcmux.OpenDevice(a.Host, a.Speed)
		}}
	}
	switch {
	case a.TLS:
		p.tls = o.TLS.Clone()
		if p.tls == nil {
			p.tls = new(tls.Config)
		}
		if p.tls.ServerName == "" {
			p.tls.ServerName, _, _ = net.SplitHostPort(a.Host)
		}
	case o.TLS != nil:
		return nil, fmt.Errorf("sspolicy: address %q of a proxy is not for TLS: want tls:HOST:PORT", address)
	}
	if o.SOCKS5 != "" {
		if a.Network != "tcp" {
			return nil, fmt.Errorf("sspolicy: a SOCKS5 proxy cannot connect to %s", a)
		}
		if _, err := policy.ParseProxy(o.SOCKS5); err != nil {
			return nil, fmt.Errorf("sspolicy: SOCKS5 proxy: %w", err)
		}
	}
	return p, nil
}

// Default returns the proxy at [DefaultAddress].
func Default() *Proxy {
	p, err := New(DefaultAddress, Options{})
	if err != nil {
		panic(err) // the address is constant
	}
	return p
}

// NewMux returns the proxy at the other end of a byte stream, which carries all links, by
// the transport mux of lws 5.0. open opens the stream when there is a stream to execute,
// and again after it has ended. The Proxy closes it when no context uses the Proxy.
func NewMux(open func(context.Context) (io.ReadWriteCloser, error)) *Proxy {
	return &Proxy{address: sspcwire.Address{Network: "mux", Host: "line"}, line: &line{open: open}}
}

// String returns the network and address.
func (p *Proxy) String() string { return p.address.String() }

// Drive implements transport.Driver.
func (p *Proxy) Drive(s *transport.Setup) (transport.Remote, error) {
	name := s.Stream.Name
	if _, err := sspcwire.AppendStreamType(nil, sspcwire.StreamType{Name: name}); err != nil {
		return nil, fmt.Errorf("%w: a proxy accepts names of 1 to %d bytes", policy.ErrUnknownStreamType, sspcwire.MaxStreamType)
	}
	dialer, err := s.Env.Dialer(&policy.StreamType{SOCKS5Proxy: p.socks5})
	if err != nil {
		return nil, err
	}
	if p.line != nil {
		p.line.use()
	}
	return &remote{proxy: p, setup: s, dialer: dialer}, nil
}
