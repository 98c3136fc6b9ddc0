package faulttest

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Target redirects a stream to a misbehaving peer, by a changed policy or by a fragment.
type Target struct {
	stream string
	host   string // host, or "" to keep that of the policy
	port   uint16
	roots  *testcert.Authority
	proxy  string // host and port of a SOCKS5 proxy

	// DialContext replaces the dialing of the program for faults that no policy can cause:
	// those of a resolver. It is nil for all others.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// at sets the address.
func (t *Target) at(a net.Addr) {
	addr := a.(*net.TCPAddr).AddrPort()
	t.host, t.port = addr.Addr().Unmap().String(), addr.Port()
}

// address returns the address that the stream is redirected to.
func (t *Target) address() string { return net.JoinHostPort(t.host, fmt.Sprint(t.port)) }

// The names of the definitions in fragments.
const (
	caName    = "sspolicy-fault-ca"
	storeName = "sspolicy-fault"
)

// settings returns a copy of a streamtype with the target's changes.
func (t *Target) settings(st *policy.StreamType) *policy.StreamType {
	c := *st
	secure := usesTLS(st)
	c.SOCKS5Proxy = t.proxy
	if t.host != "" {
		if st.HTTP != nil {
			if path, ok := endpointPath(st.Endpoint); ok {
				h := *st.HTTP
				h.URL = path
				c.HTTP = &h
			}
		}
		c.Endpoint, c.Port, c.TLS = t.host, t.port, secure
	}
	if secure && t.roots != nil {
		c.TrustStore = &policy.TrustStore{Name: storeName, Stack: []*policy.Cert{{Name: caName, DER: string(t.roots.Cert.Raw)}}}
	}
	return &c
}

// endpointPath returns the path of an endpoint that is a URL, or host:port/path.
func endpointPath(endpoint string) (path string, ok bool) {
	_, rest, found := strings.Cut(endpoint, "://")
	if !found {
		rest = endpoint
	}
	_, path, ok = strings.Cut(rest, "/")
	return path, ok
}

// Apply returns the policy with the stream redirected to the peer. It does not
// change p.
func (t *Target) Apply(p *policy.Policy) *policy.Policy {
	q := *p
	q.StreamTypes = slices.Clone(p.StreamTypes)
	for i, st := range q.StreamTypes {
		if st.Name == t.stream {
			q.StreamTypes[i] = t.settings(st)
		} else if p.SOCKS5Proxy != "" && st.SOCKS5Proxy == "" {
			c := *st
			c.SOCKS5Proxy = p.SOCKS5Proxy
			q.StreamTypes[i] = &c
		}
	}
	q.SOCKS5Proxy = ""
	return &q
}

// rootsOf returns the pool of a trust store.
func rootsOf(s *policy.TrustStore) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, c := range s.Stack {
		cert, err := x509.ParseCertificate([]byte(c.DER))
		if err != nil {
			return nil, fmt.Errorf("trust store %q: %w", s.Name, err)
		}
		pool.AddCert(cert)
	}
	return pool, nil
}
