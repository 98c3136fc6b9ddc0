package transport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A TrustError reports an unusable trust store: an empty one, or one with a
// malformed certificate.
type TrustError struct {
	Store string // name of the store
	Cert  string // name of the faulty certificate, or ""
	Err   error
}

func (e *TrustError) Error() string {
	if e.Cert == "" {
		return fmt.Sprintf("trust store %q: %v", e.Store, e.Err)
	}
	return fmt.Sprintf("trust store %q: certificate %q: %v", e.Store, e.Cert, e.Err)
}

// Unwrap returns the cause.
func (e *TrustError) Unwrap() error { return e.Err }

// A trustCache holds a trust for each trust store in use.
type trustCache struct {
	mu     sync.Mutex
	stores map[*policy.TrustStore]*trust
}

// A trust is a trust store in the form of crypto/tls. A nil store means the roots
// of the operating system.
type trust struct {
	store   *policy.TrustStore
	users   int // number of setups that use it
	roots   *x509.CertPool
	err     error
	config  *tls.Config             // without a client certificate
	clients map[uint8]*clientConfig // by StreamType.ClientCert
}

// A clientConfig is a config with a client certificate.
type clientConfig struct {
	config *tls.Config
	cert   atomic.Pointer[tls.Certificate]
}

// maxSessions is the number of sessions kept for each config, as in lws.
const maxSessions = 10

// TLS returns the TLS config of the streamtype: the roots that it trusts, the
// minimum version, and its client certificate. Only the trust store is trusted;
// without one the roots are those of the operating system. ServerName and
// NextProtos are not set.
//
// Streamtypes with the same trust and certificate get the same config, so its
// address can be part of the key of a connection pool. Modify only a clone of it.
// Sessions are resumed only under the same config.
//
// TLS gets the client certificate from the credentials, which may block, so it is
// called in each attempt. An error must end the attempt before anything is sent. It
// is a *TrustError, or wraps ErrNoCredentials, ErrBadCredentials, or the error of
// the source.
func (s *Setup) TLS(ctx context.Context) (*tls.Config, error) {
	cert, err := s.clientCertificate(ctx)
	if err != nil {
		return nil, err
	}
	return s.Env.trust.config(s, cert)
}

// config returns the config of a setup, and registers the setup as a user of its
// trust.
func (c *trustCache) config(s *Setup, cert *tls.Certificate) (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tr := s.trust
	if tr == nil {
		store := s.Stream.TrustStore
		if tr = c.findLocked(store); tr == nil {
			tr = &trust{store: store}
			tr.roots, tr.err = pool(store)
			if c.stores == nil {
				c.stores = make(map[*policy.TrustStore]*trust)
			}
			c.stores[store] = tr
		}
		tr.users++
		s.trust = tr
	}
	switch {
	case tr.err != nil:
		return nil, tr.err
	case cert != nil:
		return tr.client(s.config.Sessions, s.Stream.ClientCert, cert), nil
	case tr.config == nil:
		tr.config = tr.newConfig(s.config.Sessions, nil)
	}
	return tr.config, nil
}

// findLocked returns the trust of a store, or nil. Equal stores count as the same
// one: a new policy has stores of its own, but its streams share connections with
// those of the old one.
func (c *trustCache) findLocked(store *policy.TrustStore) *trust {
	if tr := c.stores[store]; tr != nil || store == nil {
		return tr
	}
	for s, tr := range c.stores {
		if s != nil && equal(s, store) {
			return tr
		}
	}
	return nil
}

// equal reports whether two stores have the same name and certificates.
func equal(t, u *policy.TrustStore) bool {
	return t.Name == u.Name && slices.EqualFunc(t.Stack, u.Stack, func(a, b *policy.Cert) bool {
		return a == b || a != nil && b != nil && *a == *b
	})
}

// release ends a setup's use of its trust.
func (c *trustCache) release(s *Setup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if tr := s.trust; tr != nil {
		s.trust = nil
		if tr.users--; tr.users == 0 {
			delete(c.stores, tr.store)
		}
	}
}

// newConfig returns a config for connections, with the client certificate unless it
// is nil.
func (t *trust) newConfig(sessions Sessions, cert *tls.Certificate) *tls.Config {
	config := &tls.Config{RootCAs: t.roots, MinVersion: tls.VersionTLS12}
	if sessions == nil {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(maxSessions)
	} else {
		sessions.Client(t.scope(cert), config)
	}
	return config
}

// scope returns the scope of a config. [ByAddress] adds the host and port.
func (t *trust) scope(cert *tls.Certificate) (s Scope) {
	h := sha256.New()
	if t.store != nil {
		for _, c := range t.store.Stack {
			h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(c.DER))))
			h.Write([]byte(c.DER))
		}
		s.Trust = hex.EncodeToString(h.Sum(nil))
	}
	if cert != nil {
		leaf := sha256.Sum256(cert.Certificate[0])
		s.Cert = hex.EncodeToString(leaf[:])
	}
	return s
}

// client returns the config with the client certificate cert, whose index is key-1.
// A renewed certificate gets a new config, so it shares neither connections nor
// sessions with the old one.
func (t *trust) client(sessions Sessions, key uint8, cert *tls.Certificate) *tls.Config {
	c := t.clients[key]
	if c == nil || !slices.EqualFunc(c.cert.Load().Certificate, cert.Certificate, bytes.Equal) {
		c = &clientConfig{config: t.newConfig(sessions, cert)}
		// Not Certificates: with those, crypto/tls sends none if the server's list
		// of authorities does not include theirs.
		cert := &c.cert
		c.config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return cert.Load(), nil
		}
		if t.clients == nil {
			t.clients = make(map[uint8]*clientConfig)
		}
		t.clients[key] = c
	}
	c.cert.Store(cert)
	return c.config
}

// pool returns the roots of a store. For a nil store it returns nil, which means
// those of the operating system.
func pool(t *policy.TrustStore) (*x509.CertPool, error) {
	if t == nil {
		return nil, nil
	}
	if len(t.Stack) == 0 {
		return nil, &TrustError{Store: t.Name, Err: errors.New("it is empty")}
	}
	pool := x509.NewCertPool()
	for _, c := range t.Stack {
		if c == nil {
			return nil, &TrustError{Store: t.Name, Err: errors.New("it holds a nil certificate")}
		}
		cert, err := x509.ParseCertificate([]byte(c.DER))
		if err != nil {
			return nil, &TrustError{Store: t.Name, Cert: c.Name, Err: err}
		}
		pool.AddCert(cert)
	}
	return pool, nil
}
