package tlssession_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// client returns a config whose sessions are in c.
func client(c *tlssession.Clients, scope transport.Scope) *tls.Config {
	config := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
	(&tlssession.Sessions{Clients: c}).Client(scope, config)
	return config
}

func sessionServer(t testing.TB) (*tlssession.Cache, string) {
	cache := tlssession.NewCache(tlssession.Options{})
	config := serverConfig()
	(&tlssession.Sessions{Cache: cache}).Server(transport.Scope{}, config)
	return cache, listen(t, config)
}

// TestClientsScope checks that a session is not used if any field of the scope, or the
// server name, differs.
func TestClientsScope(t *testing.T) {
	_, addr := sessionServer(t)
	c := tlssession.NewClients(0)
	base := transport.Scope{Trust: "trust", Cert: "cert", Host: "host", Port: 1}
	dial(t, addr, client(c, base))
	for _, scope := range []transport.Scope{
		base,
		{Trust: "x", Cert: "cert", Host: "host", Port: 1},
		{Trust: "trust", Cert: "x", Host: "host", Port: 1},
		{Trust: "trust", Cert: "cert", Host: "x", Port: 1},
		{Trust: "trust", Cert: "cert", Host: "host", Port: 2},
		{},
	} {
		if got := dial(t, addr, client(c, scope)); got != (scope == base) {
			t.Errorf("%+v: resumed %v", scope, got)
		}
	}
	other := client(c, base)
	other.ServerName = "other.test"
	if dial(t, addr, other) {
		t.Error("resumed with another server name")
	}
}

func TestClientsStats(t *testing.T) {
	cache, addr := sessionServer(t)
	c := tlssession.NewClients(2)
	calls := 0
	config := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost",
		VerifyConnection: func(tls.ConnectionState) error { calls++; return nil }}
	c.Client(transport.Scope{}, config)
	dial(t, addr, config)
	dial(t, addr, config)
	for _, id := range cache.IDs() {
		if err := cache.Remove(id); err != nil {
			t.Error(err)
		}
	}
	dial(t, addr, config)
	if s := c.Stats(); s != (tlssession.ClientStats{Sessions: 1, Handshakes: 3, Resumed: 1, Refused: 1}) {
		t.Errorf("%+v", s)
	}
	if calls != 3 {
		t.Errorf("VerifyConnection was called %d times", calls)
	}
	for i := range 3 {
		dial(t, addr, client(c, transport.Scope{Host: fmt.Sprint(i)}))
	}
	if s := c.Stats(); s.Sessions != 2 || s.Evicted != 2 {
		t.Errorf("%+v", s)
	}
	if !dial(t, addr, client(c, transport.Scope{Host: "2"})) || dial(t, addr, client(c, transport.Scope{Host: "0"})) {
		t.Error("evicted another session than the oldest")
	}
	// A certificate that is not trusted ends the handshake.
	config.RootCAs = nil
	if _, err := tryDial(addr, config); err == nil {
		t.Error("connected")
	}
}

// TestClientsFile checks that a device resumes after a restart.
func TestClientsFile(t *testing.T) {
	_, addr := sessionServer(t)
	file := filepath.Join(t.TempDir(), "sessions")
	o := tlssession.ClientOptions{File: file, Key: keyData(1)}
	open := func(o tlssession.ClientOptions) (*tlssession.Clients, *warnings) {
		t.Helper()
		var w warnings
		o.Logger = &w
		c, err := tlssession.OpenClients(o)
		if err != nil {
			t.Fatal(err)
		}
		return c, &w
	}
	c, _ := open(o)
	for i := range 3 {
		dial(t, addr, client(c, transport.Scope{Host: fmt.Sprint(i)}))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if bytes.Contains(text, []byte("localhost")) {
		t.Error("the file is not encrypted")
	}
	c, w := open(o)
	if !dial(t, addr, client(c, transport.Scope{Host: "1"})) || len(w.list) != 0 {
		t.Error("not resumed after a restart", w.list)
	}
	if dial(t, addr, client(c, transport.Scope{Host: "x"})) {
		t.Error("resumed in another scope")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	small := o
	small.MaxSessions = 1
	if c, _ = open(small); c.Stats().Sessions != 1 {
		t.Error(c.Stats())
	}

	// Another key, and manipulated files.
	if text, err = os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	for i := range len(text) + 2 {
		other, bad := o, bytes.Clone(text)
		switch {
		case i == len(text):
			other.Key = keyData(1)
		case i == len(text)+1:
			bad = nil
		case i%2 == 0:
			bad[i] ^= 1
		default:
			bad = bad[:i]
		}
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, w := open(other); c.Stats().Sessions != 0 || len(w.list) != 1 {
			t.Fatalf("case %d: %d sessions, %q", i, c.Stats().Sessions, w.list)
		}
	}
}

func TestOpenClientsErrors(t *testing.T) {
	dir := t.TempDir()
	for _, o := range []tlssession.ClientOptions{
		{File: filepath.Join(dir, "x")},
		{File: filepath.Join(dir, "x"), Key: keyData(2)},
		{File: dir, Key: keyData(1)},
	} {
		if c, err := tlssession.OpenClients(o); err == nil {
			t.Errorf("%+v: %v", o, c)
		}
	}
	if _, err := tlssession.OpenClients(tlssession.ClientOptions{}); err != nil {
		t.Error(err)
	}
	c, err := tlssession.OpenClients(tlssession.ClientOptions{File: filepath.Join(dir, "none", "x"), Key: keyData(1)})
	if err != nil {
		t.Fatal(err)
	}
	_, addr := sessionServer(t)
	dial(t, addr, client(c, transport.Scope{}))
	if err := c.Close(); err == nil {
		t.Error("Close did not report that the file cannot be written")
	}
}

// warnings records what is logged.
type warnings struct {
	mu   sync.Mutex
	list []string
}

func (w *warnings) Warn(msg string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, fmt.Sprint(append([]any{msg}, args...)...))
}

func (w *warnings) Error(msg string, args ...any) { w.Warn(msg, args...) }
