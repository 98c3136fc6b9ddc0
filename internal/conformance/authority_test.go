//go:build linux

package conformance

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
	"time"

	"github.com/secure-streams/sspolicy/runtime"
)

// An authority signs the certificates of servers.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	name string
}

func newAuthority(name string) *authority {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))
	return &authority{must(x509.ParseCertificate(der)), key, name}
}

// store returns a trust store of a policy with just this authority.
func (a *authority) store() *runtime.TrustStore {
	return &runtime.TrustStore{Name: a.name, Stack: []*runtime.Cert{{Name: a.name, DER: string(a.cert.Raw)}}}
}

// certify returns a certificate for the names, good from notBefore for a day.
// A nil authority makes one that is signed by itself.
func (a *authority) certify(key crypto.Signer, notBefore time.Time, names ...string) tls.Certificate {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"},
		NotBefore: notBefore, NotAfter: notBefore.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	parent, signer := tmpl, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func ecdsaKey() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

// ed25519Key returns a key whose signatures are all of one length.
func ed25519Key() crypto.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return must(key, err)
}

// writePEM writes a certificate and its key to one file.
func writePEM(path string, c tls.Certificate) {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	key := must(x509.MarshalPKCS8PrivateKey(c.PrivateKey))
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		panic(err)
	}
}
