//go:build linux

package conformance

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/secure-streams/sspolicy/faulttest/link"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

func rawOf(st *policy.StreamType) { st.Protocol, st.HTTP = policy.ProtocolRaw, nil }

// withTLS adds TLS to a listener if config is not nil.
func withTLS(ln net.Listener, config *tls.Config) net.Listener {
	if config == nil {
		return ln
	}
	return tls.NewListener(ln, config)
}

// TestRawFaultAtEveryOffset breaks a connection after each byte of "hello", which the
// stream sends, and of the answer "HELLO" and its end. FINs over TLS use each fifth byte.
// The stream must receive a prefix of the answer. Only an end sent by the peer is orderly,
// and over TLS only after close_notify.
func TestRawFaultAtEveryOffset(t *testing.T) {
	own := testcert.New("own")
	for _, x := range []struct {
		name    string
		config  *tls.Config
		changes []change
	}{
		{"TCP", nil, []change{rawOf}},
		{"TLS", shortHandshake(t, own), []change{rawOf, secure(own.Store())}},
	} {
		for _, k := range breaks {
			t.Run(x.name+"/"+k.name, func(t *testing.T) {
				checkLeaks(t)
				ln := withTLS(testserver.Listen(t), x.config)
				testserver.Serve(t, ln, func(c net.Conn) {
					b := make([]byte, 5)
					if _, err := io.ReadFull(c, b); err == nil {
						c.Write(bytes.ToUpper(b))
					}
				})
				var next, whole atomic.Int64
				step := int64(1)
				if x.config != nil && k.Kind == link.FIN {
					step = 5
				}
				var mu sync.Mutex
				seen := map[string]int{}
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						for whole.Load() < 8 {
							f := k.Fault
							f.After = int(next.Add(step) - step)
							if f.After > 5_000 {
								return
							}
							got := rawAt(t, ln.Addr().String(), f, x.config != nil, x.changes)
							mu.Lock()
							seen[got]++
							mu.Unlock()
							if strings.HasSuffix(got, "whole") {
								whole.Add(1)
							}
						}
					})
				}
				wg.Wait()
				t.Logf("%v", seen)
				if len(seen) < 2 {
					t.Errorf("the fault has no effect: %v", seen)
				}
			})
		}
	}
}

// rawAt runs an exchange with a fault, and then one without. It returns the events of the
// first.
func rawAt(t *testing.T, server string, f link.Fault, secured bool, changes []change) string {
	var clean atomic.Bool
	p := newProxy(server, func() link.Fault {
		if clean.Load() {
			return link.Fault{}
		}
		return f
	})
	defer p.Close()
	c := newContext(t, runtime.Options{}, streamType(p.Addr(), changes...))
	defer teststream.Shutdown(t, c)
	tr := newTrace(nil)
	tr.text = "hello"
	h := tr.handlers()
	h.Rx = func(s *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
		tr.Keep(buf)
		return tr.NoteOnce(s, "rx")
	}
	s := teststream.Must(c.NewStream("s", h))
	s.RequestTx()
	if !tr.awaitEnds(1) {
		t.Errorf("fault after %d bytes: stuck after %s", f.After, tr)
		return "stuck"
	}
	seen, body, err := tr.String(), tr.Body(), s.Err()
	whole := errors.Is(err, io.EOF)
	switch {
	case !strings.HasPrefix("HELLO", body):
		t.Errorf("fault after %d bytes: received %q", f.After, body)
	case !slices.Contains([]string{"CRE POL CNG UNR ARF", "CRE POL CNG CON DIS", "CRE POL CNG CON rx DIS"}, seen):
		t.Errorf("fault after %d bytes: %s", f.After, seen)
	case err == nil, secured && whole && body != "HELLO":
		t.Errorf("fault after %d bytes: %s, received %q, cause %v", f.After, seen, body, err)
	case !secured && f.Kind == link.FIN && f.Reply && body != "HELLO"[:min(f.After, 5)]:
		t.Errorf("end after %d bytes: received %q", f.After, body)
	}
	clean.Store(true)
	s.Connect()
	s.RequestTx()
	if !tr.awaitEnds(2) || tr.String() != seen+" CNG CON rx DIS" || tr.Body() != body+"HELLO" {
		t.Errorf("fault after %d bytes: %s; then, without a fault: %s (%v)", f.After, seen, tr, s.Err())
	}
	if body == "HELLO" && whole {
		seen += " whole"
	}
	return seen
}

// relay is haproxy as a TCP proxy, with and without TLS.
var relay = program{
	name: "haproxy",
	args: haproxy.args,
	config: func(s *site) string {
		return fmt.Sprintf(`
global
	nbthread 1
defaults
	timeout connect 5s
	timeout client 10s
	timeout server 10s
frontend main
	mode http
	bind fd@%d
	http-request return status 200
listen clear
	mode tcp
	bind fd@%d
	server go %s
listen secure
	mode tcp
	bind fd@%d ssl crt %s
	server go %s
listen refused
	mode tcp
	bind fd@%d
	tcp-request connection reject
`, s.fd("plain"), s.fd("no h2"), s.backend, s.fd("TLS"), s.pem("good"), s.backend, s.fd("reject"))
	},
}

// TestRawProxy sends a request byte by byte through haproxy to an HTTP server, which
// answers and closes.
func TestRawProxy(t *testing.T) {
	checkLeaks(t)
	own := testcert.New("own")
	site := relay.start(t, own)
	for _, k := range []struct {
		at      string
		changes []change
	}{
		{"no h2", []change{rawOf}},
		{"TLS", []change{rawOf, secure(own.Store())}},
	} {
		t.Run(k.at, func(t *testing.T) {
			c := newContext(t, runtime.Options{}, streamType(site.addrs[k.at], k.changes...))
			conn := teststream.Must(c.Open(t.Context(), "s"))
			defer conn.Close()
			for _, b := range []byte("GET /hello HTTP/1.0\r\n\r\n") {
				if _, err := conn.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.0 ")) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	t.Run("rejected", func(t *testing.T) {
		for _, changes := range [][]change{{rawOf}, {rawOf, secure(own.Store())}} {
			c := newContext(t, runtime.Options{}, streamType(site.addrs["reject"], changes...))
			tr := newTrace(nil)
			s := newStream(t, c, tr.handlers())
			s.Connect()
			want := "CRE CNG CON DIS"
			if len(changes) > 1 {
				want = "CRE CNG UNR ARF"
			}
			tr.awaitEnds(1)
			// The reset may precede the end of the connection attempt.
			if got := tr.String(); got != want && got != "CRE CNG UNR ARF" {
				t.Errorf("got %s (%v)", got, s.Err())
			}
		}
	})
}

// TestRawSlowReader reads little of what a server sends. The rest must stay on the server,
// not in memory.
func TestRawSlowReader(t *testing.T) {
	checkLeaks(t)
	own := testcert.New("own")
	for name, config := range map[string]*tls.Config{"TCP": nil, "TLS": own.Server(nil, "127.0.0.1")} {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int64
			ln := newStallListener(t)
			testserver.Serve(t, withTLS(ln, config), func(c net.Conn) {
				for buf := make([]byte, 64<<10); ; {
					n, err := c.Write(buf)
					sent.Add(int64(n))
					if err != nil {
						return
					}
				}
			})
			st := streamType(testserver.Addr(ln), rawOf)
			if config != nil {
				secure(own.Store())(st)
			}
			conn := teststream.Must(newContext(t, runtime.Options{}, st).Open(t.Context(), "s"))
			defer conn.Close()
			var before, after goruntime.MemStats
			goruntime.GC()
			goruntime.ReadMemStats(&before)
			for range 200 {
				if _, err := io.ReadFull(conn, make([]byte, 1<<10)); err != nil {
					t.Fatal(err)
				}
			}
			awaitStall(t, ln.stalled)
			goruntime.GC()
			goruntime.ReadMemStats(&after)
			if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 2<<20 {
				t.Errorf("the heap grew by %d bytes", more)
			}
			if n := sent.Load(); n > 16<<20 {
				t.Errorf("the server has sent %d bytes, of which 200 KB were read", n)
			}
		})
	}
}
