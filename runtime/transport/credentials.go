package transport

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// Credentials provide what a policy requires but does not hold: tokens, serial
// numbers, certificates with their private keys. Package runtime/credentials
// implements them.
//
// Each attempt to connect requests them before it sends anything, so they may
// change between attempts. An error ends the attempt, since nothing may be sent
// without the required credentials. Stream.Err returns the error, so it must not
// contain a secret. It must wrap ErrNoCredentials if there is no such credential.
//
// Implementations must be safe for concurrent use. Methods may block, but must
// return when ctx is done, which happens when the attempt ends.
type Credentials interface {
	// Blob returns a text. index is 0 to 3 for an indexed kind, and 0 otherwise. An
	// empty text counts as ErrNoCredentials.
	Blob(ctx context.Context, b policy.Blob, index int) (string, error)

	// ClientCertificate returns the certificate of an index, 0 to 254, with its
	// private key and the chain to send. A nil or empty one counts as
	// ErrNoCredentials. It must not be modified afterwards.
	ClientCertificate(ctx context.Context, index int) (*tls.Certificate, error)

	// ServerCertificate returns the certificate of a server streamtype, with its
	// private key and the chain to send. It replaces the policy's server_cert and
	// server_key, which are used if the error wraps ErrNoCredentials. It is called
	// when the port opens and in each handshake, so a renewed certificate needs no
	// restart. A nil or empty one counts as ErrNoCredentials. It must not be
	// modified afterwards.
	ServerCertificate(ctx context.Context, streamtype string) (*tls.Certificate, error)
}

// Secret returns a text from the context's credentials. The error wraps
// ErrNoCredentials, ErrBadCredentials if the text is invalid in a header, or the
// error of the source. It does not quote the text.
func (e *Env) Secret(ctx context.Context, b policy.Blob, index int) (string, error) {
	text, err := "", ErrNoCredentials
	if e.config.Credentials != nil {
		text, err = e.config.Credentials.Blob(ctx, b, index)
	}
	switch {
	case err != nil:
	case text == "":
		err = ErrNoCredentials
	case strings.ContainsFunc(text, policy.IsControl):
		err = fmt.Errorf("%w: control character", ErrBadCredentials)
	default:
		return text, nil
	}
	name := b.Name(index)
	if name == "" {
		name = strconv.Itoa(index)
	}
	return "", fmt.Errorf("sspolicy: %v (%s): %w", b, name, err)
}

// clientCertificate returns the client certificate of the streamtype, or nil if
// the policy requires none.
func (s *Setup) clientCertificate(ctx context.Context) (*tls.Certificate, error) {
	if s.Stream.ClientCert == 0 {
		return nil, nil
	}
	index := int(s.Stream.ClientCert) - 1
	var cert *tls.Certificate
	err := ErrNoCredentials
	if s.config.Credentials != nil {
		cert, err = s.config.Credentials.ClientCertificate(ctx, index)
	}
	switch {
	case err != nil:
	case cert == nil || len(cert.Certificate) == 0:
		err = ErrNoCredentials
	default:
		if err = CheckKeyPair(cert); err == nil {
			return cert, nil
		}
	}
	return nil, fmt.Errorf("sspolicy: client certificate (client_cert.%d, client_key.%d): %w", index, index, err)
}

// CheckKeyPair returns an error if a non-empty certificate cannot be parsed, or if
// its private key is missing or belongs to another certificate. The error wraps
// ErrBadCredentials.
func CheckKeyPair(cert *tls.Certificate) error {
	leaf := cert.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return fmt.Errorf("%w: %w", ErrBadCredentials, err)
		}
	}
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%w: no private key that can sign", ErrBadCredentials)
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return fmt.Errorf("%w: the private key does not belong to the certificate", ErrBadCredentials)
	}
	return nil
}

// CheckCredentials returns an error if a streamtype requires credentials and the
// context has no source of them. Package runtime calls it before Prepare. The error
// wraps ErrNoCredentials, or ErrUnsupported if the scheme of use_auth does not fit
// the protocol.
func (h Host) CheckCredentials(st *policy.StreamType) error {
	switch {
	case st.Auth != nil && st.Auth.Type == policy.AuthSigV4 && !st.Protocol.IsHTTP():
		return fmt.Errorf("%w: use_auth of type sigv4 over %v", ErrUnsupported, st.Protocol)
	case h.config.Credentials != nil:
		return nil
	case st.Auth != nil:
		return noCredentials("use_auth")
	case st.ClientCert != 0:
		return noCredentials("client_cert")
	case st.HTTP == nil:
		return nil
	}
	for _, k := range []struct{ value, key string }{
		{st.HTTP.AuthHeader, "http_auth_header"},
		{st.HTTP.DSNHeader, "http_dsn_header"},
		{st.HTTP.FWVHeader, "http_fwv_header"},
		{st.HTTP.DevTypeHeader, "http_devtype_header"},
	} {
		if k.value != "" {
			return noCredentials(k.key)
		}
	}
	return nil
}

func noCredentials(key string) error {
	return fmt.Errorf("%w: %s needs Options.Credentials", ErrNoCredentials, key)
}
