package transport

import (
	"crypto/tls"
)

// A Scope is a domain of trust. TLS sessions of one scope are never resumed in
// another. An empty field does not distinguish scopes.
type Scope struct {
	Trust string // identifies the trusted authorities
	Cert  string // identifies the certificate of this side
	Host  string
	Port  uint16
}

// Sessions keeps TLS sessions. Package runtime/tlssession implements it. Its
// methods must be safe for concurrent use.
type Sessions interface {
	// Client makes clients with the config resume sessions of the scope. It may set
	// ClientSessionCache and VerifyConnection.
	Client(Scope, *tls.Config)

	// Server makes servers with the config resume sessions of the scope.
	Server(Scope, *tls.Config)
}

// ByAddress returns a view of c for connections to an address. They share no
// session with connections to another address of the same name, which crypto/tls
// does not distinguish. It returns nil if c is nil. [Setup.Dial] uses it.
func ByAddress(c tls.ClientSessionCache, network, address string) tls.ClientSessionCache {
	if c == nil {
		return nil
	}
	return addressCache{c, network + " " + address + " "}
}

type addressCache struct {
	tls.ClientSessionCache
	prefix string
}

func (c addressCache) Get(key string) (*tls.ClientSessionState, bool) {
	return c.ClientSessionCache.Get(c.prefix + key)
}

func (c addressCache) Put(key string, s *tls.ClientSessionState) {
	c.ClientSessionCache.Put(c.prefix+key, s)
}
