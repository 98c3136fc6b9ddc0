package tlssession

import (
	"cmp"
	"container/heap"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// MaxID is the maximum length of an ID in bytes, as in TLS.
const MaxID = 32

// An ID identifies a session in a [Cache]. It has 1 to MaxID bytes, which need not
// be text.
type ID string

// String returns the bytes in hexadecimal.
func (id ID) String() string { return hex.EncodeToString([]byte(id)) }

func (id ID) check() error {
	if len(id) == 0 || len(id) > MaxID {
		return fmt.Errorf("%w: %d bytes, want 1 to %d", ErrID, len(id), MaxID)
	}
	return nil
}

// Errors of a Cache.
var (
	ErrID       = errors.New("sspolicy: tlssession: invalid session id")
	ErrNotFound = errors.New("sspolicy: tlssession: no session has this id")
	ErrTooLarge = errors.New("sspolicy: tlssession: session exceeds the limit of the cache")
	ErrExpired  = errors.New("sspolicy: tlssession: session has expired")
)

// A Kind is the kind of an [Event].
type Kind uint8

// The kinds of events.
const (
	EventNew    Kind = iota + 1 // a session has been inserted
	EventGet                    // a client has requested a session that the cache holds
	EventRemove                 // a session has been removed
)

func (k Kind) String() string {
	switch k {
	case EventNew:
		return "NEW"
	case EventGet:
		return "GET"
	case EventRemove:
		return "REMOVE"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// A Reason is the reason why a session was removed.
type Reason uint8

// The reasons of an EventRemove.
const (
	Removed  Reason = iota + 1 // by Cache.Remove
	Replaced                   // by an Insert with the same id
	Expired                    // its lifetime has ended
	Evicted                    // the cache was full
)

func (r Reason) String() string {
	switch r {
	case Removed:
		return "removed"
	case Replaced:
		return "replaced"
	case Expired:
		return "expired"
	case Evicted:
		return "evicted"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// An Event is a change of a [Cache], or a hit.
type Event struct {
	Kind   Kind
	ID     ID
	Origin string // of the session
	Reason Reason // of an EventRemove, otherwise 0
}

// A Session is a session of a server in a [Cache].
type Session struct {
	State *tls.SessionState

	// Expires is when the session ends. The zero value, and a time beyond
	// Options.Lifetime, mean the lifetime of the cache from now.
	Expires time.Time

	// Origin names the process that made the session, and is "" for this one. A
	// watcher that shares sessions must not publish those of other origins.
	Origin string
}

// Options limit a [Cache]. 0 means the default.
type Options struct {
	MaxSessions int           // default 20,000
	MaxBytes    int64         // default 64 MiB; includes what the cache needs for each session
	MaxSession  int           // bytes of one session, without that; default 16 KiB
	Lifetime    time.Duration // default 2 h, maximum 7 days, the limit of crypto/tls
}

// maxLifetime is the maximum time for which crypto/tls resumes a session.
const maxLifetime = 7 * 24 * time.Hour

// Overhead is the memory that a session takes in a cache in addition to its id and
// its encoding, in bytes, rounded up from the measurement of TestMemory.
const Overhead = 256

// A Cache holds TLS sessions of servers. Its methods are safe for concurrent use,
// also from watchers.
type Cache struct {
	o        Options
	watchers atomic.Pointer[[]*func(Event)]

	mu     sync.Mutex
	byID   map[ID]*entry
	queue  expiryQueue
	timer  *time.Timer // for the next sweep; nil without sessions
	fires  int64       // when it fires
	bytes  int64
	counts Stats
}

// An entry is a session in a Cache. Only its index changes.
type entry struct {
	id      ID
	state   []byte // tls.SessionState.Bytes
	origin  string
	expires int64 // nanoseconds since 1970
	index   int   // in the queue
}

func (e *entry) size() int64 { return int64(len(e.id) + len(e.state) + Overhead) }

// Stats are statistics of a [Cache]. Sessions and Bytes are current values; the
// others count from its start.
type Stats struct {
	Sessions int
	Bytes    int64

	Hits     uint64 // requested sessions that the cache had
	Misses   uint64 // requested sessions that the cache did not have
	Inserted uint64
	Removed  uint64 // by Remove
	Replaced uint64
	Expired  uint64
	Evicted  uint64
}

// NewCache returns an empty cache.
func NewCache(o Options) *Cache {
	if o.MaxSessions <= 0 {
		o.MaxSessions = 20_000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 64 << 20
	}
	if o.MaxSession <= 0 {
		o.MaxSession = 16 << 10
	}
	if o.Lifetime <= 0 {
		o.Lifetime = 2 * time.Hour
	}
	o.Lifetime = min(o.Lifetime, maxLifetime)
	return &Cache{o: o, byID: make(map[ID]*entry)}
}

// Watch calls f with each later event until stop is called. The call is
// synchronous: the handshake that causes an event waits for f. f must be safe for
// concurrent use, and may call the methods of c.
//
// Events of one id may arrive out of order if several goroutines change it at once.
// So a watcher that copies the cache must copy the result of Lookup, not the
// contents of the event.
func (c *Cache) Watch(f func(Event)) (stop func()) {
	p := &f
	c.update(func(all []*func(Event)) []*func(Event) { return append(slices.Clip(all), p) })
	return func() {
		c.update(func(all []*func(Event)) []*func(Event) {
			return slices.DeleteFunc(slices.Clone(all), func(q *func(Event)) bool { return q == p })
		})
	}
}

func (c *Cache) update(change func([]*func(Event)) []*func(Event)) {
	for {
		old := c.watchers.Load()
		var all []*func(Event)
		if old != nil {
			all = *old
		}
		all = change(all)
		if c.watchers.CompareAndSwap(old, &all) {
			return
		}
	}
}

func (c *Cache) notify(events ...Event) {
	all := c.watchers.Load()
	if all == nil {
		return
	}
	for _, e := range events {
		for _, f := range *all {
			(*f)(e)
		}
	}
}

// Get returns a copy of the session with the id, or nil. It does not cause an
// EventGet.
func (c *Cache) Get(id ID) *tls.SessionState {
	s, _ := c.Lookup(id)
	return s.State
}

// Lookup is like [Cache.Get] but also returns the expiry and the origin of the
// session.
func (c *Cache) Lookup(id ID) (Session, bool) {
	e := c.find(id)
	if e == nil {
		return Session{}, false
	}
	state, err := tls.ParseSessionState(e.state)
	if err != nil {
		return Session{}, false
	}
	return Session{State: state, Expires: time.Unix(0, e.expires), Origin: e.origin}, true
}

// GetBuffer copies the encoding of a session, which [tls.ParseSessionState] parses,
// to buf. It returns the size of the encoding, 0 if there is no such session, and
// the number of bytes stored: all, or none if buf is too short.
func (c *Cache) GetBuffer(id ID, buf []byte) (needed, stored int) {
	e := c.find(id)
	if e == nil {
		return 0, 0
	}
	if len(buf) < len(e.state) {
		return len(e.state), 0
	}
	return len(e.state), copy(buf, e.state)
}

// find returns the entry of an id unless it has expired, or nil.
func (c *Cache) find(id ID) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byID[id]; e != nil && e.expires > time.Now().UnixNano() {
		return e
	}
	return nil
}

// IDs returns the ids of all sessions, those that expire last first.
func (c *Cache) IDs() []ID {
	c.mu.Lock()
	all := slices.Clone(c.queue)
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Compare(b.expires, a.expires) })
	ids := make([]ID, len(all))
	for i, e := range all {
		ids[i] = e.id
	}
	return ids
}

// fetch returns the session that a client requests if accept accepts it, or nil.
func (c *Cache) fetch(id ID, accept func(*tls.SessionState) bool) *tls.SessionState {
	e := c.find(id)
	var state *tls.SessionState
	if e != nil {
		if s, err := tls.ParseSessionState(e.state); err == nil && accept(s) {
			state = s
		}
	}
	c.mu.Lock()
	if state != nil {
		c.counts.Hits++
	} else {
		c.counts.Misses++
	}
	c.mu.Unlock()
	if state != nil {
		c.notify(Event{Kind: EventGet, ID: id, Origin: e.origin})
	}
	return state
}

// Insert adds a session of a server. It removes a session with the same id and, if
// the cache is full, those that expire first; their events precede the EventNew.
// The error wraps ErrID, ErrTooLarge or ErrExpired, or is that of encoding the
// session; the cache has then not changed.
func (c *Cache) Insert(id ID, s Session) error {
	if err := id.check(); err != nil {
		return err
	}
	if s.State == nil {
		return errors.New("sspolicy: tlssession: the session has no state")
	}
	state, err := s.State.Bytes()
	if err != nil {
		return fmt.Errorf("sspolicy: tlssession: %w", err)
	}
	now := time.Now()
	end := now.Add(c.o.Lifetime)
	if !s.Expires.IsZero() && s.Expires.Before(end) {
		end = s.Expires
	}
	e := &entry{id: ID(slices.Clone([]byte(id))), state: state, origin: s.Origin, expires: end.UnixNano()}
	switch {
	case !end.After(now):
		return ErrExpired
	case len(state) > c.o.MaxSession || e.size() > c.o.MaxBytes:
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(state))
	}
	events := make([]Event, 0, 2)
	c.mu.Lock()
	if old := c.byID[id]; old != nil {
		events = append(events, c.removeLocked(old, Replaced))
	}
	for len(c.queue) >= c.o.MaxSessions || c.bytes+e.size() > c.o.MaxBytes {
		events = append(events, c.removeLocked(c.queue[0], Evicted))
	}
	c.byID[e.id] = e
	heap.Push(&c.queue, e)
	c.bytes += e.size()
	c.counts.Inserted++
	c.sweepLaterLocked(now.UnixNano())
	c.mu.Unlock()
	c.notify(append(events, Event{Kind: EventNew, ID: e.id, Origin: e.origin})...)
	return nil
}

// Remove removes a session. The error wraps ErrNotFound if no session has the id.
func (c *Cache) Remove(id ID) error {
	c.mu.Lock()
	e := c.byID[id]
	if e == nil {
		c.mu.Unlock()
		return ErrNotFound
	}
	event := c.removeLocked(e, Removed)
	c.mu.Unlock()
	c.notify(event)
	return nil
}

func (c *Cache) removeLocked(e *entry, why Reason) Event {
	delete(c.byID, e.id)
	heap.Remove(&c.queue, e.index)
	c.bytes -= e.size()
	switch why {
	case Removed:
		c.counts.Removed++
	case Replaced:
		c.counts.Replaced++
	case Expired:
		c.counts.Expired++
	case Evicted:
		c.counts.Evicted++
	}
	return Event{Kind: EventRemove, ID: e.id, Origin: e.origin, Reason: why}
}

const (
	sweepEvery = time.Second // minimum time between two sweeps
	sweepMost  = 1000        // sessions removed under one lock
)

// sweepLaterLocked schedules a sweep for when the first session expires, but at
// most one per sweepEvery.
func (c *Cache) sweepLaterLocked(now int64) {
	if len(c.queue) == 0 {
		return
	}
	at := max(c.queue[0].expires, now+int64(sweepEvery))
	switch {
	case c.timer == nil:
		c.timer = time.AfterFunc(time.Duration(at-now), c.sweep)
	case at < c.fires:
		c.timer.Reset(time.Duration(at - now))
	default:
		return
	}
	c.fires = at
}

// sweep removes the sessions that have expired.
func (c *Cache) sweep() {
	for {
		var events []Event
		c.mu.Lock()
		now := time.Now().UnixNano()
		for len(c.queue) > 0 && c.queue[0].expires <= now && len(events) < sweepMost {
			events = append(events, c.removeLocked(c.queue[0], Expired))
		}
		if len(events) < sweepMost {
			c.timer = nil
			c.sweepLaterLocked(now)
		}
		c.mu.Unlock()
		c.notify(events...)
		if len(events) < sweepMost {
			return
		}
	}
}

// Stats returns the statistics of the cache.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counts
	s.Sessions, s.Bytes = len(c.queue), c.bytes
	return s
}

// An expiryQueue is a heap of entries, with the one that expires first in front.
type expiryQueue []*entry

func (q expiryQueue) Len() int           { return len(q) }
func (q expiryQueue) Less(i, j int) bool { return q[i].expires < q[j].expires }
func (q expiryQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *expiryQueue) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}
func (q *expiryQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}
