// Package certs reads, checks and edits the certificates of a policy. Only Fetch
// accesses the network.
package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/secure-streams/sspolicy/schema"
)

// An Entry is a definition in the certs section of a policy.
type Entry struct {
	Name string
	Span schema.Span       // of the name
	Cert *x509.Certificate // nil if the entry is not a certificate; see Err
	Err  error
	Uses []Use
}

// A Use is the purpose of a certificate.
type Use struct {
	Store   string   // a trust store that holds it, or ""
	Streams []string // the streamtypes that use the store, or that show the certificate
}

var (
	errNotBase64 = errors.New("not base64")
	errKey       = errors.New("a private key")
	errNotCert   = errors.New("not an X.509 certificate")
)

// List returns the certificates of a policy, in the order of the text. A certificate
// that two trust stores hold has two uses.
func List(p *schema.Policy) (all []*Entry) {
	byDefinition := map[*schema.Definition]*Entry{}
	for _, d := range p.Section(schema.Certs) {
		e := &Entry{Name: d.Name, Span: d.NameSpan}
		e.Cert, e.Err = parse(d)
		all = append(all, e)
		byDefinition[d] = e
	}
	defs := p.Resolve().Definition
	streams := map[*schema.Definition][]string{} // of a trust store
	for _, r := range p.References {
		if r.Key.Name == "tls_trust_store" && defs[r] != nil {
			streams[defs[r]] = append(streams[defs[r]], r.From.Name)
		}
	}
	for _, r := range p.References {
		e := byDefinition[defs[r]]
		switch {
		case e == nil:
		case r.Key.Name == "stack":
			e.Uses = append(e.Uses, Use{Store: r.From.Name, Streams: streams[r.From]})
		case r.Key.Name == "server_cert" || r.Key.Name == "server_key":
			e.Uses = append(e.Uses, Use{Streams: []string{r.From.Name}})
		}
	}
	return all
}

func parse(d *schema.Definition) (*x509.Certificate, error) {
	if d.Value.Kind != schema.String {
		return nil, errNotBase64
	}
	der, err := schema.DecodeCert(d.Value.Text())
	if err != nil {
		return nil, errNotBase64
	}
	return parseDER(der)
}

func parseDER(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err == nil {
		return c, nil
	}
	for _, key := range []func([]byte) error{
		func(b []byte) error { _, err := x509.ParsePKCS8PrivateKey(b); return err },
		func(b []byte) error { _, err := x509.ParsePKCS1PrivateKey(b); return err },
		func(b []byte) error { _, err := x509.ParseECPrivateKey(b); return err },
	} {
		if key(der) == nil {
			return nil, errKey
		}
	}
	return nil, errNotCert
}

// Read returns the certificates in a file in PEM or DER. Text around the blocks of PEM
// is skipped; a private key is an error.
func Read(text []byte) (all []*x509.Certificate, err error) {
	if !bytes.Contains(text, []byte("-----BEGIN ")) {
		if all, err := x509.ParseCertificates(text); err == nil && len(all) > 0 {
			return all, nil
		}
		_, err := parseDER(text)
		return nil, fmt.Errorf("neither PEM nor a certificate in DER: %w", err)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			return nil, fmt.Errorf("holds a %q, and only certificates belong here", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("holds no whole block of PEM")
	}
	return all, nil
}

// Key describes the public key of a certificate: ECDSA P-256, RSA 2048.
func Key(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return c.PublicKeyAlgorithm.String()
}

// Label returns a display name: the common name, or the whole subject.
func Label(name string, common string) string {
	if common != "" {
		return common
	}
	return name
}

// SelfIssued reports whether a certificate is its own issuer, as a root is.
func SelfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }
