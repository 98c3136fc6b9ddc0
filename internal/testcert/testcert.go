// Package testcert makes certificates for tests. It panics on errors.
package testcert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// An Authority signs certificates.
type Authority struct {
	Name string
	Cert *x509.Certificate
	key  crypto.Signer
}

// New returns an authority with a new key. It is valid for 100 years.
func New(name string) *Authority {
	key := Key()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))
	return &Authority{name, must(x509.ParseCertificate(der)), key}
}

// PEM returns the certificate of the authority.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Cert.Raw})
}

// KeyPEM returns the certificate of the authority and its key, for Parse.
func (a *Authority) KeyPEM() []byte {
	key := must(x509.MarshalPKCS8PrivateKey(a.key))
	return append(a.PEM(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
}

// Parse returns the authority that KeyPEM has encoded.
func Parse(text []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	return &Authority{pair.Leaf.Subject.CommonName, pair.Leaf, pair.PrivateKey.(crypto.Signer)}, nil
}

// Pool returns a pool that contains only the authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// Store returns a policy's trust store that contains only the authority.
func (a *Authority) Store() *policy.TrustStore {
	return &policy.TrustStore{Name: a.Name, Stack: []*policy.Cert{{Name: a.Name, DER: string(a.Cert.Raw)}}}
}

// Certify returns a server certificate for the names, hosts or IP addresses. It is valid
// for a day from notBefore. A nil authority makes it self-signed.
func (a *Authority) Certify(key crypto.Signer, notBefore time.Time, names ...string) tls.Certificate {
	return a.Issue(func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = notBefore, notBefore.Add(24*time.Hour)
		c.DNSNames, c.IPAddresses = Split(names)
	}, key)
}

// Issue returns a server certificate without names that is valid for a day around now,
// after change has changed it. A nil authority makes it self-signed.
func (a *Authority) Issue(change func(*x509.Certificate), key crypto.Signer) tls.Certificate {
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"},
		NotBefore: now.Add(-12 * time.Hour), NotAfter: now.Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(tmpl)
	parent, signer := tmpl, key
	if a != nil {
		parent, signer = a.Cert, a.key
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Split divides names into hosts and IP addresses.
func Split(names []string) (hosts []string, ips []net.IP) {
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			ips = append(ips, ip)
		} else {
			hosts = append(hosts, n)
		}
	}
	return hosts, ips
}

// Intermediate returns an authority that a has certified.
func (a *Authority) Intermediate(name string) *Authority {
	key := Key()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, a.Cert, key.Public(), a.key))
	return &Authority{name, must(x509.ParseCertificate(der)), key}
}

// Server returns the config of a server with these names and a valid certificate. protos
// are its ALPN protocols.
func (a *Authority) Server(protos []string, names ...string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{a.Certify(Key(), time.Now().Add(-time.Hour), names...)},
		NextProtos:   protos,
	}
}

// Client returns a client certificate with the serial number, valid for an hour.
func (a *Authority) Client(serial int64) *tls.Certificate {
	key := Key()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, a.Cert, key.Public(), a.key))
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// KeyDER returns the private key of a certificate, in PKCS #8.
func KeyDER(c tls.Certificate) []byte { return must(x509.MarshalPKCS8PrivateKey(c.PrivateKey)) }

// Key returns a new ECDSA key.
func Key() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

// Ed25519Key returns a new Ed25519 key. Its signatures have a fixed length.
func Ed25519Key() crypto.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return must(key, err)
}

// WritePEM writes a certificate and its key to one PEM file.
func WritePEM(path string, c tls.Certificate) {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	key := KeyDER(c)
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		panic(err)
	}
}

// SystemRoots makes the authority the only system root of this process, provided that the
// process has not verified a certificate. remove removes a temporary file.
func (a *Authority) SystemRoots() (remove func()) {
	dir := must(os.MkdirTemp("", "sspolicy"))
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, a.PEM(), 0o644); err != nil {
		panic(err)
	}
	os.Setenv("SSL_CERT_FILE", roots)
	os.Setenv("SSL_CERT_DIR", filepath.Join(dir, "none"))
	return func() { os.RemoveAll(dir) }
}
