//go:build linux

package conformance

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// flooded is how many bytes have been sent by "/ws/flood".
var flooded atomic.Int64

// serveWS is what stands behind the proxies.
func serveWS(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ws/not" {
		http.Error(w, "no such room", http.StatusNotFound)
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	switch r.URL.Path {
	case "/ws/close":
		c.Close(4000, "enough")
	case "/ws/drop":
		c.Write(context.Background(), websocket.MessageText, []byte("hello"))
	case "/ws/flood":
		for piece := make([]byte, 100<<10); c.Write(context.Background(), websocket.MessageBinary, piece) == nil; {
			flooded.Add(int64(len(piece)))
		}
	case "/ws/silent":
		c.Read(context.Background())
	default:
		for {
			kind, msg, err := c.Read(context.Background())
			if err != nil || c.Write(context.Background(), kind, msg) != nil {
				return
			}
		}
	}
}

// TestWS runs ws streams through nginx and haproxy.
func TestWS(t *testing.T) {
	m := setMark()
	own, other := testcert.New("own"), testcert.New("other")
	closed := func(code int, reason string) func(error) bool {
		return func(err error) bool {
			e, ok := errors.AsType[*ws.CloseError](err)
			return ok && e.Code == code && e.Reason == reason
		}
	}
	notFound := func(err error) bool {
		e, ok := errors.AsType[*ws.StatusError](err)
		return ok && e.Code == http.StatusNotFound
	}
	rows := []struct {
		name, at, url string
		only          string // the program it is for; "" both
		st            func(*policy.StreamType)
		tls           bool
		tx            string
		want          string // how the sequence begins
		cause         func(error) bool
	}{
		{name: "echo", url: "/ws/echo", tx: "hello", want: "CRE POL CNG CON rx(whole) DIS"},
		{name: "large echo", url: "/ws/echo", tx: string(large[:1<<20]), want: "CRE POL CNG CON rx"},
		{name: "the peer closes", url: "/ws/close", want: "CRE POL CNG CON DIS", cause: closed(4000, "enough")},
		{name: "the peer closes, not opportunistic", url: "/ws/close", st: func(st *policy.StreamType) { st.Opportunistic = false },
			want: "CRE POL CNG CON DIS POL CNG CON DIS"},
		{name: "the peer is gone", url: "/ws/drop", want: "CRE POL CNG CON rx(whole) DIS", cause: is(io.ErrUnexpectedEOF)},
		{name: "the proxy hangs up on silence", url: "/ws/silent", want: "CRE POL CNG CON DIS", cause: is(io.ErrUnexpectedEOF)},
		{name: "PINGs keep it", url: "/ws/echo", st: func(st *policy.StreamType) {
			st.Retry = &policy.Retry{ValidPing: 300 * time.Millisecond, ValidHangup: 10 * time.Second}
			st.Timeout = 3 * time.Second
		}, want: "CRE POL CNG CON TMO DIS"},
		{name: "hang up on silence", url: "/ws/silent", st: func(st *policy.StreamType) {
			st.Retry = &policy.Retry{ValidHangup: 200 * time.Millisecond}
		}, want: "CRE POL CNG CON DIS", cause: is(runtime.ErrNoValidity)},
		{name: "not 101", url: "/ws/not", want: unreachable, cause: notFound},
		{name: "503", url: "/503", want: unreachable},
		{name: "connection rejected", only: "haproxy", at: "reject", want: unreachable},
		{name: "connection rejected before TLS", only: "haproxy", at: "reject", tls: true, want: unreachable},
		{name: "TLS", tls: true, url: "/ws/echo", tx: "hello", want: "CRE POL CNG CON rx(whole) DIS"},
		{name: "expired", at: "expired", tls: true, url: "/ws/echo", want: unreachable, cause: isTLS},
		{name: "wrong host", at: "wrong host", tls: true, url: "/ws/echo", want: unreachable, cause: isTLS},
		{name: "wrong store", tls: true, url: "/ws/echo", st: secure(other.Store()), want: unreachable, cause: isTLS},
		{name: "TLS to a plain port", at: "plain", tls: true, url: "/ws/echo", want: unreachable},
	}
	t.Run("all", func(t *testing.T) {
		for _, p := range []*program{&nginx, &haproxy} {
			site := p.start(t, own)
			t.Run(p.name, func(t *testing.T) {
				for _, r := range rows {
					if r.only != "" && r.only != p.name {
						continue
					}
					t.Run(r.name, func(t *testing.T) {
						t.Parallel()
						at := r.at
						if at == "" {
							at = map[bool]string{true: "TLS", false: "plain"}[r.tls]
						}
						st := streamType(site.addrs[at])
						st.Protocol, st.HTTP.URL, st.Retry = policy.ProtocolWS, r.url, teststream.Retry(2)
						if r.tls {
							secure(own.Store())(st)
						}
						if r.st != nil {
							r.st(st)
						}
						c := newContext(t, runtime.Options{}, st)
						defer c.Close()
						tr := &trace{on: map[string]func(*runtime.Stream) runtime.Result{}}
						tr.on["TMO"] = func(*runtime.Stream) runtime.Result { return runtime.DisconnectMe }
						h := tr.handlers()
						if r.tx != "" {
							sent := 0
							h.Tx = func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
								var flags runtime.Flags
								if sent == 0 {
									flags = runtime.FlagSOM
								}
								n := copy(buf, r.tx[sent:])
								if sent += n; sent == len(r.tx) {
									flags |= runtime.FlagEOM
								}
								return n, flags, runtime.OK
							}
						}
						var got strings.Builder
						var whole atomic.Bool
						h.Rx = func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
							got.Write(buf)
							name := "rx"
							if flags == runtime.FlagSOM|runtime.FlagEOM {
								name = "rx(whole)"
							}
							tr.Note(s, name)
							if flags&runtime.FlagEOM != 0 && r.tx != "" {
								whole.Store(got.String() == r.tx)
								return runtime.DisconnectMe
							}
							return runtime.OK
						}
						s, err := c.NewStream(st.Name, h)
						if err != nil {
							t.Fatal(err)
						}
						s.StartTimeout(0)
						s.RequestTx()
						if !tr.Await(func() bool {
							text := tr.String()
							return strings.HasPrefix(text, r.want) && (strings.Contains(text, "DIS") || strings.Contains(text, "ARF"))
						}) {
							t.Errorf("\n got %s\nwant %s", tr, r.want)
						}
						if r.cause != nil && !r.cause(s.Err()) {
							t.Errorf("the cause is %v", s.Err())
						}
						if r.tx != "" && !whole.Load() {
							t.Errorf("what came back is not what was sent")
						}
					})
				}
			})
		}
	})
	m.check(t)
}

// stalled waits until what is counted stands still, and reports whether it did.
func stalled(count *atomic.Int64) bool {
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); {
		was := count.Load()
		if time.Sleep(200 * time.Millisecond); count.Load() == was {
			return true
		}
	}
	return false
}

// TestWSSlowReader takes at leisure what comes through nginx and haproxy as fast
// as it can: what is not taken stays on the other side, and not in memory.
func TestWSSlowReader(t *testing.T) {
	m := setMark()
	own := testcert.New("own")
	t.Run("all", func(t *testing.T) {
		for _, p := range []*program{&nginx, &haproxy} {
			t.Run(p.name, func(t *testing.T) {
				site := p.start(t, own)
				for _, at := range []string{"plain", "TLS"} {
					t.Run(at, func(t *testing.T) {
						flooded.Store(0)
						st := streamType(site.addrs[at])
						st.Protocol, st.HTTP.URL = policy.ProtocolWS, "/ws/flood"
						if at == "TLS" {
							secure(own.Store())(st)
						}
						c := newContext(t, runtime.Options{}, st)
						defer c.Close()
						tr := &trace{}
						h := tr.handlers()
						var before, after goruntime.MemStats
						n := 0
						h.Rx = func(*runtime.Stream, []byte, runtime.Flags) runtime.Result {
							switch n++; n {
							case 30:
								goruntime.GC()
								goruntime.ReadMemStats(&before)
							case 300:
								if !stalled(&flooded) {
									t.Errorf("it is sent on and on, though nothing is taken: %d bytes", flooded.Load())
								}
								goruntime.GC()
								goruntime.ReadMemStats(&after)
								return runtime.DisconnectMe
							}
							time.Sleep(time.Millisecond)
							return runtime.OK
						}
						s := must(c.NewStream("s", h))
						s.RequestTx()
						if !tr.Await(func() bool { return tr.Count("DIS")+tr.Count("ARF") > 0 }) || tr.String() != "CRE POL CNG CON DIS" {
							t.Fatalf("saw %s (%v)", tr, s.Err())
						}
						if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 1<<20 {
							t.Errorf("%d bytes more are held", more)
						}
					})
				}
			})
		}
	})
	m.check(t)
}

// shout serves connections on which it answers a message with another one, and
// closes.
func shout(config *tls.Config) (addr string, stop func()) {
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	var wg sync.WaitGroup
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wg.Add(1)
		defer wg.Done()
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		kind, msg, err := c.Read(context.Background())
		if err == nil && c.Write(context.Background(), kind, bytes.ToUpper(msg)) == nil {
			c.Close(websocket.StatusNormalClosure, "")
		}
	})}
	go srv.Serve(ln)
	return ln.Addr().String(), func() { srv.Close(); wg.Wait() }
}

// The ways in which an exchange with shout may end, in the order in which more
// and more of it gets through.
var wsEndings = []string{
	"CRE POL CNG UNR ARF",
	"CRE POL CNG CON DIS",
	"CRE POL CNG CON rx DIS",
	"CRE POL CNG CON rx rx(EOM) DIS",
	"CRE POL CNG CON rx rx(EOM) DIS, closed",
}

// TestWSFaultAtEveryOffset breaks a connection after each byte (after each fifth,
// where TLS is shut) of what is sent and of what is received: handshake, a
// message, another one in answer, and the end. What has come is a beginning of
// the answer; it is whole, and the end in good order, only if the peer said so.
func TestWSFaultAtEveryOffset(t *testing.T) {
	t.Setenv("GODEBUG", "tlsmlkem=0") // a short handshake
	own := testcert.New("own")
	config := &tls.Config{Certificates: []tls.Certificate{own.Certify(testcert.Ed25519Key(), time.Now().Add(-time.Hour), "127.0.0.1")}}
	for _, x := range []struct {
		name   string
		config *tls.Config
		st     []func(*policy.StreamType)
		vary   int // a signature of TLS is up to so much shorter than another one
	}{
		{"h1", nil, nil, 0},
		{"h1+TLS", config, []func(*policy.StreamType){secure(own.Store())}, 8},
	} {
		for _, k := range breaks {
			t.Run(x.name+"/"+k.name, func(t *testing.T) {
				m := setMark()
				server, stop := shout(x.config)
				step := int64(1)
				if x.config != nil && k.fault.kind == shut {
					step = 5
				}
				var next, closed atomic.Int64
				var mu sync.Mutex
				seen := map[int]int{} // how it ended, by offset
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						for closed.Load() < 8 {
							f := k.fault
							f.after = int(next.Add(step) - step)
							if f.after > 5_000 {
								return
							}
							end := wsAt(t, server, f, x.st)
							mu.Lock()
							seen[f.after] = end
							mu.Unlock()
							if end == len(wsEndings)-1 {
								closed.Add(1)
							}
						}
					})
				}
				wg.Wait()
				stop()
				counts := make([]int, len(wsEndings))
				latest, at := 0, 0
				for _, after := range slices.Sorted(maps.Keys(seen)) {
					end := seen[after]
					if end < 0 {
						continue // told already
					}
					counts[end]++
					if end < latest && after > at+x.vary {
						t.Errorf("after %d bytes it ended %q, and after %d, %q", after, wsEndings[end], at, wsEndings[latest])
					}
					if end > latest {
						latest, at = end, after
					}
				}
				t.Log(counts)
				if counts[0] == 0 || counts[len(counts)-1] == 0 {
					t.Errorf("not all of the endings were seen: %v", counts)
				}
				m.check(t)
			})
		}
	}
}

// wsAt runs an exchange with a fault, and then one without, and returns how the
// former ended: an index of wsEndings.
func wsAt(t *testing.T, server string, f fault, change []func(*policy.StreamType)) int {
	var clean atomic.Bool
	p := newFaultProxy(server, func() fault {
		if clean.Load() {
			return fault{}
		}
		return f
	})
	defer p.close()
	st := streamType(p.addr(), change...)
	st.Protocol = policy.ProtocolWS
	c := newContext(t, runtime.Options{}, st)
	defer c.Close()
	sent := false
	tr := &trace{on: map[string]func(*runtime.Stream) runtime.Result{
		"CNG": func(*runtime.Stream) runtime.Result { sent = false; return runtime.OK }}}
	h := tr.handlers()
	h.Rx = func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
		tr.mu.Lock()
		if som := len(tr.body) == 0; som != (flags&runtime.FlagSOM != 0) {
			t.Errorf("fault after %d bytes: flags %d behind %q", f.after, flags, tr.body)
		}
		tr.body = append(tr.body, buf...)
		tr.mu.Unlock()
		tr.NoteOnce(s, "rx")
		if flags&runtime.FlagEOM != 0 {
			return tr.Note(s, "rx(EOM)")
		}
		return runtime.OK
	}
	h.Tx = func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
		if sent {
			return 0, 0, runtime.TxDontSend
		}
		sent = true
		return copy(buf, "hello"), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
	}
	s := must(c.NewStream("s", h))
	exchange := func(n int) (events, body string) {
		tr.mu.Lock()
		tr.body = nil
		tr.mu.Unlock()
		s.RequestTx()
		if !tr.Await(func() bool { return tr.Count("DIS")+tr.Count("ARF") == n }) {
			t.Errorf("fault after %d bytes: stuck after %s", f.after, tr)
		}
		return tr.String(), string(tr.body)
	}
	events, body := exchange(1)
	closed := errors.Is(s.Err(), io.EOF)
	switch whole := body == "HELLO"; {
	case s.Err() == nil:
		t.Errorf("fault after %d bytes: %s, for no reason", f.after, events)
	case !strings.HasPrefix("HELLO", body), closed && !whole, strings.Contains(events, "EOM") != whole:
		t.Errorf("fault after %d bytes: %s, received %q, and it ended for %v", f.after, events, body, s.Err())
	}
	end := slices.Index(wsEndings, events)
	if end < 0 {
		t.Errorf("fault after %d bytes: %s", f.after, events)
	}
	if closed {
		end = len(wsEndings) - 1
	}
	clean.Store(true)
	again, body := exchange(2)
	if again != events+" POL CNG CON rx rx(EOM) DIS" || body != "HELLO" || !errors.Is(s.Err(), io.EOF) {
		t.Errorf("fault after %d bytes: %s, and then, without a fault: %s (%v)", f.after, events, again, s.Err())
	}
	return end
}

// TestWSNobody connects to where nobody listens, and to peers that say nothing.
func TestWSNobody(t *testing.T) {
	m := setMark()
	own := testcert.New("own")
	for _, x := range []struct {
		name   string
		config *tls.Config
		st     []func(*policy.StreamType)
	}{
		{"h1", nil, nil},
		{"h1+TLS", own.Server(nil, "127.0.0.1"), []func(*policy.StreamType){secure(own.Store())}},
	} {
		server, stop := shout(x.config)
		for _, k := range []struct {
			name  string
			fault fault
			st    func(*policy.StreamType)
			want  string
			cause func(error) bool
		}{
			{"refused", fault{kind: none}, nil, unreachable, is(syscall.ECONNREFUSED)},
			{"silence before the handshake", fault{reply: true}, nil, "CRE POL CNG UNR POL CNG UNR POL CNG UNR ARF", is(runtime.ErrTimeout)},
			{"silence after it, no PING", fault{reply: true, after: 1 << 20}, func(st *policy.StreamType) { st.Retry.ValidHangup = 150 * time.Millisecond },
				"CRE POL CNG CON DIS", is(runtime.ErrNoValidity)},
		} {
			t.Run(x.name+"/"+k.name, func(t *testing.T) {
				k.fault.stall = time.Hour
				if k.name != "refused" && k.fault.after == 0 {
					k.fault.kind = blackHole
				}
				p := newFaultProxy(server, func() fault { return k.fault })
				defer p.close()
				if k.name == "refused" {
					p.ln.Close()
				}
				st := streamType(p.addr(), x.st...)
				st.Protocol, st.Retry = policy.ProtocolWS, teststream.Retry(2)
				if k.st != nil {
					k.st(st)
				}
				c := newContext(t, runtime.Options{ConnectTimeout: 200 * time.Millisecond}, st)
				defer c.Close()
				tr := &trace{}
				s := must(c.NewStream("s", tr.handlers()))
				s.RequestTx()
				if !tr.Await(func() bool { return tr.Count("DIS")+tr.Count("ARF") > 0 }) || tr.String() != k.want {
					t.Errorf("saw %s", tr)
				}
				if !k.cause(s.Err()) {
					t.Errorf("the cause is %v", s.Err())
				}
			})
		}
		stop()
	}
	m.check(t)
}
