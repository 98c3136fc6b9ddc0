package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A certAndKey is a certificate and its key.
type certAndKey struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue issues a certificate for a common name. A nil issuer makes it self-signed.
func issue(t *testing.T, name string, by *certAndKey, change func(*x509.Certificate)) *certAndKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &certAndKey{cert, key}
}

// handshake returns the error of a client that connects to a server with a chain
// of certificates.
func handshake(t *testing.T, trusted *certAndKey, chain ...*certAndKey) error {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(trusted.cert)
	cert := tls.Certificate{PrivateKey: chain[0].key}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.cert.Raw)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			_ = c.(*tls.Conn).Handshake() // fails like that of the client
			c.Close()
		}
	}()
	c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "device.example.com"})
	if err == nil {
		c.Close()
	}
	return err
}

// TestExplainTLS checks that errors of real handshakes say what to do.
func TestExplainTLS(t *testing.T) {
	named := func(c *x509.Certificate) { c.DNSNames = []string{"device.example.com"} }
	root, other := issue(t, "root", nil, nil), issue(t, "other", nil, nil)
	middle := issue(t, "middle", root, nil)
	low := issue(t, "low", middle, nil)
	for _, test := range []struct {
		name    string
		trusted *certAndKey
		chain   []*certAndKey
		want    string
	}{
		{"common name alone", root, []*certAndKey{issue(t, "device.example.com", root, nil)},
			`the certificate has only the common name "device.example.com", which clients no longer read: it needs device.example.com as a subject alternative name`},
		{"another name", root, []*certAndKey{issue(t, "x", root, func(c *x509.Certificate) { c.DNSNames = []string{"a.example.com"} })},
			`x509: certificate is valid for a.example.com, not device.example.com`},
		{"not yet valid", root, []*certAndKey{issue(t, "device", root, func(c *x509.Certificate) { named(c); c.NotBefore = time.Now().Add(30 * time.Minute) })},
			`certificate "CN=device" is not valid before * UTC, and the clock of this machine says * UTC: is the clock right?`},
		{"expired", root, []*certAndKey{issue(t, "device", root, func(c *x509.Certificate) { named(c); c.NotAfter = time.Now().Add(-time.Minute) })},
			`certificate "CN=device" expired at * UTC, and the clock of this machine says * UTC`},
		{"issuer not sent", root, []*certAndKey{issue(t, "device", low, named)},
			`certificate signed by unknown authority: no certificate of "CN=low" is trusted, which issued that of "CN=device"`},
		{"issuer of an issuer not sent", root, []*certAndKey{issue(t, "device", low, named), low},
			`no certificate of "CN=middle" is trusted, which issued that of "CN=low"`},
		{"another root", other, []*certAndKey{issue(t, "device", low, named), low, middle},
			`no certificate of "CN=root" is trusted, which issued that of "CN=middle"`},
		{"another root, sent", other, []*certAndKey{issue(t, "device", middle, named), middle, root},
			`the self-signed certificate "CN=root" is not trusted`},
		{"self-signed", other, []*certAndKey{issue(t, "device", nil, named)},
			`the self-signed certificate "CN=device" is not trusted`},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := handshake(t, test.trusted, test.chain...)
			if err == nil {
				t.Fatal("no error")
			}
			got := explainTLS(fmt.Errorf("attempt: %w", err))
			if !strings.HasPrefix(got, "attempt: tls: failed to verify certificate: ") {
				t.Errorf("got %q", got)
			}
			rest := got
			for _, part := range strings.Split(test.want, "*") {
				i := strings.Index(rest, part)
				if i < 0 {
					t.Fatalf("got %q, want %q", got, test.want)
				}
				rest = rest[i+len(part):]
			}
		})
	}
	if got := explainTLS(errors.New("other")); got != "other" {
		t.Errorf("got %q", got)
	}
}

// TestClock checks the message when the clock is in 1970, as on a device without a battery.
func TestClock(t *testing.T) {
	c := issue(t, "device", nil, nil).cert
	got := explainTime(c, time.Unix(60, 0))
	if !strings.Contains(got, "the clock of this machine says 1970-01-01 00:01:00 UTC: is the clock right?") {
		t.Errorf("got %q", got)
	}
}

func TestTrustHint(t *testing.T) {
	err := handshake(t, issue(t, "other", nil, nil), issue(t, "device", nil, func(c *x509.Certificate) { c.DNSNames = []string{"device.example.com"} }))
	for _, test := range []struct {
		st   *policy.StreamType
		want string
	}{
		{&policy.StreamType{Protocol: policy.ProtocolProxied}, "(--proxy-ca names the certificates to trust)"},
		{&policy.StreamType{}, "(without tls_trust_store, only the system's certificates are trusted)"},
		{&policy.StreamType{TrustStore: &policy.TrustStore{Name: "ours"}}, `(tls_trust_store is "ours": only its certificates are trusted)`},
	} {
		if got := trustHint(err, test.st); !strings.HasSuffix(got, test.want) {
			t.Errorf("got %q", got)
		}
	}
}
