package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// explainTLS returns the text of an error. It says what to do where the text of
// crypto/x509 does not.
func explainTLS(err error) string {
	text := err.Error()
	var verification *tls.CertificateVerificationError
	var sent []*x509.Certificate
	if errors.As(err, &verification) {
		sent = verification.UnverifiedCertificates
	}
	replace := func(cause error, better string) string {
		if better == "" {
			return text
		}
		return strings.Replace(text, cause.Error(), better, 1)
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return replace(e, explainName(e))
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return replace(e, explainTime(e.Cert, time.Now()))
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return replace(e, explainIssuer(e.Cert, sent))
	}
	return text
}

// explainName returns the reason why a certificate is not valid for a host, or ""
// if Go's text is clear.
func explainName(e x509.HostnameError) string {
	c := e.Certificate
	if len(c.DNSNames)+len(c.IPAddresses)+len(c.URIs)+len(c.EmailAddresses) > 0 || c.Subject.CommonName == "" {
		return ""
	}
	return fmt.Sprintf("the certificate has only the common name %q, which clients no longer read: it needs %s as a subject alternative name", c.Subject.CommonName, e.Host)
}

// explainTime returns the reason why a certificate is not valid at a time.
func explainTime(c *x509.Certificate, now time.Time) string {
	const layout = time.DateTime + " MST"
	clock := "the clock of this machine says " + now.UTC().Format(layout)
	if now.Before(c.NotBefore) {
		return fmt.Sprintf("certificate %q is not valid before %s, and %s: is the clock right?", c.Subject, c.NotBefore.UTC().Format(layout), clock)
	}
	return fmt.Sprintf("certificate %q expired at %s, and %s", c.Subject, c.NotAfter.UTC().Format(layout), clock)
}

// explainIssuer returns the certificate that a trust store would need. It follows
// the chain from the peer's certificate through those that the peer sent.
func explainIssuer(c *x509.Certificate, sent []*x509.Certificate) string {
	if len(sent) > 0 {
		c = sent[0]
	}
	if c == nil {
		return ""
	}
	for range sent {
		for _, issuer := range sent {
			if issuer != c && string(issuer.RawSubject) == string(c.RawIssuer) && string(c.RawSubject) != string(c.RawIssuer) {
				c = issuer
				break
			}
		}
	}
	if string(c.RawSubject) == string(c.RawIssuer) {
		return fmt.Sprintf("certificate signed by unknown authority: the self-signed certificate %q is not trusted", c.Subject)
	}
	return fmt.Sprintf("certificate signed by unknown authority: no certificate of %q is trusted, which issued that of %q", c.Issuer, c.Subject)
}

// trustHint returns the text of an error, with the trusted certificates if that of
// the peer is not trusted.
func trustHint(err error, st *policy.StreamType) string {
	text := plain(err)
	switch _, unknown := errors.AsType[x509.UnknownAuthorityError](err); {
	case !unknown:
		return text
	case st.Protocol == policy.ProtocolProxied:
		return text + " (--proxy-ca names the certificates to trust)"
	case st.TrustStore == nil:
		return text + " (without tls_trust_store, only the system's certificates are trusted)"
	}
	return fmt.Sprintf("%s (tls_trust_store is %q: only its certificates are trusted)", text, st.TrustStore.Name)
}
