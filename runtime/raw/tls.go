package raw

import (
	"crypto/tls"
	"crypto/x509"
	"time"

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

func server(config *tls.Config, verify PeerVerify, roots *x509.CertPool, verified func(error)) (*tls.Config, error) {
	if !hasCertificate(config) {
		return nil, ErrNoCertificate
	}
	if config.ClientCAs == nil {
		config.ClientCAs = roots
	}
	switch verify {
	case VerifyNone:
		config.ClientAuth = tls.NoClientCert
	case VerifyPeer:
		config.ClientAuth = tls.RequireAndVerifyClientCert
	default:
		config.ClientAuth = tls.RequestClientCert
		query(config, x509.VerifyOptions{Roots: config.ClientCAs, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, verified)
	}
	return config, nil
}

// query makes a handshake verify the certificates of the peer and report the result.
func query(config *tls.Config, o x509.VerifyOptions, verified func(error)) {
	next := config.VerifyConnection
	now := config.Time
	config.VerifyConnection = func(s tls.ConnectionState) error {
		verified(check(s.PeerCertificates, o, now))
		if next != nil {
			return next(s)
		}
		return nil
	}
}

func check(chain []*x509.Certificate, o x509.VerifyOptions, now func() time.Time) error {
	if len(chain) == 0 {
		return ErrNoPeerCertificate
	}
	if now != nil {
		o.CurrentTime = now()
	}
	o.Intermediates = x509.NewCertPool()
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(o)
	return err
}
