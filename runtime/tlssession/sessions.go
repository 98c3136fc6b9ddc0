package tlssession

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Sessions sets up the resumption of sessions in configs of crypto/tls. With the
// zero value, servers use tickets with random keys. Its fields must not change
// after the first call of a method.
type Sessions struct {
	// Cache holds the sessions of servers. If it is nil, tickets hold them.
	Cache *Cache

	// Keys are the ticket keys. With a Cache, tickets are used for sessions that
	// are too large for it, and tickets issued before are accepted. If both are
	// nil, tickets have random keys.
	Keys *Keys

	// Clients holds the sessions of clients. If it is nil, Client disables
	// resumption.
	Clients *Clients

	random Keys // if Cache and Keys are nil
}

var _ transport.Sessions = (*Sessions)(nil)

// Server makes the servers with this config resume sessions. A session is resumed
// only in the scope and under the server name in which it was made, and only if its
// client certificate is valid for the config, as checked by crypto/tls.
//
// Server sets WrapSession and UnwrapSession, which are part of the copies that
// servers make of a config. Configs that GetConfigForClient returns need a call of
// their own.
func (s *Sessions) Server(scope transport.Scope, config *tls.Config) {
	cache, keys := s.Cache, s.Keys
	if cache == nil && keys == nil {
		keys = &s.random
	}
	config.WrapSession = func(cs tls.ConnectionState, state *tls.SessionState) ([]byte, error) {
		state.Extra = append(slices.Clip(state.Extra), mark(scope, cs.ServerName))
		id := make([]byte, MaxID)
		rand.Read(id)
		if cache != nil && cache.Insert(ID(id), Session{State: state}) == nil {
			return id, nil
		}
		if keys != nil {
			return keys.config.EncryptTicket(cs, state)
		}
		return id, nil // not in the cache: an error would end the connection
	}
	config.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		accept := func(state *tls.SessionState) bool {
			m := mark(scope, cs.ServerName)
			return slices.ContainsFunc(state.Extra, func(e []byte) bool { return bytes.Equal(e, m) })
		}
		switch {
		case len(ticket) == 0:
		case len(ticket) <= MaxID && cache != nil:
			return cache.fetch(ID(ticket), accept), nil
		case keys != nil:
			state, err := keys.config.DecryptTicket(ticket, cs)
			if err == nil && state != nil && accept(state) {
				return state, nil
			}
		}
		return nil, nil // a full handshake
	}
}

// Client calls [Clients.Client], or disables resumption if Clients is nil.
func (s *Sessions) Client(scope transport.Scope, config *tls.Config) {
	if s.Clients == nil {
		config.ClientSessionCache = nil
		return
	}
	s.Clients.Client(scope, config)
}

// markPrefix begins the entry of tls.SessionState.Extra that binds a session to a
// scope.
const markPrefix = "sspolicy/tlssession/1:"

// mark returns the entry for a scope and a server name.
func mark(scope transport.Scope, server string) []byte {
	h := sha256.New()
	for _, s := range []string{scope.Trust, scope.Cert, scope.Host, strings.ToLower(server)} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	h.Write(binary.BigEndian.AppendUint16(nil, scope.Port))
	return h.Sum([]byte(markPrefix))
}
