// Package dummy stands in for a program, where streams run without one: it provides what a
// policy requires.
package dummy

import (
	"context"
	"crypto/tls"
	"net/url"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Credentials provides every text that a policy can require, and client
// certificates from CA. A text is its name in angle brackets. The AWS key ID is
// "test", since it is part of signatures; there is no session token.
type Credentials struct{ CA *testcert.Authority }

func (Credentials) Blob(_ context.Context, b policy.Blob, index int) (string, error) {
	switch b {
	case policy.BlobAWSKeyID:
		return "test", nil
	case policy.BlobAWSSessionToken:
		return "", transport.ErrNoCredentials
	}
	return "<" + b.Name(index) + ">", nil
}

func (c Credentials) ClientCertificate(context.Context, int) (*tls.Certificate, error) {
	return c.CA.Client(2), nil
}

func (Credentials) ServerCertificate(context.Context, string) (*tls.Certificate, error) {
	return nil, transport.ErrNoCredentials
}

// Cookies is a jar that is always empty.
type Cookies struct{}

func (Cookies) Cookies(transport.CookieScope, *url.URL) string       { return "" }
func (Cookies) SetCookies(transport.CookieScope, *url.URL, []string) {}
