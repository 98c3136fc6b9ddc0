package raw

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

func hasCertificate(c *tls.Config) bool {
	return c != nil && (len(c.Certificates) > 0 || c.GetCertificate != nil)
}

// A starter starts TLS on a session with its config. With QueryPeer the handshake
// calls verified with the result of the verification, and does not fail because of
// it. Programs link only the roles that they refer to.
type starter func(s *session, c Config, verified func(error)) (secureConn, error)

// A secureConn is a *tls.Conn, which a program without TLS does not link.
type secureConn interface {
	net.Conn
	HandshakeContext(context.Context) error
	ConnectionState() tls.ConnectionState
}

func startClient(s *session, c Config, verified func(error)) (secureConn, error) {
	config, _, err := s.tlsConfig(c, nil)
	if err != nil {
		return nil, err
	}
	switch c.Verify {
	case VerifyNone, QueryPeer:
		config.InsecureSkipVerify = true
		config.ClientSessionCache = nil // sessions assume a verified peer
	}
	t := s.l.Target()
	config.ClientSessionCache = transport.ByAddress(config.ClientSessionCache, t.Network, t.Address())
	if c.Verify == QueryPeer {
		query(config, x509.VerifyOptions{Roots: config.RootCAs, DNSName: config.ServerName}, verified)
	}
	return tls.Client(&finConn{s.base, &s.fin}, config), nil
}

func startServer(s *session, c Config, verified func(error)) (secureConn, error) {
	config, roots, err := s.tlsConfig(c, s.k.server)
	if err != nil {
		return nil, err
	}
	if config, err = server(config, c.Verify, roots, verified); err != nil {
		return nil, err
	}
	return tls.Server(&finConn{s.base, &s.fin}, config), nil
}

// tlsConfig returns the config of a handshake, and the roots of the policy. server
// is the config with the policy's server_cert, if any.
func (s *session) tlsConfig(c Config, server *tls.Config) (config *tls.Config, roots *x509.CertPool, err error) {
	shared, err := s.setup.TLS(s.ctx)
	if err != nil {
		return nil, nil, err
	}
	config = shared.Clone()
	if c.TLS == nil && server != nil {
		config = server.Clone()
	} else if c.TLS != nil {
		config = c.TLS.Clone()
		if config.RootCAs == nil {
			config.RootCAs = shared.RootCAs
		}
		if len(config.Certificates) == 0 && config.GetClientCertificate == nil {
			config.GetClientCertificate = shared.GetClientCertificate
		}
		config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	}
	config.InsecureSkipVerify, config.GetConfigForClient = false, nil
	if config.ServerName == "" {
		config.ServerName = transport.ServerName(s.l.Target())
	}
	return config, shared.RootCAs, nil
}

// server completes the config of a server.
func server(config *tls.Config, verify PeerVerify, roots *x509.CertPool, verified func(error)) (*tls.Config, error) {
	if !hasCertificate(config) {
		return nil, ErrNoCertificate
	}
	if config.ClientCAs == nil {
		config.ClientCAs = roots
	}
	transport.RequestCertificate(config, verify)
	if verify == VerifyAuto || verify == QueryPeer {
		query(config, x509.VerifyOptions{Roots: config.ClientCAs, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, verified)
	}
	return config, nil
}

// query makes a handshake verify the certificates of the peer and report the
// result.
func query(config *tls.Config, o x509.VerifyOptions, verified func(error)) {
	next := config.VerifyConnection
	now := config.Time
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if now != nil {
			o.CurrentTime = now()
		}
		verified(transport.VerifyChain(s.PeerCertificates, o))
		if next != nil {
			return next(s)
		}
		return nil
	}
}
