package transport

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
)

// ServerTLS returns the TLS config of a server streamtype, or nil if its policy has
// no TLS. alpn holds the protocols to offer (RFC 7301). A session of one streamtype
// is not resumed by another. The error wraps ErrNoCredentials if there is no
// certificate, ErrBadCredentials if the certificate or its key is unusable, or
// ErrUnsupported if client certificates are requested without TLS.
//
// If the credentials of the context have a certificate at the time of the call,
// each handshake requests it from them. If it is then unusable, the latest usable
// one is sent.
func (s *ServerSetup) ServerTLS(alpn ...string) (*tls.Config, error) {
	if !s.Stream.TLS {
		if s.Verify != nil {
			return nil, fmt.Errorf("%w: client certificates without TLS", ErrUnsupported)
		}
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: alpn}
	n := &serverCertificate{setup: s}
	cert, err := n.get(s.Closing())
	switch {
	case err == nil:
		n.latest = cert
		config.GetCertificate = n.getCertificate
	case !errors.Is(err, ErrNoCredentials):
	default:
		if cert, err = s.policyCertificate(); err == nil {
			config.Certificates = []tls.Certificate{*cert}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sspolicy: server certificate: %w", err)
	}
	if sessions := s.config.Sessions; sessions != nil {
		sessions.Server(Scope{Host: s.Stream.Name}, config)
	}
	mode := VerifyNone
	if s.Verify != nil {
		mode = s.Verify.Mode
		config.ClientCAs = s.Verify.Roots
	}
	RequestCertificate(config, mode)
	return config, nil
}

// A serverCertificate is the certificate of a server, from the credentials.
type serverCertificate struct {
	setup *ServerSetup

	mu     sync.Mutex
	latest *tls.Certificate // latest usable one
	failed string           // why the current one is unusable
}

// get returns the current certificate.
func (n *serverCertificate) get(ctx context.Context) (*tls.Certificate, error) {
	source := n.setup.config.Credentials
	if source == nil {
		return nil, ErrNoCredentials
	}
	if limit := n.setup.Limits.HeaderTimeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	cert, err := source.ServerCertificate(ctx, n.setup.Stream.Name)
	switch {
	case err != nil:
		return nil, err
	case cert == nil || len(cert.Certificate) == 0:
		return nil, ErrNoCredentials
	}
	return cert, CheckKeyPair(cert)
}

// getCertificate is for tls.Config.
func (n *serverCertificate) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := n.get(hello.Context())
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil {
		n.latest, n.failed = cert, ""
		return cert, nil
	}
	if text := err.Error(); text != n.failed && hello.Context().Err() == nil {
		n.failed = text
		n.setup.Logger().Warn("sspolicy: the certificate of a server cannot be renewed; the old one stays in use", "streamtype", n.setup.Stream.Name, "err", err)
	}
	return n.latest, nil
}

// policyCertificate returns the certificate of the policy.
func (s *ServerSetup) policyCertificate() (*tls.Certificate, error) {
	st := s.Stream
	if st.ServerCert == nil || st.ServerKey == nil {
		return nil, fmt.Errorf("%w: the policy has no server_cert and server_key, and Options.Credentials has no certificate for %q", ErrNoCredentials, st.Name)
	}
	leaf, err := x509.ParseCertificate([]byte(st.ServerCert.DER))
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrBadCredentials, st.ServerCert.Name, err)
	}
	key, err := ParsePrivateKey([]byte(st.ServerKey.DER))
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrBadCredentials, st.ServerKey.Name, err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, Leaf: leaf, PrivateKey: key}
	return cert, CheckKeyPair(cert)
}

// ParsePrivateKey parses an unencrypted private key in DER: PKCS #8, SEC 1 or PKCS
// #1. The error does not quote it.
func ParsePrivateKey(der []byte) (crypto.PrivateKey, error) {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	return nil, errors.New("not an unencrypted private key")
}

// A PeerVerify selects how the certificates of the peer are verified.
type PeerVerify uint8

// The ways to verify the certificates of the peer.
const (
	// VerifyAuto is VerifyPeer for clients, and QueryPeer for servers.
	VerifyAuto PeerVerify = iota
	// VerifyNone does not verify: a server does not request certificates, a client
	// ignores them.
	VerifyNone
	// QueryPeer reports the result, but accepts every peer. A server requests a
	// certificate.
	QueryPeer
	// VerifyPeer accepts only a peer whose certificate is valid: issued by a
	// trusted root and, for a client, valid for the host name.
	VerifyPeer
)

// ErrNoPeerCertificate is returned when the peer has sent no certificate.
var ErrNoPeerCertificate = errors.New("sspolicy: the peer has no certificate")

// ClientVerify says how a server verifies the certificates of its clients.
type ClientVerify struct {
	Mode  PeerVerify
	Roots *x509.CertPool // nil means those of the operating system
}

// RequestCertificate makes a server with the config request the certificates of its
// clients. With QueryPeer they are not verified.
func RequestCertificate(config *tls.Config, mode PeerVerify) {
	switch mode {
	case VerifyNone:
		config.ClientAuth = tls.NoClientCert
	case VerifyPeer:
		config.ClientAuth = tls.RequireAndVerifyClientCert
	default:
		config.ClientAuth = tls.RequestClientCert
	}
}

// VerifyChain verifies the certificates of a peer. It returns ErrNoPeerCertificate
// if there are none.
func VerifyChain(chain []*x509.Certificate, o x509.VerifyOptions) error {
	if len(chain) == 0 {
		return ErrNoPeerCertificate
	}
	o.Intermediates = x509.NewCertPool()
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(o)
	return err
}

// VerifyClient returns why the certificate of a client is invalid, if certificates
// are requested but accepted without verification, and nil otherwise. The error is
// that of crypto/x509, or ErrNoPeerCertificate.
func (s *ServerSetup) VerifyClient(state *tls.ConnectionState) error {
	if state == nil || s.Verify == nil || s.Verify.Mode == VerifyNone || s.Verify.Mode == VerifyPeer {
		return nil
	}
	return VerifyChain(state.PeerCertificates, x509.VerifyOptions{Roots: s.Verify.Roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}
