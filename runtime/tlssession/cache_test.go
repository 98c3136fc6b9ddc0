package tlssession_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func newEvent(id tlssession.ID) tlssession.Event {
	return tlssession.Event{Kind: tlssession.EventNew, ID: id}
}

func removeEvent(id tlssession.ID, why tlssession.Reason) tlssession.Event {
	return tlssession.Event{Kind: tlssession.EventRemove, ID: id, Reason: why}
}

// TestA1HookIsSynchronous checks that the handshake waits for the watcher, which
// may use the cache.
func TestA1HookIsSynchronous(t *testing.T) {
	c := tlssession.NewCache(tlssession.Options{})
	entered, leave := make(chan tlssession.ID), make(chan struct{})
	stop := c.Watch(func(e tlssession.Event) {
		if c.Get(e.ID) == nil {
			t.Error("the session of the event is not in the cache")
		}
		entered <- e.ID
		<-leave
	})
	config := serverConfig()
	(&tlssession.Sessions{Cache: c}).Server(transport.Scope{}, config)
	addr := listen(t, config)
	done := make(chan error, 1)
	go func() {
		_, err := tryDial(addr, clientConfig(tls.VersionTLS12))
		done <- err
	}()
	<-entered
	select {
	case <-done:
		t.Error("the handshake did not wait for the watcher")
	default:
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
	stop()
	stop()
	dial(t, addr, clientConfig(tls.VersionTLS12)) // would block
}

// TestA2NewA3Get checks requirements A2 and A3: a handshake inserts a session, and
// one that resumes gets it. A miss is not an event.
func TestA2NewA3Get(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			c := tlssession.NewCache(tlssession.Options{})
			var r recorder
			c.Watch(r.add)
			config := serverConfig()
			(&tlssession.Sessions{Cache: c}).Server(transport.Scope{}, config)
			addr, client := listen(t, config), clientConfig(version)

			dial(t, addr, client)
			first := r.take()
			if len(first) != 1 || first[0].Kind != tlssession.EventNew || len(first[0].ID) != tlssession.MaxID {
				t.Fatal(first)
			}
			if !dial(t, addr, client) {
				t.Error("not resumed")
			}
			events := r.take()
			if len(events) != 2 || events[0] != (tlssession.Event{Kind: tlssession.EventGet, ID: first[0].ID}) || events[1].Kind != tlssession.EventNew {
				t.Error(events)
			}
			for _, id := range c.IDs() {
				if err := c.Remove(id); err != nil {
					t.Error(err)
				}
			}
			r.take()
			if dial(t, addr, client) {
				t.Error("resumed a removed session")
			}
			if events = r.take(); len(events) != 1 || events[0].Kind != tlssession.EventNew {
				t.Error(events)
			}
			if s := c.Stats(); s.Hits != 1 || s.Misses != 1 || s.Inserted != 3 || s.Removed != 2 || s.Sessions != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestA4Remove(t *testing.T) {
	s := state(t)
	synctest.Test(t, func(t *testing.T) {
		c := tlssession.NewCache(tlssession.Options{MaxSessions: 2, Lifetime: time.Minute})
		var r recorder
		c.Watch(r.add)
		insert := func(id tlssession.ID, d time.Duration) {
			t.Helper()
			if err := c.Insert(id, tlssession.Session{State: s, Expires: time.Now().Add(d)}); err != nil {
				t.Fatal(err)
			}
		}
		insert("a", time.Minute)
		insert("b", 10*time.Second)
		r.take()
		insert("c", time.Hour) // expires in a minute
		if d := cmp.Diff([]tlssession.Event{removeEvent("b", tlssession.Evicted), newEvent("c")}, r.take()); d != "" {
			t.Error("evicted:", d)
		}
		if err := c.Remove("a"); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff([]tlssession.Event{removeEvent("a", tlssession.Removed)}, r.take()); d != "" {
			t.Error("removed:", d)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if d := cmp.Diff([]tlssession.Event{removeEvent("c", tlssession.Expired)}, r.take()); d != "" {
			t.Error("expired:", d)
		}
		insert("d", 100*time.Millisecond)
		time.Sleep(100 * time.Millisecond)
		if c.Get("d") != nil {
			t.Error("Get returned an expired session before the sweep")
		}
		if err := c.Insert("e", tlssession.Session{State: s, Expires: time.Now()}); !errors.Is(err, tlssession.ErrExpired) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s := c.Stats(); s.Sessions != 0 || s.Bytes != 0 || s.Expired != 2 || s.Evicted != 1 || s.Removed != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestA4SweepMany checks that a sweep removes all sessions that have expired,
// however many.
func TestA4SweepMany(t *testing.T) {
	s := state(t)
	synctest.Test(t, func(t *testing.T) {
		c := tlssession.NewCache(tlssession.Options{Lifetime: time.Minute})
		for i := range 2500 {
			if err := c.Insert(tlssession.ID(fmt.Sprint(i)), tlssession.Session{State: s}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := c.Stats(); s.Sessions != 0 || s.Expired != 2500 {
			t.Errorf("%+v", s)
		}
	})
}

func TestA5ID(t *testing.T) {
	c := tlssession.NewCache(tlssession.Options{})
	s := state(t)
	for _, tt := range []struct {
		id tlssession.ID
		ok bool
	}{
		{"", false}, {"x", true}, {"\x00\xff", true},
		{tlssession.ID(strings.Repeat("x", tlssession.MaxID)), true},
		{tlssession.ID(strings.Repeat("x", tlssession.MaxID+1)), false},
	} {
		err := c.Insert(tt.id, tlssession.Session{State: s})
		if tt.ok != (err == nil) || !tt.ok && !errors.Is(err, tlssession.ErrID) {
			t.Errorf("%v: %v", tt.id, err)
		}
		if got := c.Get(tt.id) != nil; got != tt.ok {
			t.Errorf("%v: Get %v", tt.id, got)
		}
	}
	if got := tlssession.ID("\x00\xff").String(); got != "00ff" {
		t.Error(got)
	}
}

// TestA6A7Get checks requirements A6 and A7: Get returns a copy that the caller may
// change, and does not cause an event.
func TestA6A7Get(t *testing.T) {
	c := tlssession.NewCache(tlssession.Options{})
	s := state(t)
	if err := c.Insert("a", tlssession.Session{State: s}); err != nil {
		t.Fatal(err)
	}
	var r recorder
	c.Watch(r.add)
	got := c.Get("a")
	if encode(t, got) != encode(t, s) {
		t.Error("Get returned another session")
	}
	got.Extra = nil
	if encode(t, c.Get("a")) != encode(t, s) {
		t.Error("a change of the result changed the cache")
	}
	if c.Get("b") != nil || len(r.take()) != 0 {
		t.Error("Get returned a session for an unknown id, or caused an event")
	}
}

func TestA8GetBuffer(t *testing.T) {
	c := tlssession.NewCache(tlssession.Options{})
	s := state(t)
	if err := c.Insert("a", tlssession.Session{State: s}); err != nil {
		t.Fatal(err)
	}
	full := encode(t, s)
	for _, tt := range []struct {
		id             tlssession.ID
		room           int
		needed, stored int
	}{
		{"a", 0, len(full), 0},
		{"a", len(full) - 1, len(full), 0},
		{"a", len(full), len(full), len(full)},
		{"a", len(full) + 1, len(full), len(full)},
		{"b", 1000, 0, 0},
		{"", 1000, 0, 0},
	} {
		buf := make([]byte, tt.room)
		needed, stored := c.GetBuffer(tt.id, buf)
		if needed != tt.needed || stored != tt.stored {
			t.Errorf("%q, %d bytes: needed %d, stored %d", tt.id, tt.room, needed, stored)
		}
		if want := full[:stored] + string(make([]byte, tt.room-stored)); string(buf) != want {
			t.Errorf("%q, %d bytes: wrong content", tt.id, tt.room)
		}
	}
}

func TestA9Insert(t *testing.T) {
	c := tlssession.NewCache(tlssession.Options{})
	s := state(t)
	if err := c.Insert("a", tlssession.Session{State: s, Origin: "peer"}); err != nil {
		t.Fatal(err)
	}
	var r recorder
	c.Watch(r.add)
	if err := c.Insert("a", tlssession.Session{State: s}); err != nil {
		t.Fatal(err)
	}
	removed := removeEvent("a", tlssession.Replaced)
	removed.Origin = "peer"
	if d := cmp.Diff([]tlssession.Event{removed, newEvent("a")}, r.take()); d != "" {
		t.Error(d)
	}
	if err := c.Insert("a", tlssession.Session{}); err == nil {
		t.Error("a session without state was inserted")
	}
	if got, ok := c.Lookup("a"); !ok || got.Origin != "" || time.Until(got.Expires) < time.Hour {
		t.Error(got, ok)
	}
}

func TestA10Remove(t *testing.T) {
	c := tlssession.NewCache(tlssession.Options{})
	if err := c.Insert("a", tlssession.Session{State: state(t)}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []tlssession.ID{"b", "", tlssession.ID(strings.Repeat("x", 40))} {
		if err := c.Remove(id); !errors.Is(err, tlssession.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if err := c.Remove("a"); err != nil {
		t.Error(err)
	}
	if err := c.Remove("a"); !errors.Is(err, tlssession.ErrNotFound) {
		t.Error(err)
	}
}

func TestBounds(t *testing.T) {
	s := state(t)
	size := int64(len(encode(t, s)) + 1 + tlssession.Overhead)
	c := tlssession.NewCache(tlssession.Options{MaxBytes: 2 * size})
	for i := range 5 {
		if err := c.Insert(tlssession.ID(rune('a'+i)), tlssession.Session{State: s}); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Stats(); got.Sessions != 2 || got.Bytes != 2*size || got.Evicted != 3 || c.Get("e") == nil {
		t.Errorf("%+v", got)
	}
	for _, o := range []tlssession.Options{{MaxSession: len(encode(t, s)) - 1}, {MaxBytes: size - 1}} {
		c := tlssession.NewCache(o)
		if err := c.Insert("a", tlssession.Session{State: s}); !errors.Is(err, tlssession.ErrTooLarge) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// TestConcurrent checks that the bounds hold under concurrent calls, and that a watcher
// that examines the cache ends with the same content.
func TestConcurrent(t *testing.T) {
	s := state(t)
	c := tlssession.NewCache(tlssession.Options{MaxSessions: 20})
	var mu sync.Mutex
	mirror := map[tlssession.ID]bool{}
	c.Watch(func(e tlssession.Event) {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := c.Lookup(e.ID); ok {
			mirror[e.ID] = true
		} else {
			delete(mirror, e.ID)
		}
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 300 {
				id := tlssession.ID(rune('a' + rand.IntN(30)))
				switch rand.IntN(4) {
				case 0:
					_ = c.Remove(id)
				case 1:
					c.Get(id)
				default:
					if err := c.Insert(id, tlssession.Session{State: s}); err != nil {
						t.Error(err)
					}
				}
				if c.Stats().Sessions > 20 {
					t.Error("too many sessions")
				}
			}
		})
	}
	wg.Wait()
	ids := c.IDs()
	if len(ids) != len(mirror) {
		t.Errorf("the cache has %d sessions, its copy %d", len(ids), len(mirror))
	}
	for _, id := range ids {
		if !mirror[id] {
			t.Errorf("the copy lacks %v", id)
		}
	}
}

// TestMemory checks that Overhead is at least the memory overhead of a session.
func TestMemory(t *testing.T) {
	s := state(t)
	c := tlssession.NewCache(tlssession.Options{MaxSessions: 1 << 20})
	const n = 50_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		id := make([]byte, tlssession.MaxID)
		for i := range id {
			id[i] = byte(rand.Uint32())
		}
		if err := c.Insert(tlssession.ID(id), tlssession.Session{State: s}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d bytes a session, %d by count; the encoding has %d", used/n, c.Stats().Bytes/n, len(encode(t, s)))
	if used > c.Stats().Bytes {
		t.Errorf("the cache uses %d bytes, and counts %d", used, c.Stats().Bytes)
	}
	runtime.KeepAlive(c)
}
