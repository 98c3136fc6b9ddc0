package apilogin

import (
	"container/list"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// A Store shares sessions between processes. Its values are encrypted, and its keys
// are hashes. If it fails, each process uses the sessions that it has in memory.
// Its methods must be safe for concurrent use.
type Store interface {
	// Get returns the value of a key, or nil if there is none.
	Get(ctx context.Context, key string) ([]byte, error)

	// Set sets the value of a key, which the store may drop after ttl.
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error

	Delete(ctx context.Context, key string) error
}

// A session is a login session of the gateway.
type session struct {
	Cookie  string // value of the cookie
	User    string
	Created time.Time
	Used    time.Time // last call, updated only from time to time
}

// sessions keeps sessions in memory and in the store.
type sessions struct {
	o    *Options
	seal cipher.AEAD

	mu     sync.Mutex
	byKey  map[key]*list.Element
	recent list.List                   // of *cachedSession, the most recently used in front
	users  map[string][]*cachedSession // in the order of their starts
}

// cachedSession is a session in memory.
type cachedSession struct {
	session
	key key
}

func newSessions(o *Options) (*sessions, error) {
	k, err := hkdf.Key(sha256.New, o.Secret, nil, "sspolicy apilogin store 1", 32)
	if err != nil {
		return nil, fmt.Errorf("sspolicy: apilogin: %w", err)
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, fmt.Errorf("sspolicy: apilogin: %w", err)
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("sspolicy: apilogin: %w", err)
	}
	return &sessions{o: o, seal: seal, byKey: make(map[key]*list.Element), users: make(map[string][]*cachedSession)}, nil
}

func (s *sessions) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recent.Len()
}

// left returns how long a session lives if it is not used again.
func (s *sessions) left(x *session, now time.Time) time.Duration {
	return min(x.Used.Add(s.o.Idle).Sub(now), x.Created.Add(s.o.Lifetime).Sub(now))
}

// get returns the cookie of a session, or "".
func (s *sessions) get(ctx context.Context, k key) string {
	now := time.Now()
	cookie, known := s.local(ctx, k, now)
	if known || s.o.Store == nil {
		return cookie
	}
	value, err := s.o.Store.Get(ctx, hex.EncodeToString(k[:]))
	if err != nil {
		s.failed(ctx, "get", err)
		return ""
	}
	x, ok := s.open(k, value)
	if !ok || s.left(x, now) <= 0 {
		return ""
	}
	x.Used = now
	s.hold(k, *x)
	return x.Cookie
}

// local returns the cookie of a session in memory, and whether there is one.
func (s *sessions) local(ctx context.Context, k key, now time.Time) (cookie string, ok bool) {
	s.mu.Lock()
	e := s.byKey[k]
	if e == nil {
		s.mu.Unlock()
		return "", false
	}
	h := e.Value.(*cachedSession)
	if s.left(&h.session, now) <= 0 {
		s.dropLocked(e)
		s.mu.Unlock()
		return "", false
	}
	s.recent.MoveToFront(e)
	// The store is updated only from time to time.
	update := s.o.Store != nil && now.Sub(h.Used) > s.o.Idle/8
	if s.o.Store == nil || update {
		h.Used = now
	}
	x := h.session
	s.mu.Unlock()
	if update {
		s.share(ctx, k, x)
	}
	return x.Cookie, true
}

// put stores a new session.
func (s *sessions) put(ctx context.Context, k key, user, cookie string) {
	now := time.Now()
	x := session{cookie, user, now, now}
	s.hold(k, x)
	s.share(ctx, k, x)
}

// replace stores another cookie for a session that exists.
func (s *sessions) replace(ctx context.Context, k key, old, cookie string) {
	s.mu.Lock()
	e := s.byKey[k]
	if e == nil || e.Value.(*cachedSession).Cookie != old {
		s.mu.Unlock()
		return
	}
	h := e.Value.(*cachedSession)
	h.Cookie = cookie
	x := h.session
	s.mu.Unlock()
	s.share(ctx, k, x)
}

// hold keeps a session in memory. It replaces one with the same key, and the oldest
// ones if there are too many.
func (s *sessions) hold(k key, x session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byKey[k]; e != nil {
		s.dropLocked(e)
	}
	if own := s.users[x.User]; len(own) >= s.o.MaxPerUser {
		s.dropLocked(s.byKey[own[0].key])
	}
	for s.recent.Len() >= s.o.MaxSessions {
		s.dropLocked(s.recent.Back())
	}
	h := &cachedSession{x, k}
	s.byKey[k] = s.recent.PushFront(h)
	s.users[x.User] = append(s.users[x.User], h)
}

func (s *sessions) dropLocked(e *list.Element) {
	h := s.recent.Remove(e).(*cachedSession)
	delete(s.byKey, h.key)
	own := s.users[h.User]
	for i, o := range own {
		if o == h {
			own = append(own[:i], own[i+1:]...)
			break
		}
	}
	if len(own) == 0 {
		delete(s.users, h.User)
	} else {
		s.users[h.User] = own
	}
}

// remove removes a session if it still has the cookie.
func (s *sessions) remove(ctx context.Context, k key, cookie string) {
	s.mu.Lock()
	e := s.byKey[k]
	same := e != nil && e.Value.(*cachedSession).Cookie == cookie
	if same {
		s.dropLocked(e)
	}
	s.mu.Unlock()
	if !same || s.o.Store == nil {
		return
	}
	// Another process may have started a new one meanwhile.
	name := hex.EncodeToString(k[:])
	value, err := s.o.Store.Get(ctx, name)
	if x, ok := s.open(k, value); err == nil && ok && x.Cookie == cookie {
		err = s.o.Store.Delete(ctx, name)
	}
	if err != nil {
		s.failed(ctx, "delete", err)
	}
}

// share writes a session to the store.
func (s *sessions) share(ctx context.Context, k key, x session) {
	if s.o.Store == nil {
		return
	}
	plain, err := json.Marshal(x)
	if err == nil {
		err = s.o.Store.Set(ctx, hex.EncodeToString(k[:]), s.seal.Seal(nil, nil, plain, k[:]), s.left(&x, time.Now()))
	}
	if err != nil {
		s.failed(ctx, "set", err)
	}
}

// open decrypts a value of the store. The key is authenticated, so that values
// cannot be exchanged.
func (s *sessions) open(k key, value []byte) (*session, bool) {
	if len(value) == 0 {
		return nil, false
	}
	plain, err := s.seal.Open(nil, nil, value, k[:])
	if err != nil {
		return nil, false
	}
	x := new(session)
	return x, json.Unmarshal(plain, x) == nil && x.Cookie != ""
}

func (s *sessions) failed(ctx context.Context, what string, err error) {
	s.o.Logger.LogAttrs(ctx, slog.LevelWarn, "apilogin: the store fails", slog.String("call", what), slog.Any("err", err))
}

// starts makes concurrent calls without a session start only one.
type starts struct {
	mu sync.Mutex
	m  map[key]*start
}

// An outcome is the result of a start.
type outcome uint8

const (
	unknown outcome = iota // try again
	started                // there is a session
	failed                 // each call has to try by itself
	denied                 // by the gateway, to this key
)

// A start is a call that starts a session, for which other calls with its key wait.
type start struct {
	done    chan struct{}
	outcome outcome // valid after done
}

// begin returns the start of a key, and whether the caller must make it.
func (s *starts) begin(k key) (st *start, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st = s.m[k]; st != nil {
		return st, false
	}
	st = &start{done: make(chan struct{})}
	s.m[k] = st
	return st, true
}

// end ends a start, unless it has ended.
func (s *starts) end(k key, st *start, o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[k] == st {
		delete(s.m, k)
		st.outcome = o
		close(st.done)
	}
}
