package faulttest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
)

const day = 24 * time.Hour

// withCertificate returns the function of a fault whose server has another
// certificate.
func withCertificate(what string, chain func(p *peer) tls.Certificate) func(*peer) *behavior {
	return func(p *peer) *behavior {
		cert := chain(p)
		return &behavior{tls: func(c *tls.Config) {
			c.Certificates = nil
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				p.strike("the server has %s", what)
				return &cert, nil
			}
		}}
	}
}

// The TLS faults. The server's certificate is for the host name of the policy, and
// from an authority that the stream trusts, unless the fault says otherwise.
var (
	TLSExpired = &Fault{
		Name: "tls-expired", Family: "tls", H3: true, Summary: "The certificate has expired",
		Why: "Somebody forgot to renew it, so all devices fail in the same minute; or the clock of a device is wrong, as after a power loss.",
		misbehave: withCertificate("an expired certificate", func(p *peer) tls.Certificate {
			return p.ca.Certify(testcert.Key(), time.Now().Add(-2*day), p.names()...)
		}),
		expect: fails,
		Cause:  "expired",
	}
	TLSNotYetValid = &Fault{
		Name: "tls-not-yet-valid", Family: "tls", H3: true, Summary: "The certificate is not valid yet",
		Why: "A device whose clock is at the epoch after power on gets this from each server.",
		misbehave: withCertificate("a certificate of the day after tomorrow", func(p *peer) tls.Certificate {
			return p.ca.Certify(testcert.Key(), time.Now().Add(2*day), p.names()...)
		}),
		expect: fails,
		Cause:  "not yet valid",
	}
	TLSWrongHost = &Fault{
		Name: "tls-wrong-host", Family: "tls", H3: true, Summary: "The certificate is for another host",
		Why: "A virtual host is missing on the server, or an attacker is in the middle. A device that connects has no protection.",
		misbehave: withCertificate("a certificate for another host", func(p *peer) tls.Certificate {
			return p.ca.Certify(testcert.Key(), time.Now().Add(-time.Hour), "wrong.host.invalid", "192.0.2.1")
		}),
		expect: fails,
		Cause:  "certificate is valid for",
	}
	TLSNoSAN = &Fault{
		Name: "tls-no-san", Family: "tls", H3: true, Summary: "The certificate has its host name only in the common name",
		Why: "Old tools make such certificates. This runtime refuses them, like browsers; some TLS libraries under lws accept them.",
		misbehave: withCertificate("a certificate without a subject alternative name", func(p *peer) tls.Certificate {
			return p.ca.Issue(func(c *x509.Certificate) { c.Subject.CommonName = p.verifiedName() }, testcert.Key())
		}),
		expect: fails,
		Cause:  "Common Name",
	}
	TLSSelfSigned = &Fault{
		Name: "tls-self-signed", Family: "tls", H3: true, Summary: "The certificate is self-signed",
		Why: "A captive portal or a proxy of the site answers instead of the server.",
		misbehave: withCertificate("a self-signed certificate", func(p *peer) tls.Certificate {
			return (*testcert.Authority)(nil).Certify(testcert.Key(), time.Now().Add(-time.Hour), p.names()...)
		}),
		expect: fails,
		Cause:  "unknown authority",
	}
	TLSUntrusted = &Fault{
		Name: "tls-untrusted", Family: "tls", H3: true, Summary: "The certificate is from an authority that the device does not trust",
		Why: "The server has changed to another authority. Devices with a fixed trust store are lost unless they already have the new root.",
		misbehave: withCertificate("a certificate of another authority", func(p *peer) tls.Certificate {
			return testcert.New("another authority").Certify(testcert.Key(), time.Now().Add(-time.Hour), p.names()...)
		}),
		expect: fails,
		Cause:  "unknown authority",
	}
	TLSIncompleteChain = &Fault{
		Name: "tls-incomplete-chain", Family: "tls", H3: true, Summary: "The server does not send the intermediate certificate",
		Why: "This is a common mistake. Browsers fetch the missing certificate, so only devices fail.",
		misbehave: withCertificate("a chain without its intermediate", func(p *peer) tls.Certificate {
			return p.ca.Intermediate("intermediate").Certify(testcert.Key(), time.Now().Add(-time.Hour), p.names()...)
		}),
		expect: fails,
		Cause:  "unknown authority",
	}
	TLSReversedChain = &Fault{
		Name: "tls-reversed-chain", Family: "tls", H3: true, Summary: "The server sends its chain in reverse",
		Why: "The first certificate must be that of the server (RFC 8446, section 4.4.2). Files that were concatenated in the wrong order violate this.",
		misbehave: withCertificate("a reversed chain", func(p *peer) tls.Certificate {
			middle := p.ca.Intermediate("intermediate")
			leaf := middle.Certify(testcert.Key(), time.Now().Add(-time.Hour), p.names()...)
			leaf.Certificate = [][]byte{p.ca.Cert.Raw, middle.Cert.Raw, leaf.Certificate[0]}
			return leaf
		}),
		expect: fails,
	}
	TLSManyNames = &Fault{
		Name: "tls-10000-names", Family: "tls", Summary: "The certificate has 10,000 names",
		Why:    "A certificate of a hosting company can be too large for the memory of a device. This runtime accepts certificates of up to 256 KiB; lws with mbedTLS has 16 KiB for a whole record.",
		Params: []Param{{Name: "names", Help: "The number of names.", Default: "10000", Min: 1, Max: 20_000}},
		misbehave: withCertificate("a certificate with many names", func(p *peer) tls.Certificate {
			names := p.names()
			for i := range p.args.int("names") {
				names = append(names, fmt.Sprintf("name-%d.invalid", i))
			}
			return p.ca.Certify(testcert.Key(), time.Now().Add(-time.Hour), names...)
		}),
		expect: func(s *subject) expectation {
			switch n := s.args.int("names"); {
			case n <= 10_000:
				return expect(s.healthy())
			case n < 16_000:
				return expect(s.healthy(), unreachable)
			}
			return expect(unreachable)
		},
	}
	TLSWeakKey = &Fault{
		Name: "tls-weak-key", Family: "tls", Summary: "The key of the certificate is RSA with 512 bits",
		Why: "Such keys can be broken in hours. A stream that connects gives its secrets to an attacker.",
		misbehave: func(p *peer) *behavior {
			key := newWeakKey()
			cert := p.ca.Issue(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = testcert.Split(p.names()) }, key)
			return &behavior{tls: func(c *tls.Config) {
				c.Certificates = nil
				c.MaxVersion = tls.VersionTLS12 // TLS 1.3 has no signature that fits into 512 bits
				cert.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.PKCS1WithSHA256}
				c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
					p.strike("the server has a key of 512 bits")
					return &cert, nil
				}
			}}
		},
		expect: fails,
	}
	TLSRevoked = &Fault{
		Name: "tls-revoked", Family: "tls", H3: true, Summary: "The certificate has been revoked, and the server says so",
		Why: "The key of the server was stolen. Neither this runtime nor lws checks revocation, or an OCSP response that the server sends, so the stream connects. Only a short lifetime of certificates protects against this.",
		misbehave: withCertificate("a revoked certificate", func(p *peer) tls.Certificate {
			cert := p.ca.Certify(testcert.Key(), time.Now().Add(-time.Hour), p.names()...)
			cert.OCSPStaple = p.ca.Revocation(cert)
			return cert
		}),
		expect: func(s *subject) expectation { return expect(s.healthy()) },
	}
	TLSOldVersion = &Fault{
		Name: "tls-old-version", Family: "tls", Summary: "The server supports at most TLS 1.1",
		Why: "The server was never updated, or a middlebox downgrades connections.",
		misbehave: func(p *peer) *behavior {
			return &behavior{tls: func(c *tls.Config) {
				c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
				p.onHello(c, "the server has TLS 1.1 at most")
			}}
		},
		expect: fails,
		Cause:  "protocol version",
	}
	TLSPlainPort = &Fault{
		Name: "tls-plain-port", Family: "tls", Summary: "The server does not speak TLS on this port",
		Why: "The port is wrong, or a load balancer terminates TLS and the policy bypasses it.",
		misbehave: func(p *peer) *behavior {
			return &behavior{wire: func(c net.Conn) {
				p.strike("the server answers in clear text")
				io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
				closeWrite(c)
				p.hold(c)
			}}
		},
		expect: fails,
	}
	TLSHandshakeStall = &Fault{
		Name: "tls-handshake-stall", Family: "tls", Summary: "The TLS handshake stalls",
		Why: "The server has no entropy or CPU left, or a middlebox drops large packets, of which those of the handshake are the first.",
		misbehave: func(p *peer) *behavior {
			return &behavior{wire: func(c net.Conn) {
				if _, err := c.Read(make([]byte, 1)); err == nil {
					p.strike("the ClientHello is not answered")
				}
				p.hold(c)
			}}
		},
		expect: fails,
		Cause:  timedOut,
	}
	TLSClientCertRequired = &Fault{
		Name: "tls-client-cert-required", Family: "tls", Summary: "The server requires a client certificate, and refuses the one of the device",
		Why: "The certificate of the device has expired, was never installed, or the policy does not name it.",
		misbehave: func(p *peer) *behavior {
			return &behavior{tls: func(c *tls.Config) {
				c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, testcert.New("another authority").Pool()
				c.MaxVersion = tls.VersionTLS12 // in TLS 1.3, the rejection comes after the handshake
				p.onHello(c, "the server demands a client certificate")
			}}
		},
		expect: fails,
	}
)

var tlsFaults = []*Fault{
	TLSExpired, TLSNotYetValid, TLSWrongHost, TLSNoSAN, TLSSelfSigned, TLSUntrusted, TLSIncompleteChain, TLSReversedChain,
	TLSManyNames, TLSWeakKey, TLSRevoked, TLSOldVersion, TLSPlainPort, TLSHandshakeStall, TLSClientCertRequired,
}

// onHello strikes when a client begins a handshake.
func (p *peer) onHello(c *tls.Config, what string) {
	next := c.GetConfigForClient
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		p.strike("%s", what)
		if next != nil {
			return next(hello)
		}
		return nil, nil
	}
}

// verifiedName returns the name that the client verifies.
func (p *peer) verifiedName() string {
	if host, _, err := net.SplitHostPort(p.options.listen()); err == nil && host != "" {
		return host
	}
	return "127.0.0.1"
}

// A weakKey is an RSA key of 512 bits, which package rsa rejects.
type weakKey struct {
	public rsa.PublicKey
	d      *big.Int
}

func newWeakKey() *weakKey {
	const e = 65537
	one := big.NewInt(1)
	for {
		p, err1 := rand.Prime(rand.Reader, 256)
		q, err2 := rand.Prime(rand.Reader, 256)
		if errors.Join(err1, err2) != nil {
			continue
		}
		n := new(big.Int).Mul(p, q)
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		if d := new(big.Int).ModInverse(big.NewInt(e), phi); d != nil && n.BitLen() == 512 {
			return &weakKey{rsa.PublicKey{N: n, E: e}, d}
		}
	}
}

func (k *weakKey) Public() crypto.PublicKey { return &k.public }

// sha256Prefix is the DER of a DigestInfo before the hash (RFC 8017, section 9.2).
var sha256Prefix = []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}

// Sign signs like RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2.1).
func (k *weakKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, errors.ErrUnsupported
	}
	text := slices.Concat(sha256Prefix, digest)
	block := slices.Concat([]byte{0, 1}, slices.Repeat([]byte{0xff}, 64-3-len(text)), []byte{0}, text)
	m := new(big.Int).SetBytes(block)
	return m.Exp(m, k.d, k.public.N).FillBytes(make([]byte, 64)), nil
}
