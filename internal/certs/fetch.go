package certs

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Fetch connects to a TLS server and returns its certificates without verifying
// them. host is the server name to request. The handshake may fail after that, as
// with a server that requires a client certificate.
func Fetch(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), address, host string, protos []string) ([]*x509.Certificate, error) {
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var chain []*x509.Certificate
	client := tls.Client(conn, &tls.Config{
		ServerName: host, NextProtos: protos,
		MinVersion:         tls.VersionTLS10, // to get the certificates of old servers too
		InsecureSkipVerify: true,             // the certificates are not trusted, only examined
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			for _, der := range raw {
				c, err := x509.ParseCertificate(der)
				if err != nil {
					return fmt.Errorf("certificate %d: %w", len(chain)+1, err)
				}
				chain = append(chain, c)
			}
			return nil
		},
	})
	err = client.HandshakeContext(ctx)
	if len(chain) > 0 {
		return chain, nil
	}
	if err == nil {
		err = errors.New("the server showed no certificate")
	}
	return nil, err
}

// Fingerprint returns the SHA-256 of a certificate, in the form of openssl.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	text := strings.ToUpper(hex.EncodeToString(sum[:]))
	var parts []string
	for i := 0; i < len(text); i += 2 {
		parts = append(parts, text[i:i+2])
	}
	return strings.Join(parts, ":")
}

// Days returns the whole days until a certificate expires; they are negative after
// it.
func Days(c *x509.Certificate, at time.Time) int {
	d := c.NotAfter.Sub(at)
	days := int(d / (24 * time.Hour))
	if d < 0 {
		days--
	}
	return days
}
