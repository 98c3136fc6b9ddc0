// Package farm shares TLS sessions and ticket keys between servers behind a load
// balancer that passes TLS through, so that a client can resume on any server.
//
// The members communicate over a [Bus], such as Redis or RabbitMQ; the packages
// redisfarm and amqpfarm implement these. Each message is encrypted and
// authenticated with a key of the farm: an attacker who controls the bus cannot
// read or insert sessions, only withhold messages. A member without connection
// resumes the sessions that it has, makes full handshakes otherwise, and catches up
// when the bus is back. No handshake waits for the bus.
package farm

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// MaxMessage is the maximum size of a message in bytes.
const MaxMessage = 1 << 20

// A Bus carries messages between all members of a farm. Messages of one member must
// arrive in order, and may be lost. Its methods must be safe for concurrent use.
type Bus interface {
	// Publish sends a message to all members, possibly including the sender.
	Publish(ctx context.Context, message []byte) error

	// Subscribe calls ready when it is connected, and then receive with each
	// message, until ctx is done or the connection is lost. The calls do not
	// overlap. The error is that of the connection.
	Subscribe(ctx context.Context, ready func(), receive func(message []byte)) error
}

// Options configure a member. 0 means the default.
type Options struct {
	Bus Bus

	// Key is the key of the farm: at least 32 random bytes, the same for all
	// members, and secret.
	Key []byte

	// Cache and Keys are shared by the members. One of them may be nil.
	Cache *tlssession.Cache
	Keys  *tlssession.Keys

	Rotate time.Duration // time between two ticket keys; default 12 h
	Older  int           // ticket keys that still decrypt; default 3

	Beat     time.Duration // time between two heartbeats; default 10 s
	Queue    int           // changes that wait for the bus; default 10,000
	Snapshot int           // sessions sent to a member that joins; default 10,000

	Logger transport.Logger // nil means none
}

// A Farm is the membership in a farm. Its methods are safe for concurrent use.
type Farm struct {
	o    Options
	self member
	seal *seal

	stop    context.CancelFunc
	unwatch func()
	done    sync.WaitGroup
	wake    chan struct{} // receives a value when there is something to publish

	mu       sync.Mutex
	counts   Stats
	queue    changes
	applying map[tlssession.ID]int // changes that come from peers
	peers    map[member]*peer
	keys     keySet
	removed  tombstones
	joined   time.Time // of the subscription; zero without connection
	answer   time.Time // when to send a snapshot; zero if none was requested
	ready    bool      // a snapshot has arrived, or no member can send one
	hello    bool      // request a snapshot
}

// A member identifies a member. It is random.
type member [16]byte

func (m member) String() string { return hex.EncodeToString(m[:]) }

// A peer is the knowledge of a member about another one.
type peer struct {
	seq   uint64 // of the last message
	seen  time.Time
	ready bool
}

// maxPeers is the maximum number of peers that a member remembers.
const maxPeers = 10_000

// Stats are statistics of a member.
type Stats struct {
	Connected bool
	Leader    bool // this member makes the ticket keys
	Members   int  // including this one
	Keys      int  // ticket keys
	Queued    int  // changes that wait for the bus

	Published uint64 // messages
	Failed    uint64 // messages that the bus did not accept
	Received  uint64 // valid messages of peers
	Rejected  uint64 // messages that are not from the farm, too old, or repeated; sessions of another version of Go
	Dropped   uint64 // changes that did not fit into the queue
	Inserted  uint64 // sessions of peers
	Removed   uint64 // sessions removed by peers
}

// Join makes this process a member of a farm, until Close.
func Join(o Options) (*Farm, error) {
	switch {
	case o.Bus == nil:
		return nil, errors.New("sspolicy: farm: no bus")
	case len(o.Key) < 32:
		return nil, fmt.Errorf("sspolicy: farm: the key has %d bytes, want 32 or more", len(o.Key))
	case o.Cache == nil && o.Keys == nil:
		return nil, errors.New("sspolicy: farm: neither a cache nor ticket keys to share")
	}
	duration := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	count := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	duration(&o.Rotate, 12*time.Hour)
	duration(&o.Beat, 10*time.Second)
	count(&o.Older, 3)
	count(&o.Queue, 10_000)
	count(&o.Snapshot, 10_000)
	o.Older = min(o.Older, tlssession.MaxKeys/2)
	f := &Farm{
		o: o, wake: make(chan struct{}, 1),
		applying: make(map[tlssession.ID]int), peers: make(map[member]*peer),
		queue: changes{byID: make(map[tlssession.ID]bool)}, removed: tombstones{byID: make(map[tlssession.ID]bool)},
	}
	rand.Read(f.self[:])
	var err error
	if f.seal, err = newSeal(o.Key, f.self); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	f.unwatch = func() {}
	if o.Cache != nil {
		f.unwatch = o.Cache.Watch(f.watch)
	}
	f.done.Go(func() { f.subscribe(ctx) })
	f.done.Go(func() { f.publish(ctx) })
	return f, nil
}

// Close ends the membership. The sessions and keys stay.
func (f *Farm) Close() error {
	f.unwatch()
	f.stop()
	f.done.Wait()
	return nil
}

// Stats returns the statistics of this member.
func (f *Farm) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.counts
	s.Connected = !f.joined.IsZero()
	s.Leader = f.leaderLocked(time.Now())
	s.Members = 1 + len(f.alivePeersLocked(time.Now()))
	s.Keys = len(f.keys)
	s.Queued = f.queue.len()
	return s
}

// watch queues a change of the cache for the peers. The handshake waits for it.
func (f *Farm) watch(e tlssession.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.applying[e.ID] > 0:
	case e.Kind == tlssession.EventNew && e.Origin == "":
		f.changeLocked(e.ID, false)
	case e.Kind == tlssession.EventRemove && e.Reason == tlssession.Removed:
		f.removed.add(e.ID)
		f.changeLocked(e.ID, true)
	}
}

func (f *Farm) changeLocked(id tlssession.ID, removed bool) {
	if !f.queue.add(id, removed, f.o.Queue) {
		f.counts.Dropped++
	}
	f.wakeUp()
}

func (f *Farm) wakeUp() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// alivePeersLocked returns the peers with a recent heartbeat, and forgets the
// others after a while.
func (f *Farm) alivePeersLocked(now time.Time) []member {
	var alive []member
	for m, p := range f.peers {
		switch d := now.Sub(p.seen); {
		case d <= 3*f.o.Beat:
			alive = append(alive, m)
		case d > maxAge+3*f.o.Beat: // its messages cannot be repeated any more
			delete(f.peers, m)
		}
	}
	return alive
}

// leaderLocked reports whether this member makes the ticket keys: it is the one
// with the smallest id.
func (f *Farm) leaderLocked(now time.Time) bool {
	return !slices.ContainsFunc(f.alivePeersLocked(now), f.self.after)
}

// answersLocked reports whether this member sends the snapshot that a peer has
// requested: it is the one with the smallest id of those that are ready.
func (f *Farm) answersLocked(now time.Time, asking member) bool {
	return f.ready && !slices.ContainsFunc(f.alivePeersLocked(now), func(m member) bool {
		return m != asking && f.peers[m].ready && f.self.after(m)
	})
}

// after reports whether another member has a smaller id.
func (m member) after(other member) bool { return bytes.Compare(m[:], other[:]) > 0 }

func (f *Farm) warn(msg string, args ...any) {
	if f.o.Logger != nil {
		f.o.Logger.Warn("sspolicy: farm: "+msg, args...)
	}
}

// changes holds the ids of changed sessions, in order.
type changes struct {
	order []tlssession.ID
	byID  map[tlssession.ID]bool // whether the session was removed by the program
}

func (c *changes) len() int { return len(c.order) }

// add adds a change, and returns false if there are too many.
func (c *changes) add(id tlssession.ID, removed bool, limit int) bool {
	if _, ok := c.byID[id]; !ok {
		if len(c.order) >= limit {
			return false
		}
		c.order = append(c.order, id)
	}
	c.byID[id] = removed
	return true
}

// take returns the first n changes and removes them.
func (c *changes) take(n int) (ids []tlssession.ID, removed []bool) {
	n = min(n, len(c.order))
	ids = append(ids, c.order[:n]...)
	c.order = append(c.order[:0], c.order[n:]...)
	for _, id := range ids {
		removed = append(removed, c.byID[id])
		delete(c.byID, id)
	}
	return ids, removed
}

// tombstones holds removed sessions, so that a peer that has missed the removal
// does not bring them back.
type tombstones struct {
	order []tlssession.ID
	byID  map[tlssession.ID]bool
}

const maxTombstones = 10_000

func (t *tombstones) add(id tlssession.ID) {
	if t.byID[id] {
		return
	}
	if len(t.order) >= maxTombstones {
		delete(t.byID, t.order[0])
		t.order = append(t.order[:0], t.order[1:]...)
	}
	t.order = append(t.order, id)
	t.byID[id] = true
}
