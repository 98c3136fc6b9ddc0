package runtime

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
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
// each at its first use.
type trustCache struct {
	mu      sync.Mutex
	configs map[*TrustStore]trustEntry
}

type trustEntry struct {
	config *tls.Config
	err    error
}

// TLSConfig returns how streams of this type talk TLS: the roots they trust
// and the least version. A named store means exactly its certificates, none
// means those of the operating system. It is the same config for all streams
// with the same trust, so its address can tell which connections may be
// shared; change only a clone of it. The host name is left to be set; it must
// be, unless the user of the config does so by itself.
func (c *Context) TLSConfig(st *StreamType) (*tls.Config, error) {
	c.trust.mu.Lock()
	defer c.trust.mu.Unlock()
	e, ok := c.trust.configs[st.TrustStore]
	if !ok {
		roots, err := st.TrustStore.pool()
		if err != nil {
			e.err = err
		} else {
			e.config = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		}
		if c.trust.configs == nil {
			c.trust.configs = make(map[*TrustStore]trustEntry)
		}
		c.trust.configs[st.TrustStore] = e
	}
	return e.config, e.err
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
