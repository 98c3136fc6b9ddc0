package runtime

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// A TrustError says that a trust store can not be used.
type TrustError struct {
	Store string // name of the store
	Cert  string // name of the certificate at fault, or ""
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

// A trustCache holds what the trust stores of a policy have been made into,
// each at its first use, until no stream is left whose streamtype has used it.
type trustCache struct {
	mu     sync.Mutex
	stores map[*TrustStore]*trust
}

// A trust is what a trust store, or the lack of one, has been made into.
type trust struct {
	store   *TrustStore
	users   int // streamtypes with streams that have used it
	roots   *x509.CertPool
	err     error
	config  *tls.Config             // without a client certificate
	clients map[uint8]*clientConfig // by StreamType.ClientCert
}

// A clientConfig is a config that offers a client certificate.
type clientConfig struct {
	config *tls.Config
	cert   atomic.Pointer[tls.Certificate]
}

// sessions is how many sessions are kept for each config, as in lws.
const sessions = 10

// TLSConfig returns how the stream talks TLS: the roots it trusts, the least
// version, and the client certificate that it offers. A named store means
// exactly its certificates, none means those of the operating system. It is the
// same config for all streams with the same trust and certificate, so its
// address can tell which connections may be shared; change only a clone of it.
// Sessions are resumed only under the same config. The host name is left to be
// set; it must be, unless the user of the config does so by itself.
//
// An error, such as the want of a client certificate, is to end the attempt
// before anything is sent.
func (l *Link) TLSConfig() (*tls.Config, error) {
	cert, err := l.clientCertificate()
	if err != nil {
		return nil, err
	}
	return l.c.trust.config(l.t, cert)
}

// config returns the config for streams of a type, and makes the type a user
// of its trust.
func (c *trustCache) config(t *streamType, cert *tls.Certificate) (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tr := t.trust
	if tr == nil {
		store := t.policy.TrustStore
		if tr = c.find(store); tr == nil {
			tr = &trust{store: store}
			tr.roots, tr.err = store.pool()
			if c.stores == nil {
				c.stores = make(map[*TrustStore]*trust)
			}
			c.stores[store] = tr
		}
		tr.users++
		t.trust = tr
	}
	switch {
	case tr.err != nil:
		return nil, tr.err
	case cert != nil:
		return tr.client(t.policy.ClientCert, cert), nil
	case tr.config == nil:
		tr.config = tr.newConfig()
	}
	return tr.config, nil
}

// find returns what a store has been made into, or nil. A policy that has
// replaced another has stores of its own, though they may hold the same: what is
// shared by streams of the one is to be shared with those of the other. mu is held.
func (c *trustCache) find(store *TrustStore) *trust {
	if tr := c.stores[store]; tr != nil || store == nil {
		return tr
	}
	for s, tr := range c.stores {
		if s != nil && s.equal(store) {
			return tr
		}
	}
	return nil
}

// equal reports whether two stores have the same name and certificates.
func (t *TrustStore) equal(u *TrustStore) bool {
	return t.Name == u.Name && slices.EqualFunc(t.Stack, u.Stack, func(a, b *Cert) bool {
		return a == b || a != nil && b != nil && *a == *b
	})
}

// release ends a streamtype's use of its trust.
func (c *trustCache) release(t *streamType) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if tr := t.trust; tr != nil {
		t.trust = nil
		if tr.users--; tr.users == 0 {
			delete(c.stores, tr.store)
		}
	}
}

func (t *trust) newConfig() *tls.Config {
	return &tls.Config{
		RootCAs:            t.roots,
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(sessions),
	}
}

// client returns the config that offers cert, which is another one, and so
// without the connections and sessions there were, if cert is.
func (t *trust) client(key uint8, cert *tls.Certificate) *tls.Config {
	c := t.clients[key]
	if c == nil || !slices.EqualFunc(c.cert.Load().Certificate, cert.Certificate, bytes.Equal) {
		c = &clientConfig{config: t.newConfig()}
		// Not by Certificates, from which crypto/tls sends nothing at all if it
		// finds none that the server says it would take.
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

// pool returns the store as a set of roots; nil, for those of the operating
// system, if there is no store.
func (t *TrustStore) pool() (*x509.CertPool, error) {
	if t == nil {
		return nil, nil
	}
	if len(t.Stack) == 0 {
		// A nil pool would mean the roots of the operating system.
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
