package tlssession_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

var ca = testcert.New("tlssession")

// serverConfig returns a config for the names localhost and other.test.
func serverConfig() *tls.Config { return ca.Server(nil, "localhost", "other.test", "127.0.0.1") }

// listen starts a server that sends "hello" on each connection and closes it. It
// returns the address.
func listen(t testing.TB, config *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				io.WriteString(c, "hello\n")
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// dial makes a connection, reads what the server sends, and reports whether the
// handshake resumed a session.
func dial(t testing.TB, addr string, config *tls.Config) bool {
	t.Helper()
	resumed, err := tryDial(addr, config)
	if err != nil {
		t.Fatal(err)
	}
	return resumed
}

func tryDial(addr string, config *tls.Config) (resumed bool, err error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, config)
	if err != nil {
		return false, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	got, err := io.ReadAll(c)
	if err == nil && string(got) != "hello\n" {
		err = errors.New("the server sent " + string(got))
	}
	return c.ConnectionState().DidResume, err
}

// clientConfig returns a config with a cache of its own.
func clientConfig(version uint16) *tls.Config {
	return &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", MinVersion: version, MaxVersion: version,
		ClientSessionCache: tls.NewLRUClientSessionCache(10)}
}

// versions are the versions of TLS.
var versions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// sClient runs openssl s_client and reports whether the handshake resumed a session.
func sClient(t testing.TB, addr string, args ...string) bool {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("the tests need openssl (make need)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, openssl, append([]string{"s_client", "-connect", addr, "-servername", "localhost", "-ign_eof"}, args...)...)
	out, err := c.CombinedOutput()
	if ctx.Err() != nil || !bytes.Contains(out, []byte("hello\n")) {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	reused, fresh := strings.Contains(string(out), "Reused, TLS"), strings.Contains(string(out), "New, TLS")
	if reused == fresh && !reused {
		t.Fatalf("openssl does not say whether it resumed\n%s", out)
	}
	return reused
}

// state returns a session of a server, which a handshake has made.
func state(t testing.TB) *tls.SessionState {
	t.Helper()
	c := tlssession.NewCache(tlssession.Options{})
	config := serverConfig()
	(&tlssession.Sessions{Cache: c}).Server(transport.Scope{}, config)
	dial(t, listen(t, config), clientConfig(tls.VersionTLS13))
	return c.Get(c.IDs()[0])
}

// encode returns the encoding of a session.
func encode(t testing.TB, s *tls.SessionState) string {
	t.Helper()
	b, err := s.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A recorder records the events of a cache.
type recorder struct {
	mu     sync.Mutex
	events []tlssession.Event
}

func (r *recorder) add(e tlssession.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// take returns the events since the last call.
func (r *recorder) take() []tlssession.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.events
	r.events = nil
	return e
}
