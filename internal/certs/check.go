package certs

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Question asks whether a client accepts the chain of a server.
type Question struct {
	Chain []*x509.Certificate // as sent by the server: its own certificate first
	Host  string              // the host name to verify; "" means any
	At    time.Time

	// Store holds the certificates that the client trusts. System means that it
	// trusts those of the operating system instead.
	Store  []*x509.Certificate
	System bool

	// Others are available certificates that the store does not hold, by name. An
	// answer mentions one of them if it would make the client accept.
	Others map[string]*x509.Certificate
}

// An Answer says whether the client accepts the chain and, if not, why.
type Answer struct {
	OK      bool
	Path    []*x509.Certificate // from the server's certificate to the trusted one
	Problem string
	Advice  string

	// Missing is the subject of the missing issuer, or "".
	Missing string
	Notes   []string
}

// Check answers a question. It verifies like crypto/x509, for a TLS server.
func Check(q Question) Answer {
	if len(q.Chain) == 0 {
		return Answer{Problem: "the server showed no certificate"}
	}
	leaf := q.Chain[0]
	chains, err := leaf.Verify(q.options(q.Store, q.System))
	if err == nil {
		a := Answer{OK: true, Path: chains[0]}
		anchor := a.Path[len(a.Path)-1]
		if !SelfIssued(anchor) && !q.System {
			a.Notes = append(a.Notes, fmt.Sprintf("%s is trusted, and is not a root: lws with OpenSSL accepts the chain only if the store, or the system, has the root %s too", subject(anchor), issuer(anchor)))
		}
		return a
	}
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		return Answer{Problem: strings.TrimPrefix(err.Error(), "x509: "), Advice: advice(err)}
	}
	return q.missing()
}

func (q *Question) options(store []*x509.Certificate, system bool) x509.VerifyOptions {
	o := x509.VerifyOptions{DNSName: q.Host, CurrentTime: q.At, Intermediates: x509.NewCertPool()}
	for _, c := range q.Chain[1:] {
		o.Intermediates.AddCert(c)
	}
	if !system {
		o.Roots = x509.NewCertPool()
		for _, c := range store {
			o.Roots.AddCert(c)
		}
	}
	return o
}

func advice(err error) string {
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &host):
		return "the server shows the certificate of another name: the endpoint of the policy, or the server, is wrong"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the issuer must renew the certificate; no trust store helps"
	}
	return ""
}

// missing returns the answer if no certificate of the store is an issuer of the
// chain.
func (q *Question) missing() Answer {
	top := q.top()
	a := Answer{Missing: top.Issuer.String()}
	switch {
	case len(q.Chain) == 1 && SelfIssued(top):
		a.Problem = fmt.Sprintf("the server's certificate %s is self-signed, and the store does not hold it", subject(top))
		a.Advice = "import it if it is the right one: compare its fingerprint with the server's"
	case SelfIssued(top):
		a.Problem = fmt.Sprintf("the store lacks the root %s, which the server shows", subject(top))
		a.Advice = "import that root, from a source that you trust"
	default:
		a.Problem = fmt.Sprintf("the store lacks the issuer %s of %s", issuer(top), subject(top))
		a.Advice = "import a certificate of that issuer, from a source that you trust"
	}
	for _, c := range q.Store {
		if bytes.Equal(c.RawSubject, top.RawIssuer) {
			a.Notes = append(a.Notes, fmt.Sprintf("the store has a certificate of %s with another key: that authority has a new one", subject(c)))
		}
	}
	for name, c := range q.Others {
		if _, err := q.Chain[0].Verify(q.options([]*x509.Certificate{c}, false)); err == nil {
			a.Advice = fmt.Sprintf("the policy has it: put %q into the stack of the store", name)
		}
	}
	if len(top.IssuingCertificateURL) > 0 && !SelfIssued(top) {
		a.Notes = append(a.Notes, fmt.Sprintf("the certificate names %s as the place of its issuer; lws does not fetch it", top.IssuingCertificateURL[0]))
	}
	if chains, err := q.Chain[0].Verify(q.options(nil, true)); err == nil && !q.System {
		root := chains[0][len(chains[0])-1]
		a.Notes = append(a.Notes, fmt.Sprintf("this machine accepts the chain, by the root %s", subject(root)))
	} else if len(q.Chain) == 1 && !SelfIssued(top) {
		a.Notes = append(a.Notes, "the server shows its own certificate alone: it should send the intermediate certificates too")
	}
	return a
}

// top returns the last certificate of the path from the server's certificate
// upwards.
func (q *Question) top() *x509.Certificate {
	c := q.Chain[0]
	for range q.Chain {
		for _, up := range q.Chain {
			if up != c && !SelfIssued(c) && bytes.Equal(up.RawSubject, c.RawIssuer) {
				c = up
				break
			}
		}
	}
	return c
}

func subject(c *x509.Certificate) string { return fmt.Sprintf("%q", c.Subject.String()) }
func issuer(c *x509.Certificate) string  { return fmt.Sprintf("%q", c.Issuer.String()) }
