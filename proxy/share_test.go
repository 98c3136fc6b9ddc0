package proxy

import (
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/internal/teststream"
	ss "github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A halfCloser is a connection whose peer ignores CloseWrite.
type halfCloser struct{ net.Conn }

func (halfCloser) CloseWrite() error { return nil }

// TestRefusedShare checks that a refused link counts as one without a stream until it has
// closed.
func TestRefusedShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(teststream.NewContext(t, ss.Options{}), Options{MaxLinks: unnamedShare, Roles: []*Role{}})
		defer p.Close()
		open := func() {
			ours, theirs := net.Pipe()
			p.start(halfCloser{ours})
			theirs.SetDeadline(time.Now().Add(time.Minute))
			b, err := sspcwire.AppendStreamType(nil, sspcwire.StreamType{Name: "get"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := theirs.Write(b); err == nil {
				theirs.Read(make([]byte, 100))
			}
			synctest.Wait()
		}
		open()
		open()
		if s := p.Stats(); s.LinksRefused != 1 || s.StreamsRefused != 1 {
			t.Errorf("a refused link is not counted: %+v", s)
		}
		time.Sleep(refusalTimeout)
		synctest.Wait()
		open()
		if s := p.Stats(); s.LinksRefused != 1 || s.StreamsRefused != 2 {
			t.Errorf("a refused link is counted after its end: %+v", s)
		}
	})
}

// TestPeerShare checks that one user gets at most half of the links, or the share of its
// role.
func TestPeerShare(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not provide the user of a client")
	}
	const maxLinks = 20
	key := Peer{Known: true, UID: uint32(os.Getuid())}.key()
	for _, test := range []struct {
		roles []*Role
		want  int
	}{
		{nil, maxLinks / 2},
		{[]*Role{{MaxLinks: 15}}, 15},
	} {
		f := newFixtureWith(t, Options{MaxLinks: maxLinks, Roles: test.roles}, newOrigin(t).streamtypes()...)
		clients := make([]*client, test.want)
		for i := range clients {
			clients[i] = f.open(t, "get", 0)
			clients[i].expect("CREATE, CRE")
			eventually(t, "the link counts", func() bool { // after CREATE
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.peers[key].named == i+1
			})
		}
		refused := f.open(t, "get", 0)
		refused.expect("REFUSED")
		refused.Close()
		clients[0].Close()
		eventually(t, "a link ends", func() bool { return f.Stats().Links < test.want })
		f.open(t, "get", 0).expect("CREATE, CRE")
	}
}

// TestRetryPause checks that a client cannot skip the backoff without limit.
func TestRetryPause(t *testing.T) {
	o := newOrigin(t)
	f := newFixture(t, &policy.StreamType{
		Name: "away", Endpoint: "127.0.0.1", Port: uint16(o.refused), Protocol: policy.ProtocolH1, Opportunistic: true,
		HTTP: &policy.HTTP{Method: "GET"}, Retry: &policy.Retry{Backoff: []time.Duration{time.Hour}, Conceal: 100},
	})
	c := f.open(t, "away", 0)
	begin := time.Now()
	const attempts = 4
	for range attempts {
		c.connect()
		c.until("UNR")
	}
	if took := time.Since(begin); took < (attempts-1)*retryPause {
		t.Errorf("%d attempts in %v", attempts, took)
	}
}

// TestHeld checks that metadata and incomplete frames count for a role, and that a link of
// a role that has reached its limit cannot add metadata.
func TestHeld(t *testing.T) {
	f := newFixtureWith(t, Options{Roles: []*Role{{MaxBuffered: 100_000}}}, newOrigin(t).streamtypes()...)
	a, b, c := f.open(t, "get", 0), f.open(t, "get", 0), f.open(t, "get", 0)
	held := func(ok func(n int64) bool) {
		t.Helper()
		eventually(t, "the role holds so much", func() bool { return ok(f.budgets[0].buffered.Load()) })
	}
	// The proxy stores a's metadata before b's frame takes the rest. In the other order it
	// would reject the metadata, whose frame counts before it is complete.
	a.set("uptag", strings.Repeat("x", 60_000))
	a.send(sspcwire.AppendTimeout(nil, 1), nil)
	a.until("TMO")
	held(func(n int64) bool { return n >= 60_000 })
	b.send([]byte{byte(sspcwire.TypeTx), 0xff, 0xff}, nil)
	held(func(n int64) bool { return n > 100_000 })
	c.set("path", "body?n=3")
	c.connect()
	c.until("DIS")
	c.set("uptag", strings.Repeat("x", readSize))
	c.end()
	a.Close()
	b.Close()
	held(func(n int64) bool { return n == 0 })
}

// TestLogPeer checks that a JSON log contains a peer as text.
func TestLogPeer(t *testing.T) {
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("", "peer", Peer{Known: true, PID: 3, UID: 1, GID: 2})
	if !strings.Contains(b.String(), `"peer":"uid 1 gid 2 pid 3"`) {
		t.Error(b.String())
	}
}
