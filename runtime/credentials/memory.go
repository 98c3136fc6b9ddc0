package credentials

import (
	"context"
	"crypto/tls"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Funcs are [Credentials] made of functions. One that is nil has
// nothing.
type Funcs struct {
	BlobFunc              func(ctx context.Context, b policy.Blob, index int) (string, error)
	ClientCertificateFunc func(ctx context.Context, index int) (*tls.Certificate, error)
}

// Blob calls BlobFunc.
func (f Funcs) Blob(ctx context.Context, b policy.Blob, index int) (string, error) {
	if f.BlobFunc == nil {
		return "", transport.ErrNoCredentials
	}
	return f.BlobFunc(ctx, b, index)
}

// ClientCertificate calls ClientCertificateFunc.
func (f Funcs) ClientCertificate(ctx context.Context, index int) (*tls.Certificate, error) {
	if f.ClientCertificateFunc == nil {
		return nil, transport.ErrNoCredentials
	}
	return f.ClientCertificateFunc(ctx, index)
}

// Memory are [Credentials] that are kept in memory. The zero value
// has none. It may be used by many goroutines at a time, and must not be copied.
type Memory struct {
	mu    sync.Mutex
	blobs map[blobKey]*string // pointers, so that fmt prints no secret
	certs map[int]hiddenCert
}

// A hiddenCert returns a certificate: fmt prints what it finds behind pointers,
// a private key too, but never what is in a function.
type hiddenCert func() *tls.Certificate

func hide(cert *tls.Certificate) hiddenCert { return func() *tls.Certificate { return cert } }

type blobKey struct {
	b     policy.Blob
	index int
}

// SetBlob sets a text, for attempts that begin from now on; an empty one
// removes it. index is that of an auth token, 0 to 3, and else 0.
func (m *Memory) SetBlob(b policy.Blob, index int, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blobs == nil {
		m.blobs = make(map[blobKey]*string)
	}
	m.blobs[blobKey{b, index}] = &text
}

// SetClientCertificate sets a client certificate, for attempts that begin from
// now on; nil removes it. index is the policy's client_cert, 0 to 254. cert must
// not be changed afterwards.
func (m *Memory) SetClientCertificate(index int, cert *tls.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.certs == nil {
		m.certs = make(map[int]hiddenCert)
	}
	m.certs[index] = hide(cert)
}

// Blob returns what SetBlob has set, else ErrNoCredentials.
func (m *Memory) Blob(_ context.Context, b policy.Blob, index int) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if text := m.blobs[blobKey{b, index}]; text != nil && *text != "" {
		return *text, nil
	}
	return "", transport.ErrNoCredentials
}

// ClientCertificate returns what SetClientCertificate has set, else
// ErrNoCredentials.
func (m *Memory) ClientCertificate(_ context.Context, index int) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cert := m.certs[index]; cert != nil && cert() != nil {
		return cert(), nil
	}
	return nil, transport.ErrNoCredentials
}
