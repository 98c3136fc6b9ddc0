package tlssession

import (
	"container/list"
	"crypto/tls"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// MaxClientSessions is the default of ClientOptions.MaxSessions.
const MaxClientSessions = 100

// ClientOptions configure [Clients].
type ClientOptions struct {
	MaxSessions int // 0 means MaxClientSessions

	// File keeps the sessions for the next start. It is encrypted with Key, and can
	// be read only by programs built with the same version of Go, whose format it
	// has. Only its owner can read it. If it is "", sessions are in memory only.
	File string

	// Key encrypts File. It has KeySize bytes, which the program must keep in a
	// safer place than File, such as the key store of the device.
	Key []byte

	Logger transport.Logger // nil means none
}

// Clients holds the sessions of clients, the last one for each server. If it is
// full, it drops the least recently used session. Its methods are safe for
// concurrent use.
type Clients struct {
	o ClientOptions

	mu      sync.Mutex
	byKey   map[clientKey]*list.Element
	recent  list.List   // of *clientSession, the most recently used in front
	counts  ClientStats // without Sessions and Refused
	offered uint64      // sessions offered to servers, except in failed handshakes
	save    *time.Timer // nil if the file has the sessions
	failed  bool        // the last write failed
	closed  bool
}

// A clientKey identifies a server and the scope of trust.
type clientKey struct {
	scope  transport.Scope
	server string // key of crypto/tls: the server name, or the address
}

type clientSession struct {
	key    clientKey
	state  *tls.ClientSessionState
	stored time.Time
}

// ClientStats are statistics of [Clients]. Sessions is the current number; the
// others count from the start.
type ClientStats struct {
	Sessions   int
	Handshakes uint64 // completed
	Resumed    uint64 // handshakes that resumed a session
	Evicted    uint64 // sessions dropped because there were too many

	// Refused is the number of sessions that clients offered and servers did not
	// resume. It includes handshakes in progress.
	Refused uint64
}

// NewClients returns an empty set of sessions, in memory only.
func NewClients(maxSessions int) *Clients {
	return newClients(ClientOptions{MaxSessions: maxSessions})
}

// Client makes clients with the config resume the sessions of a scope, and counts
// their handshakes. It sets ClientSessionCache, and VerifyConnection to a function
// that calls the previous one.
func (c *Clients) Client(scope transport.Scope, config *tls.Config) {
	config.ClientSessionCache = scopedClients{c, scope}
	next := config.VerifyConnection
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if next != nil {
			if err := next(s); err != nil {
				return err
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.counts.Handshakes++
		if s.DidResume {
			c.counts.Resumed++
		}
		return nil
	}
}

func newClients(o ClientOptions) *Clients {
	if o.MaxSessions <= 0 {
		o.MaxSessions = MaxClientSessions
	}
	return &Clients{o: o, byKey: make(map[clientKey]*list.Element)}
}

// Stats returns the statistics.
func (c *Clients) Stats() ClientStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counts
	s.Sessions = c.recent.Len()
	s.Refused = c.offered - min(c.offered, s.Resumed)
	return s
}

// scopedClients is the cache of a scope.
type scopedClients struct {
	c     *Clients
	scope transport.Scope
}

func (s scopedClients) Get(server string) (*tls.ClientSessionState, bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	e := s.c.byKey[clientKey{s.scope, server}]
	if e == nil {
		return nil, false
	}
	s.c.recent.MoveToFront(e)
	s.c.offered++
	return e.Value.(*clientSession).state, true
}

func (s scopedClients) Put(server string, state *tls.ClientSessionState) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.putLocked(&clientSession{clientKey{s.scope, server}, state, time.Now()})
	s.c.saveLaterLocked()
}

// putLocked adds a session, or removes one if the state is nil.
func (c *Clients) putLocked(s *clientSession) {
	e := c.byKey[s.key]
	switch {
	case s.state == nil: // crypto/tls did not offer it, or the handshake failed
		c.offered -= min(c.offered, 1)
		if e != nil {
			c.recent.Remove(e)
			delete(c.byKey, s.key)
		}
	case e != nil:
		e.Value = s
		c.recent.MoveToFront(e)
	default:
		c.byKey[s.key] = c.recent.PushFront(s)
		if c.recent.Len() > c.o.MaxSessions {
			last := c.recent.Remove(c.recent.Back()).(*clientSession)
			delete(c.byKey, last.key)
			c.counts.Evicted++
		}
	}
}
