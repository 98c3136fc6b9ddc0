//go:build linux

package conformance

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/faulttest/link"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// An exchange is a short request and response.
type exchange struct {
	name    string
	server  func(t *testing.T) (addr string)
	changes []change
	step    int // distance between the offsets of resets
	shut    int // distance between the offsets of FINs
}

// responseHead is what serveH1 sends before the body.
const responseHead = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"

// serveH1 returns a server that answers each request over h1, in two writes.
func serveH1(config *tls.Config) func(*testing.T) string {
	return func(t *testing.T) string {
		ln := testserver.Listen(t)
		if config != nil {
			ln = tls.NewListener(ln, config)
		}
		testserver.HTTP(t, ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, responseHead)
			io.WriteString(c, "hello")
			io.Copy(io.Discard, c) // until the client closes
		})})
		return ln.Addr().String()
	}
}

// serveH2 returns a server that answers over h2, in several frames.
func serveH2(config *tls.Config) func(*testing.T) string {
	return func(t *testing.T) string {
		ln := testserver.Listen(t)
		testserver.HTTP(t, tls.NewListener(ln, config), &http.Server{TLSConfig: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			w.(http.Flusher).Flush()
			io.WriteString(w, "hello")
		})})
		return ln.Addr().String()
	}
}

// shortHandshake returns the TLS configuration of a server whose handshakes are short and
// vary little in length.
func shortHandshake(t *testing.T, a *testcert.Authority, protos ...string) *tls.Config {
	t.Setenv("GODEBUG", "tlsmlkem=0")
	return &tls.Config{NextProtos: protos, Certificates: []tls.Certificate{
		a.Certify(testcert.Ed25519Key(), time.Now().Add(-time.Hour), "127.0.0.1")}}
}

// endings are the documented sequences of an exchange, ordered by the amount of the
// response that arrives.
var endings = []string{
	"CRE POL CNG UNR ARF",
	"CRE POL CNG CON DIS",
	"CRE POL CNG CON rx DIS",
	"CRE POL CNG CON rx rx(EOM) ACK DIS",
}

// TestFaultAtEveryOffset breaks a connection after each byte of the request and of the
// response. The stream must end as documented, release the connection, and be usable for
// another attempt.
func TestFaultAtEveryOffset(t *testing.T) {
	own := testcert.New("own")
	for _, x := range []exchange{
		{"h1", serveH1(nil), nil, 1, 1},
		{"h1+TLS", serveH1(shortHandshake(t, own, "http/1.1")), []change{secure(own.Store())}, 1, 5},
		{"h2", serveH2(shortHandshake(t, own, "h2")), []change{secure(own.Store()), h2}, 7, 35},
	} {
		t.Run(x.name, func(t *testing.T) {
			for _, f := range []struct {
				name string
				link.Fault
				step int
			}{
				{"reset/request", link.Fault{Kind: link.Reset}, x.step},
				{"reset/reply", link.Fault{Kind: link.Reset, Reply: true}, x.step},
				{"shut/request", link.Fault{Kind: link.FIN}, x.shut},
				{"shut/reply", link.Fault{Kind: link.FIN, Reply: true}, x.shut},
			} {
				t.Run(f.name, func(t *testing.T) {
					checkLeaks(t)
					x.everyOffset(t, f.Fault, f.step)
				})
			}
		})
	}
}

// everyOffset tries the fault at each offset until it has no effect.
func (x *exchange) everyOffset(t *testing.T, f link.Fault, step int) {
	server := x.server(t)
	const workers = 4
	var mu sync.Mutex
	seen := map[int]string{}
	var next, good atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				k := int(next.Add(int64(step))) - step
				// After the end of a response the fault has no effect.
				if f.Reply && good.Load() > 8 || k > 20_000 || !f.Reply && k > 2_000 {
					return
				}
				g := f
				g.After = k
				got, struck := x.at(t, server, g)
				mu.Lock()
				seen[k] = got
				mu.Unlock()
				if !struck {
					good.Add(1)
					if !f.Reply {
						return // the request is shorter
					}
				}
			}
		})
	}
	wg.Wait()
	var offsets []int
	for k := range seen {
		offsets = append(offsets, k)
	}
	slices.Sort(offsets)
	var counts [4]int
	var first [4]int
	latest := 0
	// The same byte of two exchanges may have different offsets: TLS signatures differ by
	// up to 3 bytes, and over h2 connection-level frames (SETTINGS and its ACK,
	// WINDOW_UPDATE, PING) come before or after the response.
	vary := map[string]int{"h1": 0, "h1+TLS": 8, "h2": 64}[x.name]
	for _, k := range offsets {
		e := slices.Index(endings, seen[k])
		switch {
		case e < 0:
			t.Errorf("after %d bytes: %s", k, seen[k])
			continue
		case e < latest && k > first[latest]+vary && (f.Reply || x.name != "h2"): // over h2 the client sends more than the request
			t.Errorf("after %d bytes: %q, but after %d: %q", k, seen[k], first[latest], endings[latest])
		case f.Reply && x.name == "h1":
			want := 0
			switch n := k - len(responseHead); {
			case n >= 5:
				want = 3
			case n > 0:
				want = 2
			case n == 0:
				want = 1
			}
			if e != want {
				t.Errorf("after %d bytes: %q, want %q", k, seen[k], endings[want])
			}
		}
		latest = max(latest, e)
		if counts[e]++; counts[e] == 1 {
			first[e] = k
		}
	}
	for e, n := range counts {
		if n > 0 {
			t.Logf("from byte %4d on, at %4d offsets: %s", first[e], n, endings[e])
		}
	}
	if counts[0] == 0 || counts[3] == 0 || f.Reply && x.name != "h2" && (counts[1] == 0 || counts[2] == 0 && x.name == "h1") {
		t.Errorf("some endings did not occur: %v", counts)
	}
}

// at runs the exchange through a proxy with a fault, and then without one. It returns the
// events of the first exchange, and whether the fault had an effect.
func (x *exchange) at(t *testing.T, server string, f link.Fault) (seen string, struck bool) {
	var clean atomic.Bool
	p := newProxy(server, func() link.Fault {
		if clean.Load() {
			return link.Fault{}
		}
		return f
	})
	defer p.Close()
	c := newContext(t, runtime.Options{}, streamType(p.Addr(), x.changes...))
	defer teststream.Shutdown(t, c)
	tr := newTrace(nil)
	s, err := c.NewStream("s", tr.handlers())
	if err != nil {
		t.Error(err)
		return "", false
	}
	s.RequestTx()
	if !tr.awaitEnds(1) {
		t.Errorf("%s fault after %d bytes: stuck after %s", x.name, f.After, tr)
		return "", false
	}
	seen = tr.String()
	struck = seen != endings[3]
	clean.Store(true)
	s.Connect()
	if !tr.awaitEnds(2) || tr.String() != seen+" CNG CON rx rx(EOM) ACK DIS" {
		// A connection that h2 reuses still has its fault.
		if got := strings.TrimPrefix(tr.String(), seen); struck || x.name != "h2" ||
			!slices.Contains(endings, "CRE POL"+got) {
			t.Errorf("%s fault after %d bytes: then, without a fault: %s (%v)", x.name, f.After, got, s.Err())
		}
	}
	return seen, struck
}

// TestBlackHole silences a connection: before it is accepted, after that, and in each part
// of an exchange.
func TestBlackHole(t *testing.T) {
	checkLeaks(t)
	own := testcert.New("own")
	for _, x := range []exchange{
		{name: "h1", server: serveH1(nil)},
		{name: "h1+TLS", server: serveH1(shortHandshake(t, own, "http/1.1")), changes: []change{secure(own.Store())}},
	} {
		server := x.server(t)
		for _, f := range []link.Fault{
			{After: 0}, {After: 10}, {After: 1_000_000},
			{Reply: true, After: 0}, {Reply: true, After: 10},
			{Reply: true, After: len(responseHead) - 1}, {Reply: true, After: len(responseHead)}, {Reply: true, After: len(responseHead) + 2},
		} {
			t.Run(fmt.Sprintf("%s/reply=%v/%d", x.name, f.Reply, f.After), func(t *testing.T) {
				f.Kind, f.Stall = link.BlackHole, time.Hour
				if f.After == 1_000_000 {
					f.Reply, f.After = true, 0 // all of the request, nothing of the response
				}
				p := newProxy(server, func() link.Fault { return f })
				t.Cleanup(p.Close)
				want, cause, limit := "CRE POL CNG UNR POL CNG UNR ARF", runtime.ErrTimeout, 80*time.Millisecond
				last := "" // event before the silence
				if n := f.After - len(responseHead); x.name == "h1" && f.Reply && n >= 0 {
					want, last, cause, limit = "CRE POL CNG CON TMO DIS", "CON", runtime.ErrDisconnected, 0
					if n > 0 {
						want, last = "CRE POL CNG CON rx TMO DIS", "rx"
					}
				}
				c := newContext(t, runtime.Options{ConnectTimeout: limit}, streamType(p.Addr(), append(x.changes, conceal(1))...))
				tr := newTrace(teststream.Actions{
					// After CONNECTED, only the program sets a limit.
					last:  func(s *runtime.Stream) runtime.Result { s.StartTimeout(20 * time.Millisecond); return runtime.OK },
					"TMO": teststream.Disconnect,
				})
				s := newStream(t, c, tr.handlers())
				s.RequestTx()
				tr.awaitEnds(1)
				if tr.String() != want || !errors.Is(s.Err(), cause) {
					t.Errorf("got  %s (%v)\nwant %s (%v)", tr, s.Err(), want, cause)
				}
			})
		}
	}
	t.Run("not accepted", func(t *testing.T) {
		c := newContext(t, runtime.Options{ConnectTimeout: 100 * time.Millisecond}, streamType(fullListener(t)))
		tr := newTrace(nil)
		s := newStream(t, c, tr.handlers())
		s.RequestTx()
		tr.awaitEnds(1)
		tr.Want(t, endings[0])
		if !errors.Is(s.Err(), runtime.ErrTimeout) {
			t.Errorf("the cause is %v", s.Err())
		}
	})
}

// fullListener returns the address of a listening socket whose queue is full.
func fullListener(t *testing.T) netip.AddrPort {
	fd := teststream.Must(syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0))
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa := teststream.Must(syscall.Getsockname(fd)).(*syscall.SockaddrInet4)
	addr := netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	for range 16 {
		c, err := net.DialTimeout("tcp", addr.String(), 50*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue of a listener does not fill")
	return addr
}

// An endingConn signals the end of reading.
type endingConn struct {
	net.Conn
	end func()
}

func (c *endingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.end()
	}
	return n, err
}

// TestIdleConnectionReset resets an idle connection before the next request, which must not
// fail.
func TestIdleConnectionReset(t *testing.T) {
	checkLeaks(t)
	own := testcert.New("own")
	for _, proto := range []string{"h1", "h1+TLS", "h2"} {
		t.Run(proto, func(t *testing.T) {
			var mu sync.Mutex
			var conns []*net.TCPConn              // connections of the server
			ended := map[string]<-chan struct{}{} // by client address
			srv := &http.Server{
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }),
				ConnContext: func(ctx context.Context, c net.Conn) context.Context {
					if tc, ok := c.(*tls.Conn); ok {
						c = tc.NetConn()
					}
					mu.Lock()
					defer mu.Unlock()
					conns = append(conns, c.(*net.TCPConn))
					return ctx
				}}
			ln := testserver.Listen(t)
			st := streamType(testserver.Addr(ln), conceal(2))
			if proto != "h1" {
				srv.TLSConfig = own.Server([]string{"h2", "http/1.1"}, "127.0.0.1")
				ln = tls.NewListener(ln, srv.TLSConfig)
				secure(own.Store())(st)
			}
			if proto == "h2" {
				h2(st)
			}
			testserver.HTTP(t, ln, srv)
			c := newContext(t, runtime.Options{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := new(net.Dialer).DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				end := make(chan struct{})
				mu.Lock()
				defer mu.Unlock()
				ended[c.LocalAddr().String()] = end
				return &endingConn{c, sync.OnceFunc(func() { close(end) })}, nil
			}}, st)
			tr := newTrace(nil)
			s := newStream(t, c, tr.handlers())
			for i := 1; i <= 20; i++ {
				if s.RequestTx(); !tr.awaitEnds(i) {
					break
				}
				mu.Lock()
				var ends []<-chan struct{}
				for _, c := range conns {
					if end := ended[c.RemoteAddr().String()]; end != nil { // otherwise it is still being dialed
						ends = append(ends, end)
					}
					c.SetLinger(0)
					c.Close()
				}
				conns = nil
				mu.Unlock()
				if i%2 == 0 { // otherwise the client may not know about the reset
					for _, end := range ends {
						<-end
					}
				}
			}
			// Over h2, an attempt fails if the client learns of the reset only after it has
			// sent the request, which the server may have received.
			got := tr.String()
			if proto == "h2" {
				got = strings.ReplaceAll(got, " POL CNG UNR", "")
			}
			if got != again(fetched, 20) {
				t.Errorf("got %s (%v)", tr, s.Err())
			}
			t.Logf("%d UNR", tr.Count("UNR"))
		})
	}
}

// TestResolver has a resolver that cannot resolve the name of the server.
func TestResolver(t *testing.T) {
	checkLeaks(t)
	const nameError, serverFailure, silence = 3, 2, -1
	for _, tt := range []struct {
		name  string
		rcode int
		arg   uint32
		cause func(error) bool
	}{
		{"no such name", nameError, 0, func(err error) bool { e, ok := errors.AsType[*net.DNSError](err); return ok && e.IsNotFound }},
		{"server failure", serverFailure, 1, func(err error) bool { e, ok := errors.AsType[*net.DNSError](err); return ok && !e.IsNotFound }},
		{"no answer", silence, 0, is(runtime.ErrTimeout)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pc := teststream.Must(net.ListenPacket("udp", "127.0.0.1:0"))
			var wg sync.WaitGroup
			t.Cleanup(wg.Wait)
			t.Cleanup(func() { pc.Close() })
			wg.Go(func() { answerDNS(pc, tt.rcode) })
			d := &net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
			}}}
			st := streamType(netip.MustParseAddrPort("127.0.0.1:80"), func(st *policy.StreamType) {
				st.Endpoint, st.Retry = "there-is-no.such-name.test.", teststream.Retry(2)
			})
			o := runtime.Options{DialContext: d.DialContext}
			if tt.rcode == silence {
				o.ConnectTimeout = 500 * time.Millisecond
			}
			c := newContext(t, o, st)
			tr := newTrace(nil)
			h := tr.handlers()
			h.State = func(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
				if state == runtime.StateUnreachable && arg != tt.arg {
					t.Errorf("UNREACHABLE has arg %d, want %d", arg, tt.arg)
				}
				return tr.State(s, state, arg)
			}
			s := newStream(t, c, h)
			s.RequestTx()
			tr.awaitEnds(1)
			tr.Want(t, unreachable)
			if !tt.cause(s.Err()) {
				t.Errorf("the cause is %v", s.Err())
			}
		})
	}
}

// answerDNS answers each query with an error, or not at all if rcode is negative.
func answerDNS(pc net.PacketConn, rcode int) {
	buf := make([]byte, 1500)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		if rcode < 0 || n < 12 {
			continue
		}
		q := buf[:n]
		// The header and the question, without additional records.
		end := 12
		for end < n && q[end] != 0 {
			end += 1 + int(q[end])
		}
		if end += 5; end > n {
			continue
		}
		q = slices.Clone(q[:end])
		binary.BigEndian.PutUint16(q[2:], 0x8180|uint16(rcode))
		binary.BigEndian.PutUint16(q[6:], 0)
		binary.BigEndian.PutUint16(q[8:], 0)
		binary.BigEndian.PutUint16(q[10:], 0)
		pc.WriteTo(q, from)
	}
}
