package farm_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/tlssession/farm"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// A network carries the messages of buses within the process.
type network struct {
	mu       sync.Mutex
	buses    []*bus
	messages [][]byte // if keep
	keep     bool
	count    int
	bytes    int
}

// A bus is the bus of one member.
type bus struct {
	n    *network
	mu   sync.Mutex
	in   chan []byte // nil without subscription
	cut  chan struct{}
	down bool
}

func (n *network) bus() *bus {
	b := &bus{n: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.buses = append(n.buses, b)
	return b
}

var errDown = errors.New("the bus is down")

// setDown disconnects or reconnects the bus of a member.
func (b *bus) setDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down = down; down && b.cut != nil {
		close(b.cut)
		b.in, b.cut = nil, nil
	}
}

func (b *bus) Publish(_ context.Context, m []byte) error {
	b.mu.Lock()
	down := b.down
	b.mu.Unlock()
	if down {
		return errDown
	}
	b.n.send(m)
	return nil
}

// send sends a message to all members, like an attacker.
func (n *network) send(m []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.count++
	n.bytes += len(m)
	if n.keep {
		n.messages = append(n.messages, m)
	}
	for _, b := range n.buses {
		b.mu.Lock()
		if b.in != nil {
			b.in <- m
		}
		b.mu.Unlock()
	}
}

func (b *bus) Subscribe(ctx context.Context, ready func(), receive func([]byte)) error {
	b.mu.Lock()
	if b.down {
		b.mu.Unlock()
		return errDown
	}
	in, cut := make(chan []byte, 1000), make(chan struct{})
	b.in, b.cut = in, cut
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.in == in {
			b.in, b.cut = nil, nil
		}
	}()
	ready()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cut:
			return errDown
		case m := <-in:
			receive(m)
		}
	}
}

var farmKey = bytes.Repeat([]byte("k"), 32)

// A node is a member with its server.
type node struct {
	*farm.Farm
	bus    *bus
	cache  *tlssession.Cache
	keys   *tlssession.Keys
	server *tls.Config // with the cache
	ticket *tls.Config // with tickets
	log    *warnings
}

var (
	ca     = testcert.New("farm")
	config = newConfig()

	// start is the time of certificates, which differs from the clock of a bubble.
	start = time.Now()
)

func clock() time.Time { return start }

func newConfig() *tls.Config {
	c := ca.Server(nil, "localhost")
	c.Time = clock
	return c
}

// start starts a member. It ends with the test.
func (n *network) start(t testing.TB, change func(*farm.Options)) *node {
	t.Helper()
	m := &node{bus: n.bus(), cache: tlssession.NewCache(tlssession.Options{}), keys: new(tlssession.Keys), log: new(warnings)}
	m.server, m.ticket = config.Clone(), config.Clone()
	(&tlssession.Sessions{Cache: m.cache}).Server(transport.Scope{}, m.server)
	(&tlssession.Sessions{Keys: m.keys}).Server(transport.Scope{}, m.ticket)
	o := farm.Options{Bus: m.bus, Key: farmKey, Cache: m.cache, Keys: m.keys, Logger: m.log}
	if change != nil {
		change(&o)
	}
	f, err := farm.Join(o)
	if err != nil {
		t.Fatal(err)
	}
	m.Farm = f
	t.Cleanup(func() { f.Close() })
	return m
}

// handshake connects to a server, and reports whether it has resumed.
func handshake(t testing.TB, server, client *tls.Config) bool {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		_, err := io.WriteString(s, "x")
		s.Close()
		done <- err
	}()
	c := tls.Client(b, client)
	_, err := io.ReadAll(c)
	c.Close()
	if err = errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().DidResume
}

func newClient() *tls.Config {
	return &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Time: clock, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
}

// template is a session of a server.
var template = sync.OnceValue(func() *tls.SessionState {
	c := tlssession.NewCache(tlssession.Options{})
	server := config.Clone()
	(&tlssession.Sessions{Cache: c}).Server(transport.Scope{}, server)
	a, b := net.Pipe()
	go func() {
		s := tls.Server(a, server)
		io.WriteString(s, "x")
		s.Close()
	}()
	conn := tls.Client(b, newClient())
	io.ReadAll(conn)
	conn.Close()
	return c.Get(c.IDs()[0])
})

// insert adds a session to a member, as a handshake does, and returns its id.
func (m *node) insert(t testing.TB) tlssession.ID {
	t.Helper()
	b := make([]byte, tlssession.MaxID)
	rand.Read(b)
	if err := m.cache.Insert(tlssession.ID(b), tlssession.Session{State: template()}); err != nil {
		t.Fatal(err)
	}
	return tlssession.ID(b)
}

// same reports whether all members have the same sessions.
func same(nodes ...*node) bool {
	sorted := func(n *node) []tlssession.ID {
		ids := n.cache.IDs()
		slices.Sort(ids)
		return ids
	}
	for _, n := range nodes[1:] {
		if !slices.Equal(sorted(n), sorted(nodes[0])) {
			return false
		}
	}
	return true
}

// settle waits until a new farm has ticket keys, and all members are ready.
func settle() { time.Sleep(2*time.Minute + time.Second) }

// warnings records what is logged.
type warnings struct {
	mu   sync.Mutex
	list []string
}

func (w *warnings) Warn(msg string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, msg)
}

func (w *warnings) Error(msg string, args ...any) { w.Warn(msg, args...) }

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.list
	w.list = nil
	return l
}
