package farm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/runtime/tlssession"
)

const (
	batch          = 100                    // maximum number of sessions in a message
	batchSize      = MaxMessage / 4         // maximum size of the sessions in a message in bytes
	publishTimeout = 5 * time.Second        // of a message
	minBackoff     = 100 * time.Millisecond // between attempts to reach the bus
	maxBackoff     = 10 * time.Second
)

// subscribe receives messages, and reconnects.
func (f *Farm) subscribe(ctx context.Context) {
	backoff, down := minBackoff, false
	for ctx.Err() == nil {
		err := f.o.Bus.Subscribe(ctx, func() {
			if backoff = minBackoff; down {
				down = false
				f.warn("the bus is back")
			}
			f.mu.Lock()
			f.joined, f.hello = time.Now(), true
			f.mu.Unlock()
			f.wakeUp()
		}, f.receive)
		f.mu.Lock()
		f.joined = time.Time{}
		f.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if !down {
			down = true
			f.warn("the bus is not reachable; this server resumes the sessions that it has", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// receive processes a message, which may be anything.
func (f *Farm) receive(text []byte) {
	m, err := f.seal.decode(text)
	now := time.Now()
	f.mu.Lock()
	switch {
	case err == errOwn:
		f.mu.Unlock()
		return
	case err != nil || !f.acceptLocked(m, now):
		f.counts.Rejected++
		f.mu.Unlock()
		return
	}
	f.counts.Received++
	if m.snapshot {
		f.ready = true
	}
	if m.hello && f.answer.IsZero() && f.answersLocked(now, m.from) {
		// Other members may join at the same time: one snapshot serves all.
		f.answer = now.Add(min(time.Second, f.o.Beat))
		f.wakeUp()
	}
	changed := false
	if f.o.Keys != nil {
		f.keys, changed = f.keys.merge(m.keys, f.o.Older+1, now)
	}
	f.mu.Unlock()
	if changed {
		f.useKeys(now)
	}
	if f.o.Cache == nil {
		return
	}
	for _, id := range m.removed {
		f.applyRemove(id)
	}
	for _, x := range m.sessions {
		f.applyInsert(&x, m)
	}
}

// acceptLocked reports whether a message is new.
func (f *Farm) acceptLocked(m *message, now time.Time) bool {
	if d := now.Sub(m.sent); d > maxAge || d < -maxAge {
		return false
	}
	p := f.peers[m.from]
	if p == nil {
		if len(f.peers) >= maxPeers {
			return false
		}
		p = new(peer)
		f.peers[m.from] = p
	}
	if m.seq <= p.seq {
		return false
	}
	p.seq, p.seen, p.ready = m.seq, now, m.ready
	return true
}

// apply makes a change of the cache that watch must not publish.
func (f *Farm) apply(id tlssession.ID, change func()) {
	f.mu.Lock()
	f.applying[id]++
	f.mu.Unlock()
	change()
	f.mu.Lock()
	if f.applying[id]--; f.applying[id] == 0 {
		delete(f.applying, id)
	}
	f.mu.Unlock()
}

func (f *Farm) applyRemove(id tlssession.ID) {
	f.mu.Lock()
	f.removed.add(id)
	f.mu.Unlock()
	f.apply(id, func() {
		if f.o.Cache.Remove(id) == nil {
			f.mu.Lock()
			f.counts.Removed++
			f.mu.Unlock()
		}
	})
}

func (f *Farm) applyInsert(x *session, m *message) {
	if m.snapshot {
		f.mu.Lock()
		removed := f.removed.byID[x.id]
		f.mu.Unlock()
		if _, ok := f.o.Cache.Lookup(x.id); ok || removed {
			return
		}
	}
	state, err := tls.ParseSessionState(x.state)
	if err != nil {
		f.mu.Lock() // a session of another version of Go
		f.counts.Rejected++
		f.mu.Unlock()
		return
	}
	f.apply(x.id, func() {
		if f.o.Cache.Insert(x.id, tlssession.Session{State: state, Expires: x.expires, Origin: m.from.String()}) == nil {
			f.mu.Lock()
			f.counts.Inserted++
			f.mu.Unlock()
		}
	})
}

// useKeys passes the keys to the servers.
func (f *Farm) useKeys(now time.Time) {
	f.mu.Lock()
	data := f.keys.data(now, f.grace())
	f.mu.Unlock()
	if len(data) > 0 && !bytes.Equal(data, f.o.Keys.Bytes()) {
		if err := f.o.Keys.Update(data); err != nil {
			f.warn("ticket keys are not used", "err", err)
		}
	}
}

// grace is how long a new key only decrypts, so that all members learn it before a
// client has a ticket with it.
func (f *Farm) grace() time.Duration { return 3 * f.o.Beat }

func (f *Farm) connected() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.joined.IsZero()
}

// publish sends changes and heartbeats.
func (f *Farm) publish(ctx context.Context) {
	beat := time.NewTicker(f.o.Beat)
	defer beat.Stop()
	backoff := minBackoff
	var seq uint64
	send := func(m *message) bool {
		seq++
		m.seq, m.sent = seq, time.Now()
		f.mu.Lock()
		m.ready = f.ready
		f.mu.Unlock()
		limit, cancel := context.WithTimeout(ctx, publishTimeout)
		defer cancel()
		err := f.o.Bus.Publish(limit, f.seal.encode(m))
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil {
			f.counts.Failed++
			return false
		}
		f.counts.Published++
		return true
	}
	alive := true // a heartbeat is due
	for ctx.Err() == nil {
		ok := true
		if f.connected() {
			ok = f.sendChanges(send) && f.sendSnapshot(send)
			if m := f.sign(alive, time.Now()); ok && m != nil {
				if ok = send(m); ok {
					alive = false
				}
			}
		}
		var retry <-chan time.Time
		switch {
		case !ok:
			retry = time.After(backoff)
			backoff = min(2*backoff, maxBackoff)
		default:
			backoff = minBackoff
			f.mu.Lock()
			if !f.answer.IsZero() && !f.joined.IsZero() { // the return of the bus wakes this loop
				retry = time.After(time.Until(f.answer))
			}
			f.mu.Unlock()
		}
		wake := f.wake
		if !ok {
			wake = nil
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-retry:
		case <-beat.C:
			alive = true
			if f.o.Keys != nil {
				f.rotate(time.Now())
			}
		}
	}
}

// sign returns the message that is due: a heartbeat with the keys, a hello, or nil.
func (f *Farm) sign(alive bool, now time.Time) *message {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.hello && !alive {
		return nil
	}
	// A hello is repeated until a snapshot arrives, or no member can send one.
	alone := now.Sub(f.joined) >= 3*f.o.Beat && !slices.ContainsFunc(f.alivePeersLocked(now), func(m member) bool { return f.peers[m].ready })
	f.ready = f.ready || alone
	m := &message{hello: f.hello || !f.ready, keys: f.keys}
	f.hello = false
	return m
}

// rotate makes a new ticket key if this member is due to.
func (f *Farm) rotate(now time.Time) {
	f.mu.Lock()
	// The other members have had time to send their keys.
	settled := !f.joined.IsZero() && now.Sub(f.joined) >= 2*f.o.Beat
	due := len(f.keys) == 0 || now.Sub(f.keys[0].made) >= f.o.Rotate
	if settled && due && f.leaderLocked(now) {
		k := ticketKey{made: now.Truncate(time.Millisecond)}
		rand.Read(k.key[:])
		f.keys, _ = f.keys.merge(keySet{k}, f.o.Older+1, now)
	}
	f.mu.Unlock()
	f.useKeys(now) // also after the grace of a key
}

// sendChanges sends the changes of the cache.
func (f *Farm) sendChanges(send func(*message) bool) bool {
	for {
		f.mu.Lock()
		ids, removed := f.queue.take(batch)
		f.mu.Unlock()
		if len(ids) == 0 {
			return true
		}
		m, sent := new(message), 0
		for size := 0; sent < len(ids) && size < batchSize; sent++ {
			id := ids[sent]
			if s, ok := f.o.Cache.Lookup(id); ok {
				if s.Origin == "" {
					if state, err := s.State.Bytes(); err == nil {
						m.sessions = append(m.sessions, session{id, state, s.Expires})
						size += len(state)
					}
				}
			} else if removed[sent] {
				m.removed = append(m.removed, id)
			}
		}
		ok := len(m.sessions)+len(m.removed) == 0 || send(m)
		if ok {
			ids, removed = ids[sent:], removed[sent:]
		}
		f.mu.Lock()
		for i, id := range ids { // later, after newer ones
			if _, newer := f.queue.byID[id]; !newer && !f.queue.add(id, removed[i], f.o.Queue) {
				f.counts.Dropped++
			}
		}
		f.mu.Unlock()
		if !ok {
			return false
		}
	}
}

// sendSnapshot sends the sessions of this member, youngest first, and the removed
// ones, if a peer has requested it.
func (f *Farm) sendSnapshot(send func(*message) bool) bool {
	f.mu.Lock()
	due := !f.answer.IsZero() && !time.Now().Before(f.answer)
	if due {
		f.answer = time.Time{}
	}
	removed := append([]tlssession.ID(nil), f.removed.order...)
	keys := f.keys
	f.mu.Unlock()
	if !due {
		return true
	}
	var ids []tlssession.ID
	if f.o.Cache != nil {
		ids = f.o.Cache.IDs()
	}
	ids = ids[:min(len(ids), f.o.Snapshot)]
	for first := true; first || len(ids)+len(removed) > 0; first = false {
		m := &message{snapshot: true, keys: keys}
		n := min(len(removed), 10*batch)
		m.removed, removed = removed[:n], removed[n:]
		for size := 0; len(ids) > 0 && size < batchSize; ids = ids[1:] {
			if s, ok := f.o.Cache.Lookup(ids[0]); ok {
				if state, err := s.State.Bytes(); err == nil {
					m.sessions = append(m.sessions, session{ids[0], state, s.Expires})
					size += len(state) + 64
				}
			}
		}
		if !send(m) {
			return false
		}
	}
	return true
}
