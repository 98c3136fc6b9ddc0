package raw

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

func hasCertificate(c *tls.Config) bool {
	return c != nil && (len(c.Certificates) > 0 || c.GetCertificate != nil)
}

// tlsConfig returns the config of a handshake. Under QueryPeer the handshake calls
// verified with the result of the verification, which does not fail it.
func (s *session) tlsConfig(c Config, mode Mode, verified func(error)) (*tls.Config, error) {
	shared, err := s.setup.TLS(s.ctx)
	if err != nil {
		return nil, err
	}
	config := shared.Clone()
	if k := s.k; c.TLS == nil && mode == Server && k.server != nil {
		config = k.server.Clone()
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
	if mode == Server {
		return server(config, c.Verify, shared.RootCAs, verified)
	}
	switch c.Verify {
	case VerifyNone, QueryPeer:
		config.InsecureSkipVerify = true
		config.ClientSessionCache = nil // sessions assume a verified peer
	}
	if c.Verify == QueryPeer {
		query(config, x509.VerifyOptions{Roots: config.RootCAs, DNSName: config.ServerName}, verified)
	}
	return config, nil
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

// query makes a handshake verify the certificates of the peer and report the result.
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
