package farm_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/tlssession/farm"
)

// TestA13Farm checks that a client resumes on another member, by id and by ticket,
// also after the keys have been rotated.
func TestA13Farm(t *testing.T) {
	template()
	synctest.Test(t, func(t *testing.T) {
		var n network
		nodes := []*node{n.start(t, nil), n.start(t, nil), n.start(t, nil)}
		settle()
		ids, tickets := newClient(), newClient()
		for i := range 12 {
			m := nodes[i%3]
			if got := handshake(t, m.server, ids); got != (i > 0) {
				t.Errorf("handshake %d by id: resumed %v", i, got)
			}
			if got := handshake(t, m.ticket, tickets); got != (i > 0) {
				t.Errorf("handshake %d by ticket: resumed %v", i, got)
			}
			synctest.Wait()
			if !same(nodes...) {
				t.Error("the members have different sessions")
			}
			time.Sleep(time.Hour) // a new key every 12 h
		}
		leaders := 0
		for _, m := range nodes {
			s := m.Stats()
			if !s.Connected || s.Members != 3 || s.Keys < 1 || s.Rejected != 0 || s.Dropped != 0 || s.Failed != 0 || s.Queued != 0 {
				t.Errorf("%+v", s)
			}
			if s.Leader {
				leaders++
			}
			if !bytes.Equal(m.keys.Bytes(), nodes[0].keys.Bytes()) {
				t.Error("the members have different keys")
			}
		}
		if leaders != 1 {
			t.Errorf("%d leaders", leaders)
		}
	})
}

// TestA13NoEcho checks that a member does not publish the insertions and removals of a
// peer.
func TestA13NoEcho(t *testing.T) {
	template()
	synctest.Test(t, func(t *testing.T) {
		var n network
		a, b := n.start(t, nil), n.start(t, nil)
		settle()
		n.mu.Lock()
		n.count = 0
		n.mu.Unlock()
		id := a.insert(t)
		synctest.Wait()
		if s, ok := b.cache.Lookup(id); !ok || s.Origin == "" {
			t.Error("not shared, or without origin", ok)
		}
		if err := b.cache.Remove(id); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if a.cache.Get(id) != nil {
			t.Error("not removed")
		}
		n.mu.Lock()
		if n.count != 2 {
			t.Errorf("%d messages", n.count)
		}
		n.mu.Unlock()
		// Insert again, with the same id.
		if err := a.cache.Insert(id, tlssession.Session{State: template()}); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if b.cache.Get(id) == nil {
			t.Error("not inserted again")
		}
	})
}

// TestA13NewMember checks that a new member receives the sessions, the removals, and the
// keys.
func TestA13NewMember(t *testing.T) {
	template()
	synctest.Test(t, func(t *testing.T) {
		var n network
		a, b := n.start(t, nil), n.start(t, nil)
		settle()
		for range 500 {
			a.insert(t)
			b.insert(t)
		}
		c, d := n.start(t, nil), n.start(t, nil) // at the same time
		settle()
		if !same(a, b, c, d) || len(c.cache.IDs()) != 1000 || !bytes.Equal(c.keys.Bytes(), a.keys.Bytes()) {
			t.Errorf("%d and %d sessions", len(c.cache.IDs()), len(d.cache.IDs()))
		}
	})
}

// TestA13BusDown checks that a member without the bus continues to work, and afterwards
// exchanges the missed messages with the others.
func TestA13BusDown(t *testing.T) {
	template()
	synctest.Test(t, func(t *testing.T) {
		var n network
		a, b := n.start(t, nil), n.start(t, nil)
		settle()
		client := newClient()
		handshake(t, a.server, client)
		gone := a.insert(t)
		synctest.Wait()
		b.log.take()
		b.bus.setDown(true)
		synctest.Wait()
		if b.Stats().Connected {
			t.Error("connected without bus")
		}
		if !handshake(t, b.server, client) {
			t.Error("a member alone does not resume what it has")
		}
		elsewhere := newClient()
		handshake(t, a.server, elsewhere)
		if handshake(t, b.server, elsewhere) {
			t.Error("resumed an unknown session")
		}
		if err := a.cache.Remove(gone); err != nil {
			t.Error(err)
		}
		for range 50 {
			a.insert(t)
			b.insert(t)
		}
		time.Sleep(time.Minute)
		if got := b.log.take(); len(got) != 1 {
			t.Error("warnings:", got)
		}
		if b.Stats().Queued == 0 {
			t.Error("nothing waits for the bus")
		}
		b.bus.setDown(false)
		settle()
		if !same(a, b) || b.cache.Get(gone) != nil || b.Stats().Queued != 0 {
			t.Errorf("%d and %d sessions, %+v", len(a.cache.IDs()), len(b.cache.IDs()), b.Stats())
		}
		if got := b.log.take(); len(got) != 1 {
			t.Error("warnings:", got)
		}
	})
}

// TestA13StaleSnapshot checks that the snapshot of a member that has missed a removal does
// not restore the session.
func TestA13StaleSnapshot(t *testing.T) {
	template()
	synctest.Test(t, func(t *testing.T) {
		var n network
		stale, m := n.start(t, nil), n.start(t, nil)
		settle()
		if m.Stats().Leader { // the member with the smallest id answers those that join
			stale, m = m, stale
		}
		id := m.insert(t)
		synctest.Wait()
		joins := n.start(t, nil)
		synctest.Wait()
		stale.bus.setDown(true) // before it answers
		if err := m.cache.Remove(id); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		received := m.Stats().Received
		stale.bus.setDown(false)
		settle()
		for i, m := range []*node{m, joins, stale} {
			if m.cache.Get(id) != nil {
				t.Errorf("member %d has the session again", i)
			}
		}
		if m.Stats().Received == received {
			t.Error("nothing received")
		}
	})
}

// TestA13Partition checks that both sides of a partition create their own keys, and agree
// afterwards. No ticket of either side is lost.
func TestA13Partition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		var nodes []*node
		for range 4 {
			nodes = append(nodes, n.start(t, func(o *farm.Options) { o.Rotate = time.Hour; o.Older = 10 }))
		}
		settle()
		for _, m := range nodes[2:] {
			m.bus.setDown(true)
		}
		time.Sleep(100 * time.Minute) // without the bus no member makes keys
		one, two := newClient(), newClient()
		handshake(t, nodes[0].ticket, one)
		handshake(t, nodes[3].ticket, two)
		for _, m := range nodes[2:] {
			m.bus.setDown(false)
		}
		settle()
		for _, m := range nodes {
			if !bytes.Equal(m.keys.Bytes(), nodes[0].keys.Bytes()) {
				t.Error("different keys after the partition")
			}
		}
		if !handshake(t, nodes[3].ticket, one) || !handshake(t, nodes[0].ticket, two) {
			t.Error("a ticket of the partition is lost")
		}
	})
}

// TestA13QueueBound checks that the queue is bounded, and that discarded messages are
// counted.
func TestA13QueueBound(t *testing.T) {
	template()
	synctest.Test(t, func(t *testing.T) {
		var n network
		a := n.start(t, func(o *farm.Options) { o.Queue = 100 })
		a.bus.setDown(true)
		synctest.Wait()
		for range 250 {
			a.insert(t)
		}
		if s := a.Stats(); s.Queued != 100 || s.Dropped != 150 {
			t.Errorf("%+v", s)
		}
	})
}

// TestA13Attacker checks that an attacker who controls the bus cannot insert, remove or
// read anything.
func TestA13Attacker(t *testing.T) {
	template()
	synctest.Test(t, func(t *testing.T) {
		n := network{keep: true}
		a, b := n.start(t, nil), n.start(t, nil)
		stranger := n.start(t, func(o *farm.Options) { o.Key = bytes.Repeat([]byte("x"), 32) })
		settle()
		n.mu.Lock()
		before := len(n.messages)
		n.mu.Unlock()
		kept, gone := a.insert(t), a.insert(t)
		synctest.Wait()
		if err := a.cache.Remove(gone); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if len(stranger.cache.IDs()) != 0 || bytes.Equal(stranger.keys.Bytes(), a.keys.Bytes()) {
			t.Error("a stranger has the sessions")
		}
		n.mu.Lock()
		messages := n.messages
		n.keep = false
		n.mu.Unlock()
		secret, _ := template().Bytes()
		for _, m := range messages {
			if bytes.Contains(m, []byte(kept)) || bytes.Contains(m, secret[20:50]) || bytes.Contains(m, a.keys.Bytes()[:16]) {
				t.Error("a message has plain text")
			}
		}
		keys := a.keys.Bytes()
		attack := func(nodes ...*node) {
			t.Helper()
			for _, m := range messages {
				n.send(m) // again
				changed := bytes.Clone(m)
				changed[rand.IntN(len(m))] ^= 1 << rand.IntN(8)
				n.send(changed)
				n.send(m[:rand.IntN(len(m))])
			}
			for _, m := range slices.Backward(messages) { // the removal, then the insertion
				n.send(m)
			}
			n.send(nil)
			n.send(make([]byte, farm.MaxMessage+1))
			synctest.Wait()
			for i, m := range nodes {
				if ids := m.cache.IDs(); len(ids) != 1 || ids[0] != kept || !bytes.Equal(m.keys.Bytes(), keys) {
					t.Errorf("member %d: %d sessions, or other keys", i, len(ids))
				}
			}
		}
		attack(a, b)
		time.Sleep(10 * time.Minute)
		attack(a, b)
		if s := b.Stats(); s.Rejected < uint64(len(messages)) {
			t.Errorf("%+v", s)
		}
		// A member that has just joined knows no numbers.
		c := n.start(t, nil)
		settle()
		attack(a, b, c)
		if c.Stats().Members != 3 {
			t.Error(c.Stats().Members, "members")
		}
		// The numbers of a member that has gone are forgotten, but not the time.
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		for _, m := range messages[before:] {
			time.Sleep(10 * time.Minute)
			messages = [][]byte{m}
			attack(b, c)
		}
	})
}

func TestJoinErrors(t *testing.T) {
	var n network
	for i, o := range []farm.Options{
		{Key: farmKey, Keys: new(tlssession.Keys)},
		{Bus: n.bus(), Keys: new(tlssession.Keys)},
		{Bus: n.bus(), Key: farmKey[:31], Keys: new(tlssession.Keys)},
		{Bus: n.bus(), Key: farmKey},
	} {
		if f, err := farm.Join(o); err == nil {
			f.Close()
			t.Errorf("case %d: no error", i)
		}
	}
}

// TestA13Partial tests a farm that shares only keys, or only sessions.
func TestA13Partial(t *testing.T) {
	template()
	for i := range 2 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n network
				change := func(o *farm.Options) {
					if i == 0 {
						o.Cache = nil
					} else {
						o.Keys = nil
					}
				}
				a, b := n.start(t, change), n.start(t, change)
				settle()
				ids, tickets := newClient(), newClient()
				handshake(t, a.server, ids)
				handshake(t, a.ticket, tickets)
				synctest.Wait()
				if got := handshake(t, b.server, ids); got != (i == 1) {
					t.Errorf("by id: resumed %v", got)
				}
				if got := handshake(t, b.ticket, tickets); got != (i == 0) {
					t.Errorf("by ticket: resumed %v", got)
				}
			})
		})
	}
}
