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
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

func rawOf(st *policy.StreamType) { st.Protocol, st.HTTP = policy.ProtocolRaw, nil }

// tcp serves connections until stop.
func tcp(config *tls.Config, do func(net.Conn)) (addr string, stop func()) {
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				do(c)
			})
		}
	})
	return ln.Addr().String(), func() { ln.Close(); wg.Wait() }
}

// TestRawFaultAtEveryOffset breaks a connection after each byte (after each fifth,
// where TLS is shut) of what is sent and of what is received: "hello", and "HELLO" with the end after it. What has
// come is a beginning of that, and only the end that the peer has said itself is
// one: not that of a TLS connection without its close_notify.
func TestRawFaultAtEveryOffset(t *testing.T) {
	t.Setenv("GODEBUG", "tlsmlkem=0") // a short handshake
	own := testcert.New("own")
	config := &tls.Config{Certificates: []tls.Certificate{own.Certify(testcert.Ed25519Key(), time.Now().Add(-time.Hour), "127.0.0.1")}}
	for _, x := range []struct {
		name   string
		config *tls.Config
		st     []func(*policy.StreamType)
	}{
		{"TCP", nil, []func(*policy.StreamType){rawOf}},
		{"TLS", config, []func(*policy.StreamType){rawOf, secure(own.Store())}},
	} {
		for _, k := range breaks {
			t.Run(x.name+"/"+k.name, func(t *testing.T) {
				m := setMark()
				server, stop := tcp(x.config, func(c net.Conn) {
					b := make([]byte, 5)
					if _, err := io.ReadFull(c, b); err == nil {
						c.Write(bytes.ToUpper(b))
					}
				})
				var next, whole atomic.Int64
				step := int64(1)
				if x.config != nil && k.fault.kind == shut {
					step = 5
				}
				var mu sync.Mutex
				seen := map[string]int{}
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						for whole.Load() < 8 {
							f := k.fault
							f.after = int(next.Add(step) - step)
							if f.after > 5_000 {
								return
							}
							got := rawAt(t, server, f, x.config != nil, x.st)
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
				stop()
				t.Logf("%v", seen)
				if len(seen) < 2 {
					t.Errorf("the fault makes no difference: %v", seen)
				}
				m.check(t)
			})
		}
	}
}

// rawAt runs an exchange with a fault, and then one without, and returns what was
// seen of the former.
func rawAt(t *testing.T, server string, f fault, secured bool, change []func(*policy.StreamType)) string {
	var clean atomic.Bool
	p := newFaultProxy(server, func() fault {
		if clean.Load() {
			return fault{}
		}
		return f
	})
	defer p.close()
	c := newContext(t, runtime.Options{}, streamType(p.addr(), change...))
	defer c.Close()
	tr := &trace{}
	h := tr.handlers()
	sent := false
	h.State = func(next func(*runtime.Stream, runtime.State, uint32) runtime.Result) func(*runtime.Stream, runtime.State, uint32) runtime.Result {
		return func(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
			if state == runtime.StateConnecting {
				sent = false
			}
			return next(s, state, arg)
		}
	}(h.State)
	h.Rx = func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
		tr.mu.Lock()
		tr.body = append(tr.body, buf...)
		tr.mu.Unlock()
		return tr.NoteOnce(s, "rx")
	}
	h.Tx = func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
		if sent {
			return 0, 0, runtime.TxDontSend
		}
		sent = true
		return copy(buf, "hello"), 0, runtime.OK
	}
	s := must(c.NewStream("s", h))
	ended := func(n int) func() bool { return func() bool { return tr.Count("DIS")+tr.Count("ARF") == n } }
	s.RequestTx()
	if !tr.Await(ended(1)) {
		t.Errorf("fault after %d bytes: stuck after %s", f.after, tr)
		return "stuck"
	}
	seen, body, err := tr.String(), string(tr.body), s.Err()
	whole := errors.Is(err, io.EOF)
	switch {
	case !strings.HasPrefix("HELLO", body):
		t.Errorf("fault after %d bytes: received %q", f.after, body)
	case !slices.Contains([]string{"CRE POL CNG UNR ARF", "CRE POL CNG CON DIS", "CRE POL CNG CON rx DIS"}, seen):
		t.Errorf("fault after %d bytes: %s", f.after, seen)
	case err == nil, secured && whole && body != "HELLO":
		t.Errorf("fault after %d bytes: %s, received %q, and it ended for %v", f.after, seen, body, err)
	case !secured && f.kind == shut && f.reply && body != "HELLO"[:min(f.after, 5)]:
		t.Errorf("end after %d bytes: received %q", f.after, body)
	}
	clean.Store(true)
	tr.mu.Lock()
	tr.body = nil
	tr.mu.Unlock()
	s.Connect()
	s.RequestTx()
	if !tr.Await(ended(2)) || tr.String() != seen+" CNG CON rx DIS" || string(tr.body) != "HELLO" {
		t.Errorf("fault after %d bytes: %s, and then, without a fault: %s (%v)", f.after, seen, tr, s.Err())
	}
	if body == "HELLO" && whole {
		seen += " whole"
	}
	return seen
}

// relay is haproxy as a TCP proxy: to a backend in clear, and with TLS taken off.
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

// TestRawProxy talks to a server of HTTP through haproxy, a byte after the other:
// it answers and closes, after our half close too.
func TestRawProxy(t *testing.T) {
	m := setMark()
	own := testcert.New("own")
	t.Run("all", func(t *testing.T) {
		site := relay.start(t, own)
		for _, k := range []struct {
			at string
			st []func(*policy.StreamType)
		}{
			{"no h2", []func(*policy.StreamType){rawOf}},
			{"TLS", []func(*policy.StreamType){rawOf, secure(own.Store())}},
		} {
			t.Run(k.at, func(t *testing.T) {
				c := newContext(t, runtime.Options{}, streamType(site.addrs[k.at], k.st...))
				defer c.Close()
				conn := must(c.Open(t.Context(), "s"))
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
			for _, st := range [][]func(*policy.StreamType){{rawOf}, {rawOf, secure(own.Store())}} {
				c := newContext(t, runtime.Options{}, streamType(site.addrs["reject"], st...))
				defer c.Close()
				tr := &trace{}
				s := must(c.NewStream("s", tr.handlers()))
				s.Connect()
				want := "CRE CNG CON DIS"
				if len(st) > 1 {
					want = "CRE CNG UNR ARF"
				}
				tr.Await(func() bool { return tr.Count("DIS")+tr.Count("ARF") > 0 })
				// The reset may come before the connection is there.
				if got := tr.String(); got != want && got != "CRE CNG UNR ARF" {
					t.Errorf("saw %s (%v)", got, s.Err())
				}
			}
		})
	})
	m.check(t)
}

// TestRawSlowReader reads at leisure what a server sends as fast as it can: what
// is not read stays with the server, and not in memory.
func TestRawSlowReader(t *testing.T) {
	m := setMark()
	own := testcert.New("own")
	for name, config := range map[string]*tls.Config{"TCP": nil, "TLS": own.Server(nil, "127.0.0.1")} {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int64
			server, stop := tcp(config, func(c net.Conn) {
				for buf := make([]byte, 64<<10); ; {
					n, err := c.Write(buf)
					sent.Add(int64(n))
					if err != nil {
						return
					}
				}
			})
			host, port, _ := net.SplitHostPort(server)
			st := streamType(must(net.ResolveTCPAddr("tcp", net.JoinHostPort(host, port))).AddrPort(), rawOf)
			if config != nil {
				secure(own.Store())(st)
			}
			c := newContext(t, runtime.Options{}, st)
			conn := must(c.Open(t.Context(), "s"))
			var before, after goruntime.MemStats
			goruntime.GC()
			goruntime.ReadMemStats(&before)
			for range 200 {
				if _, err := io.ReadFull(conn, make([]byte, 1<<10)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
			goruntime.GC()
			goruntime.ReadMemStats(&after)
			if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 2<<20 {
				t.Errorf("%d bytes are held", more)
			}
			if n := sent.Load(); n > 16<<20 {
				t.Errorf("the server has sent %d bytes, of which 200 KB are read", n)
			}
			conn.Close()
			c.Close()
			stop()
		})
	}
	m.check(t)
}
