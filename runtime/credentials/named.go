package credentials

import (
	"context"
	"crypto/tls"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Named is a source of texts by name, with the names of the files of [Files], such
// as auth.0 or client_cert.0. A Named must not be copied after first use.
type Named struct {
	// Lookup returns the text of a name, without a trailing line break, or "". It
	// must be safe for concurrent use.
	Lookup func(name string) string

	certs certCache
}

// IsName reports whether a source may have a credential of that name.
func IsName(name string) bool {
	if _, _, ok := policy.ParseBlob(name); ok {
		return true
	}
	half, rest, _ := strings.Cut(name, ".")
	if half == serverCert || half == serverKey {
		return serverPair(rest) != (pair{})
	}
	index, err := strconv.Atoi(rest)
	p := clientPair(index)
	return err == nil && (name == p.cert || name == p.key)
}

// Blob returns the text of Lookup, or ErrNoCredentials.
func (n *Named) Blob(_ context.Context, b policy.Blob, index int) (string, error) {
	text, err := n.get(b.Name(index))
	return string(text), err
}

// ClientCertificate returns the certificate of two texts of Lookup, or ErrNoCredentials.
func (n *Named) ClientCertificate(_ context.Context, index int) (*tls.Certificate, error) {
	return n.certs.get(clientPair(index), n.get)
}

// ServerCertificate returns the certificate of two texts of Lookup, or ErrNoCredentials.
func (n *Named) ServerCertificate(_ context.Context, streamtype string) (*tls.Certificate, error) {
	return n.certs.get(serverPair(streamtype), n.get)
}

func (n *Named) get(name string) ([]byte, error) {
	if name == "" {
		return nil, transport.ErrNoCredentials
	}
	text := n.Lookup(name)
	if text == "" {
		return nil, transport.ErrNoCredentials
	}
	return []byte(text), nil
}
