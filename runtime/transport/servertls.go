package transport

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// ServerTLS returns the TLS config of a server streamtype, or nil if the policy says
// no TLS. alpn are the protocols that it offers (RFC 7301). A session of one streamtype
// is not resumed by another. The error wraps ErrNoCredentials if there is no
// certificate, or ErrBadCredentials if the certificate or its key cannot be used.
func (s *ServerSetup) ServerTLS(alpn ...string) (*tls.Config, error) {
	if !s.Stream.TLS {
		return nil, nil
	}
	cert, err := s.serverCertificate()
	if err != nil {
		return nil, fmt.Errorf("sspolicy: server certificate: %w", err)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   alpn,
		Certificates: []tls.Certificate{*cert},
	}
	if sessions := s.config.Sessions; sessions != nil {
		sessions.Server(Scope{Host: s.Stream.Name}, config)
	}
	return config, nil
}

// serverCertificate returns the certificate of the policy.
func (s *ServerSetup) serverCertificate() (*tls.Certificate, error) {
	st := s.Stream
	if st.ServerCert == nil || st.ServerKey == nil {
		return nil, fmt.Errorf("%w: the policy has no server_cert and server_key", ErrNoCredentials)
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
