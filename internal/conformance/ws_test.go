//go:build linux

package conformance

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
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

	"github.com/secure-streams/sspolicy/faulttest/link"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// serveWS is the WebSocket server behind the proxies.
func serveWS(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ws/not" {
		http.Error(w, "not found", http.StatusNotFound)
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
	checkLeaks(t)
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
		only          string // program; "" means both
		st            change
		tls           bool
		tx            string
		want          string // beginning of the sequence
		cause         func(error) bool
	}{
		{name: "echo", url: "/ws/echo", tx: "hello", want: "CRE POL CNG CON rx(whole) DIS"},
		{name: "large echo", url: "/ws/echo", tx: string(large[:1<<20]), want: "CRE POL CNG CON rx"},
		{name: "the peer closes", url: "/ws/close", want: "CRE POL CNG CON DIS", cause: closed(4000, "enough")},
		{name: "the peer closes, not opportunistic", url: "/ws/close", st: func(st *policy.StreamType) { st.Opportunistic = false },
			want: "CRE POL CNG CON DIS POL CNG CON DIS"},
		{name: "the peer disappears", url: "/ws/drop", want: "CRE POL CNG CON rx(whole) DIS", cause: is(io.ErrUnexpectedEOF)},
		{name: "the proxy closes a silent connection", url: "/ws/silent", want: "CRE POL CNG CON DIS", cause: is(io.ErrUnexpectedEOF)},
		{name: "PINGs keep a connection", url: "/ws/echo", st: func(st *policy.StreamType) {
			st.Retry = &policy.Retry{ValidPing: 300 * time.Millisecond, ValidHangup: 10 * time.Second}
			st.Timeout = 3 * time.Second // the proxies' is 2 s
		}, want: "CRE POL CNG CON TMO DIS"},
		{name: "svalidhup", url: "/ws/silent", st: func(st *policy.StreamType) {
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
					st := streamType(site.addrs[at], conceal(2))
					st.Protocol, st.HTTP.URL = policy.ProtocolWS, r.url
					if r.tls {
						secure(own.Store())(st)
					}
					if r.st != nil {
						r.st(st)
					}
					tr := newTrace(teststream.Actions{"TMO": teststream.Disconnect})
					tr.text = r.tx
					h := tr.handlers()
					h.Rx = func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
						tr.Keep(buf)
						name := "rx"
						if flags == runtime.FlagSOM|runtime.FlagEOM {
							name = "rx(whole)"
						}
						tr.Note(s, name)
						if flags&runtime.FlagEOM != 0 && r.tx != "" {
							return runtime.DisconnectMe
						}
						return runtime.OK
					}
					s := newStream(t, newContext(t, runtime.Options{}, st), h)
					s.StartTimeout(0)
					s.RequestTx()
					if !tr.Await(func() bool { return strings.HasPrefix(tr.String(), r.want) && tr.ends() > 0 }) {
						t.Errorf("\ngot  %s\nwant %s", tr, r.want)
					}
					if r.cause != nil && !r.cause(s.Err()) {
						t.Errorf("the cause is %v", s.Err())
					}
					if body := tr.Body(); r.tx != "" && body != r.tx {
						t.Errorf("an echo of %d bytes differs from the message of %d", len(body), len(r.tx))
					}
				})
			}
		})
	}
}

// TestWSSlowReader reads little of what a server sends through nginx and haproxy. The rest
// must stay on the server or proxy, not in memory.
func TestWSSlowReader(t *testing.T) {
	checkLeaks(t)
	own := testcert.New("own")
	for _, p := range []*program{&nginx, &haproxy} {
		t.Run(p.name, func(t *testing.T) {
			site := p.start(t, own)
			for _, at := range []string{"plain", "TLS"} {
				t.Run(at, func(t *testing.T) {
					st := streamType(site.addrs[at])
					st.Protocol, st.HTTP.URL = policy.ProtocolWS, "/ws/flood"
					if at == "TLS" {
						secure(own.Store())(st)
					}
					tr := newTrace(nil)
					h := tr.handlers()
					var before, after goruntime.MemStats
					n := 0
					h.Rx = func(*runtime.Stream, []byte, runtime.Flags) runtime.Result {
						switch n++; n {
						case 30:
							goruntime.GC()
							goruntime.ReadMemStats(&before)
						case 300:
							awaitStall(t, site.stalled)
							goruntime.GC()
							goruntime.ReadMemStats(&after)
							return runtime.DisconnectMe
						}
						return runtime.OK
					}
					s := newStream(t, newContext(t, runtime.Options{}, st), h)
					s.RequestTx()
					if !tr.awaitEnds(1) || tr.String() != "CRE POL CNG CON DIS" {
						t.Fatalf("got %s (%v)", tr, s.Err())
					}
					if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 1<<20 {
						t.Errorf("the heap grew by %d bytes", more)
					}
				})
			}
		})
	}
}

// serveShout runs a server until the end of the test. It answers a message in upper case,
// and closes.
func serveShout(t *testing.T, config *tls.Config) (addr string) {
	ln := testserver.Listen(t)
	testserver.HTTP(t, withTLS(ln, config), &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		kind, msg, err := c.Read(context.Background())
		if err == nil && c.Write(context.Background(), kind, bytes.ToUpper(msg)) == nil {
			c.Close(websocket.StatusNormalClosure, "")
		}
	})})
	return ln.Addr().String()
}

// wsEndings are the documented sequences of an exchange with serveShout, ordered by the
// amount that arrives.
var wsEndings = []string{
	"CRE POL CNG UNR ARF",
	"CRE POL CNG CON DIS",
	"CRE POL CNG CON rx DIS",
	"CRE POL CNG CON rx rx(EOM) DIS",
	"CRE POL CNG CON rx rx(EOM) DIS, closed",
}

// TestWSFaultAtEveryOffset breaks a connection after each byte of either direction:
// handshake, message, answer, and close. FINs over TLS use each fifth byte. The stream must
// receive a prefix of the answer. The answer is complete, and the end orderly, only if the
// peer has sent them.
func TestWSFaultAtEveryOffset(t *testing.T) {
	own := testcert.New("own")
	for _, x := range []struct {
		name    string
		config  *tls.Config
		changes []change
		vary    int // variation of the length of TLS signatures
	}{
		{"h1", nil, nil, 0},
		{"h1+TLS", shortHandshake(t, own), []change{secure(own.Store())}, 8},
	} {
		for _, k := range breaks {
			t.Run(x.name+"/"+k.name, func(t *testing.T) {
				checkLeaks(t)
				server := serveShout(t, x.config)
				step := int64(1)
				if x.config != nil && k.Kind == link.FIN {
					step = 5
				}
				var next, closed atomic.Int64
				var mu sync.Mutex
				seen := map[int]int{} // ending by offset
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						for closed.Load() < 8 {
							f := k.Fault
							f.After = int(next.Add(step) - step)
							if f.After > 5_000 {
								return
							}
							end := wsAt(t, server, f, x.changes)
							mu.Lock()
							seen[f.After] = end
							mu.Unlock()
							if end == len(wsEndings)-1 {
								closed.Add(1)
							}
						}
					})
				}
				wg.Wait()
				counts := make([]int, len(wsEndings))
				latest, at := 0, 0
				for _, after := range slices.Sorted(maps.Keys(seen)) {
					end := seen[after]
					if end < 0 {
						continue // an error was reported
					}
					counts[end]++
					if end < latest && after > at+x.vary {
						t.Errorf("after %d bytes: %q, but after %d: %q", after, wsEndings[end], at, wsEndings[latest])
					}
					if end > latest {
						latest, at = end, after
					}
				}
				t.Log(counts)
				if counts[0] == 0 || counts[len(counts)-1] == 0 {
					t.Errorf("some endings did not occur: %v", counts)
				}
			})
		}
	}
}

// wsAt runs an exchange with a fault, and then one without. It returns the index in
// wsEndings of the first.
func wsAt(t *testing.T, server string, f link.Fault, changes []change) int {
	var clean atomic.Bool
	p := newProxy(server, func() link.Fault {
		if clean.Load() {
			return link.Fault{}
		}
		return f
	})
	defer p.Close()
	st := streamType(p.Addr(), changes...)
	st.Protocol = policy.ProtocolWS
	c := newContext(t, runtime.Options{}, st)
	defer teststream.Shutdown(t, c)
	received := "" // in this attempt
	tr := newTrace(teststream.Actions{"CNG": func(*runtime.Stream) runtime.Result { received = ""; return runtime.OK }})
	tr.text = "hello"
	h := tr.handlers()
	h.Rx = func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
		if som := received == ""; som != (flags&runtime.FlagSOM != 0) {
			t.Errorf("fault after %d bytes: flags %d after %q", f.After, flags, received)
		}
		received += string(buf)
		tr.Keep(buf)
		tr.NoteOnce(s, "rx")
		if flags&runtime.FlagEOM != 0 {
			return tr.Note(s, "rx(EOM)")
		}
		return runtime.OK
	}
	s := teststream.Must(c.NewStream("s", h))
	exchange := func(n int) (events, body string) {
		before := len(tr.Body())
		s.RequestTx()
		if !tr.awaitEnds(n) {
			t.Errorf("fault after %d bytes: stuck after %s", f.After, tr)
		}
		return tr.String(), tr.Body()[before:]
	}
	events, body := exchange(1)
	closed := errors.Is(s.Err(), io.EOF)
	switch whole := body == "HELLO"; {
	case s.Err() == nil:
		t.Errorf("fault after %d bytes: %s, without a cause", f.After, events)
	case !strings.HasPrefix("HELLO", body), closed && !whole, strings.Contains(events, "EOM") != whole:
		t.Errorf("fault after %d bytes: %s, received %q, cause %v", f.After, events, body, s.Err())
	}
	end := slices.Index(wsEndings, events)
	if end < 0 {
		t.Errorf("fault after %d bytes: %s", f.After, events)
	}
	if closed {
		end = len(wsEndings) - 1
	}
	clean.Store(true)
	again, body := exchange(2)
	if again != events+" POL CNG CON rx rx(EOM) DIS" || body != "HELLO" || !errors.Is(s.Err(), io.EOF) {
		t.Errorf("fault after %d bytes: %s; then, without a fault: %s (%v)", f.After, events, again, s.Err())
	}
	return end
}

// TestWSSilence connects to a port without a listener, and to silent peers.
func TestWSSilence(t *testing.T) {
	checkLeaks(t)
	own := testcert.New("own")
	for _, x := range []struct {
		name    string
		config  *tls.Config
		changes []change
	}{
		{"h1", nil, nil},
		{"h1+TLS", own.Server(nil, "127.0.0.1"), []change{secure(own.Store())}},
	} {
		server := serveShout(t, x.config)
		for _, k := range []struct {
			name  string
			fault link.Fault
			st    change
			want  string
			cause func(error) bool
		}{
			{"refused", link.Fault{Kind: link.None}, nil, unreachable, is(syscall.ECONNREFUSED)},
			{"silence before the handshake", link.Fault{Reply: true}, nil, unreachable, is(runtime.ErrTimeout)},
			{"silence after it, no PING", link.Fault{Reply: true, After: 1 << 20}, func(st *policy.StreamType) { st.Retry.ValidHangup = 150 * time.Millisecond },
				"CRE POL CNG CON DIS", is(runtime.ErrNoValidity)},
		} {
			t.Run(x.name+"/"+k.name, func(t *testing.T) {
				k.fault.Stall = time.Hour
				limit := time.Duration(0)
				if k.name != "refused" && k.fault.After == 0 {
					k.fault.Kind, limit = link.BlackHole, 200*time.Millisecond
				}
				p := newProxy(server, func() link.Fault { return k.fault })
				t.Cleanup(p.Close)
				addr := p.Addr()
				if k.name == "refused" {
					addr = testserver.Refused(t)
				}
				st := streamType(addr, append(x.changes, conceal(2))...)
				st.Protocol = policy.ProtocolWS
				if k.st != nil {
					k.st(st)
				}
				tr := newTrace(nil)
				s := newStream(t, newContext(t, runtime.Options{ConnectTimeout: limit}, st), tr.handlers())
				s.RequestTx()
				tr.awaitEnds(1)
				tr.Want(t, k.want)
				if !k.cause(s.Err()) {
					t.Errorf("the cause is %v", s.Err())
				}
			})
		}
	}
}
