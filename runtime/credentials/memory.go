package credentials

import (
	"context"
	"crypto/tls"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Funcs is a source that calls functions, which must be safe for concurrent use. A
// nil function provides no credentials.
type Funcs struct {
	BlobFunc              func(ctx context.Context, b policy.Blob, index int) (string, error)
	ClientCertificateFunc func(ctx context.Context, index int) (*tls.Certificate, error)
	ServerCertificateFunc func(ctx context.Context, streamtype string) (*tls.Certificate, error)
}

// Blob returns the result of BlobFunc, or ErrNoCredentials if it is nil.
func (f Funcs) Blob(ctx context.Context, b policy.Blob, index int) (string, error) {
	if f.BlobFunc == nil {
		return "", transport.ErrNoCredentials
	}
	return f.BlobFunc(ctx, b, index)
}

// ClientCertificate returns the result of ClientCertificateFunc, or ErrNoCredentials
// if it is nil.
func (f Funcs) ClientCertificate(ctx context.Context, index int) (*tls.Certificate, error) {
	if f.ClientCertificateFunc == nil {
		return nil, transport.ErrNoCredentials
	}
	return f.ClientCertificateFunc(ctx, index)
}

// ServerCertificate returns the result of ServerCertificateFunc, or ErrNoCredentials
// if it is nil.
func (f Funcs) ServerCertificate(ctx context.Context, streamtype string) (*tls.Certificate, error) {
	if f.ServerCertificateFunc == nil {
		return nil, transport.ErrNoCredentials
	}
	return f.ServerCertificateFunc(ctx, streamtype)
}

// Memory is a source that holds credentials in memory. The zero value is empty. A
// Memory must not be copied after first use.
type Memory struct {
	mu      sync.Mutex
	blobs   map[blobKey]*string // pointers, so that fmt prints no secret
	certs   map[int]hiddenCert
	servers map[string]hiddenCert // by streamtype
}

// A hiddenCert returns a certificate. It is a function because fmt follows pointers,
// even to a private key, but not functions.
type hiddenCert func() *tls.Certificate

// hide returns cert as a hiddenCert.
func hide(cert *tls.Certificate) hiddenCert { return func() *tls.Certificate { return cert } }

// A blobKey identifies a text.
type blobKey struct {
	b     policy.Blob
	index int
}

// SetBlob sets a text for later attempts; "" removes it. index is 0 to 3 for an
// indexed kind, and 0 otherwise.
func (m *Memory) SetBlob(b policy.Blob, index int, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blobs == nil {
		m.blobs = make(map[blobKey]*string)
	}
	m.blobs[blobKey{b, index}] = &text
}

// SetClientCertificate sets a client certificate for later attempts; nil removes it.
// index is 0 to 254. cert must not be modified afterwards.
func (m *Memory) SetClientCertificate(index int, cert *tls.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.certs == nil {
		m.certs = make(map[int]hiddenCert)
	}
	m.certs[index] = hide(cert)
}

// Blob returns the text of SetBlob, or ErrNoCredentials.
func (m *Memory) Blob(_ context.Context, b policy.Blob, index int) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if text := m.blobs[blobKey{b, index}]; text != nil && *text != "" {
		return *text, nil
	}
	return "", transport.ErrNoCredentials
}

// ClientCertificate returns the certificate of SetClientCertificate, or
// ErrNoCredentials.
func (m *Memory) ClientCertificate(_ context.Context, index int) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cert := m.certs[index]; cert != nil && cert() != nil {
		return cert(), nil
	}
	return nil, transport.ErrNoCredentials
}

// SetServerCertificate sets the certificate of a server streamtype for later
// handshakes; nil removes it. cert must not be modified afterwards.
func (m *Memory) SetServerCertificate(streamtype string, cert *tls.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.servers == nil {
		m.servers = make(map[string]hiddenCert)
	}
	m.servers[streamtype] = hide(cert)
}

// ServerCertificate returns the certificate of SetServerCertificate, or
// ErrNoCredentials.
func (m *Memory) ServerCertificate(_ context.Context, streamtype string) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cert := m.servers[streamtype]; cert != nil && cert() != nil {
		return cert(), nil
	}
	return nil, transport.ErrNoCredentials
}
