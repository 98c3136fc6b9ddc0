//go:build linux

package conformance

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
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

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// An exchange is short: a request, a head and a body, each in a piece of its
// own, so that a fault can fall between any two.
type exchange struct {
	name   string
	server func() (addr string, stop func())
	st     []func(*policy.StreamType)
	step   int // between the offsets at which it is reset
	shut   int // and those at which it is shut
}

const answerHead = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"

// answer1 answers each request over h1, in two writes.
func answer1(config *tls.Config) func() (string, func()) {
	return func() (string, func()) {
		ln := must(net.Listen("tcp", "127.0.0.1:0"))
		if config != nil {
			ln = tls.NewListener(ln, config)
		}
		srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, answerHead)
			time.Sleep(time.Millisecond)
			io.WriteString(c, "hello")
			io.Copy(io.Discard, c) // until the client has had enough
		})}
		go srv.Serve(ln)
		return ln.Addr().String(), func() { srv.Close() }
	}
}

// answer2 answers over h2, in several frames.
func answer2(config *tls.Config) func() (string, func()) {
	return func() (string, func()) {
		ln := must(net.Listen("tcp", "127.0.0.1:0"))
		srv := &http.Server{TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols),
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "5")
				w.(http.Flusher).Flush()
				io.WriteString(w, "hello")
			})}
		srv.Protocols.SetHTTP2(true)
		go srv.ServeTLS(ln, "", "")
		return ln.Addr().String(), func() { srv.Close() }
	}
}

// The ways in which the exchange may end, in the order in which more and more
// of the reply gets through.
var endings = []string{
	"CRE POL CNG UNR ARF",
	"CRE POL CNG CON DIS",
	"CRE POL CNG CON rx DIS",
	"CRE POL CNG CON rx rx(EOM) ACK DIS",
}

// TestFaultAtEveryOffset breaks a connection after each byte of the request and
// of the reply. The stream must end as is documented, with nothing left of the
// connection, and be good for another attempt.
func TestFaultAtEveryOffset(t *testing.T) {
	t.Setenv("GODEBUG", "tlsmlkem=0") // a short handshake
	own := testcert.New("own")
	config := func(proto string) *tls.Config {
		return &tls.Config{NextProtos: []string{proto}, Certificates: []tls.Certificate{
			own.Certify(testcert.Ed25519Key(), time.Now().Add(-time.Hour), "127.0.0.1")}}
	}
	for _, x := range []exchange{
		{"h1", answer1(nil), nil, 1, 1},
		{"h1+TLS", answer1(config("http/1.1")), []func(*policy.StreamType){secure(own.Store())}, 1, 5},
		{"h2", answer2(config("h2")), []func(*policy.StreamType){secure(own.Store()), h2}, 7, 35},
	} {
		t.Run(x.name, func(t *testing.T) {
			for _, f := range []struct {
				name string
				fault
				step int
			}{
				{"reset/request", fault{kind: reset}, x.step},
				{"reset/reply", fault{kind: reset, reply: true}, x.step},
				{"shut/request", fault{kind: shut}, x.shut},
				{"shut/reply", fault{kind: shut, reply: true}, x.shut},
			} {
				t.Run(f.name, func(t *testing.T) {
					m := setMark()
					x.everyOffset(t, f.fault, f.step)
					m.check(t)
				})
			}
		})
	}
}

// everyOffset tries the fault at each offset, up to one at which it comes too
// late to matter.
func (x *exchange) everyOffset(t *testing.T, f fault, step int) {
	server, stop := x.server()
	defer stop()
	const workers = 4
	var mu sync.Mutex
	seen := map[int]string{}
	var next, good atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				k := int(next.Add(int64(step))) - step
				// Long after the end of a reply, the fault does not matter.
				if f.reply && good.Load() > 8 || k > 20_000 || !f.reply && k > 2_000 {
					return
				}
				g := f
				g.after = k
				got, struck := x.at(t, server, g)
				mu.Lock()
				seen[k] = got
				mu.Unlock()
				if !struck {
					good.Add(1)
					if !f.reply {
						return // the request is not that long
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
	// The same byte of two exchanges is not at the same offset: a signature of
	// TLS is up to 3 bytes shorter than another one, and over h2 frames that
	// belong to no stream (SETTINGS and its ACK, WINDOW_UPDATE, PING) come
	// before or after the reply as it happens.
	vary := map[string]int{"h1": 0, "h1+TLS": 8, "h2": 64}[x.name]
	for _, k := range offsets {
		e := slices.Index(endings, seen[k])
		switch {
		case e < 0:
			t.Errorf("after %d bytes: %s", k, seen[k])
			continue
		case e < latest && k > first[latest]+vary && (f.reply || x.name != "h2"): // over h2 the client sends more than the request
			t.Errorf("after %d bytes the stream saw %q, and with less, %q", k, seen[k], endings[latest])
		case f.reply && x.name == "h1":
			want := 0
			switch n := k - len(answerHead); {
			case n >= 5:
				want = 3
			case n > 0:
				want = 2
			case n == 0:
				want = 1
			}
			if e != want {
				t.Errorf("after %d bytes: saw %q, want %q", k, seen[k], endings[want])
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
	if counts[0] == 0 || counts[3] == 0 || f.reply && x.name != "h2" && (counts[1] == 0 || counts[2] == 0 && x.name == "h1") {
		t.Errorf("not all of the endings were seen: %v", counts)
	}
}

// at runs the exchange through a proxy with a fault, and then once more without.
// It returns what was seen of the former, and whether the fault made a difference.
func (x *exchange) at(t *testing.T, server string, f fault) (seen string, struck bool) {
	var clean atomic.Bool
	p := newFaultProxy(server, func() fault {
		if clean.Load() {
			return fault{}
		}
		return f
	})
	defer p.close()
	st := streamType(p.addr(), x.st...)
	c := newContext(t, runtime.Options{}, st)
	defer c.Close()
	tr := &trace{}
	s, err := c.NewStream("s", tr.handlers())
	if err != nil {
		t.Error(err)
		return "", false
	}
	ended := func(n int) func() bool { return func() bool { return tr.Count("DIS")+tr.Count("ARF") == n } }
	s.RequestTx()
	if !tr.Await(ended(1)) {
		t.Errorf("%s fault after %d bytes: stuck after %s", x.name, f.after, tr)
		return "", false
	}
	seen = tr.String()
	struck = seen != endings[3]
	clean.Store(true)
	s.Connect()
	if !tr.Await(ended(2)) || tr.String() != seen+" CNG CON rx rx(EOM) ACK DIS" {
		// A connection that h2 keeps has its fault with it.
		if got := strings.TrimPrefix(tr.String(), seen); struck || x.name != "h2" ||
			!slices.Contains(endings, "CRE POL"+got) {
			t.Errorf("%s fault after %d bytes: then, without a fault: %s (%v)", x.name, f.after, got, s.Err())
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	return seen, struck
}

// TestBlackHole stops a connection without a word: before it is accepted, after
// it, and in the middle of each part of an exchange.
func TestBlackHole(t *testing.T) {
	m := setMark()
	own := testcert.New("own")
	config := &tls.Config{NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{
		own.Certify(testcert.Ed25519Key(), time.Now().Add(-time.Hour), "127.0.0.1")}}
	for _, x := range []exchange{
		{name: "h1", server: answer1(nil)},
		{name: "h1+TLS", server: answer1(config), st: []func(*policy.StreamType){secure(own.Store())}},
	} {
		server, stop := x.server()
		for _, f := range []fault{
			{after: 0}, {after: 10}, {after: 1_000_000},
			{reply: true, after: 0}, {reply: true, after: 10},
			{reply: true, after: len(answerHead) - 1}, {reply: true, after: len(answerHead)}, {reply: true, after: len(answerHead) + 2},
		} {
			t.Run(fmt.Sprintf("%s/reply=%v/%d", x.name, f.reply, f.after), func(t *testing.T) {
				f.kind, f.stall = blackHole, time.Hour
				if f.after == 1_000_000 {
					f.reply, f.after = true, 0 // all of the request, nothing of the reply
				}
				p := newFaultProxy(server, func() fault { return f })
				defer p.close()
				st := streamType(p.addr(), append(x.st, func(st *policy.StreamType) { st.Retry = teststream.Retry(1) })...)
				c := newContext(t, runtime.Options{ConnectTimeout: 80 * time.Millisecond}, st)
				defer c.Close()
				tr := &trace{on: map[string]func(*runtime.Stream) runtime.Result{
					// The rest of an answer may take as long as it likes, but for
					// the timer of the program.
					"CON": func(s *runtime.Stream) runtime.Result { s.StartTimeout(20 * time.Millisecond); return runtime.OK },
					"TMO": func(*runtime.Stream) runtime.Result { return runtime.DisconnectMe },
				}}
				s := must(c.NewStream("s", tr.handlers()))
				s.RequestTx()
				tr.Await(func() bool { return tr.Count("DIS")+tr.Count("ARF") > 0 })
				want, cause := "CRE POL CNG UNR POL CNG UNR ARF", runtime.ErrTimeout
				if n := f.after - len(answerHead); x.name == "h1" && f.reply && n >= 0 {
					want, cause = "CRE POL CNG CON TMO DIS", runtime.ErrDisconnected
					if n > 0 {
						want = "CRE POL CNG CON rx TMO DIS"
					}
				}
				t.Logf("expected %s", want)
				t.Logf("seen     %s (%v)", tr, s.Err())
				if tr.String() != want || !errors.Is(s.Err(), cause) {
					t.Errorf("saw %s (%v)\nwant %s (%v)", tr, s.Err(), want, cause)
				}
			})
		}
		stop()
	}
	t.Run("not accepted", func(t *testing.T) {
		addr, stop := fullListener(t)
		defer stop()
		c := newContext(t, runtime.Options{ConnectTimeout: 100 * time.Millisecond}, streamType(addr))
		defer c.Close()
		tr := &trace{}
		s := must(c.NewStream("s", tr.handlers()))
		s.RequestTx()
		tr.Await(func() bool { return tr.Count("ARF") > 0 })
		t.Logf("seen %s (%v)", tr, s.Err())
		if tr.String() != endings[0] || !errors.Is(s.Err(), runtime.ErrTimeout) {
			t.Errorf("saw %s (%v)", tr, s.Err())
		}
	})
	m.check(t)
}

// fullListener returns the address of a socket that listens, but whose queue is
// full already.
func fullListener(t *testing.T) (addr netip.AddrPort, stop func()) {
	fd := must(syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0))
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa := must(syscall.Getsockname(fd)).(*syscall.SockaddrInet4)
	addr = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	var conns []net.Conn
	for range 16 {
		c, err := net.DialTimeout("tcp", addr.String(), 50*time.Millisecond)
		if err != nil {
			return addr, func() {
				for _, c := range conns {
					c.Close()
				}
				syscall.Close(fd)
			}
		}
		conns = append(conns, c)
	}
	t.Fatal("the queue of a listener does not fill")
	return
}

// TestIdleConnectionReset resets a kept connection before the next request,
// which must not notice.
func TestIdleConnectionReset(t *testing.T) {
	m := setMark()
	own := testcert.New("own")
	for _, proto := range []string{"h1", "h1+TLS", "h2"} {
		t.Run(proto, func(t *testing.T) {
			ln := must(net.Listen("tcp", "127.0.0.1:0"))
			var mu sync.Mutex
			var conns []net.Conn
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }),
				Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0),
				ConnContext: func(ctx context.Context, c net.Conn) context.Context {
					if tc, ok := c.(*tls.Conn); ok {
						c = tc.NetConn()
					}
					mu.Lock()
					conns = append(conns, c)
					mu.Unlock()
					return ctx
				}}
			srv.Protocols.SetHTTP1(true)
			srv.Protocols.SetHTTP2(true)
			defer srv.Close()
			st := streamType(ln.Addr().(*net.TCPAddr).AddrPort(), conceal(2))
			if proto == "h1" {
				go srv.Serve(ln)
			} else {
				srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{own.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")}}
				go srv.ServeTLS(ln, "", "")
				secure(own.Store())(st)
			}
			if proto == "h2" {
				h2(st)
			}
			c := newContext(t, runtime.Options{}, st)
			defer c.Close()
			tr := &trace{}
			s := must(c.NewStream("s", tr.handlers()))
			for i := 1; i <= 20; i++ {
				if s.RequestTx(); !tr.Await(func() bool { return tr.Count("DIS") == i }) {
					break
				}
				mu.Lock()
				for _, c := range conns {
					c.(*net.TCPConn).SetLinger(0)
					c.Close()
				}
				conns = nil
				mu.Unlock()
				if i%2 == 0 {
					time.Sleep(5 * time.Millisecond) // else the client may not know yet
				}
			}
			// Over h2 a reset that the client learns of only when it has sent the
			// request is an attempt that fails: the server may have got it.
			got := tr.String()
			if proto == "h2" {
				got = strings.ReplaceAll(got, " POL CNG UNR", "")
			}
			if got != again(fetched, 20) {
				t.Errorf("saw %s (%v)", tr, s.Err())
			}
			t.Logf("20 transactions, the connection reset after each: %s ... with %d UNR", fetched, tr.Count("UNR"))
		})
	}
	m.check(t)
}

// TestResolver makes the name of the server one that is not known, or that the
// resolver can not tell.
func TestResolver(t *testing.T) {
	m := setMark()
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
			pc := must(net.ListenPacket("udp", "127.0.0.1:0"))
			var wg sync.WaitGroup
			defer wg.Wait()
			defer pc.Close()
			wg.Go(func() { answerDNS(pc, tt.rcode) })
			d := &net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
			}}}
			st := streamType(netip.MustParseAddrPort("127.0.0.1:80"), func(st *policy.StreamType) {
				st.Endpoint, st.Retry = "there-is-no.such-name.test.", teststream.Retry(2)
			})
			c := newContext(t, runtime.Options{DialContext: d.DialContext, ConnectTimeout: 500 * time.Millisecond}, st)
			defer c.Close()
			tr := &trace{}
			s := must(c.NewStream("s", tr.handlers()))
			s.RequestTx()
			tr.Await(func() bool { return tr.Count("ARF") > 0 })
			t.Logf("expected %s", unreachable)
			t.Logf("seen     %s, args %v (%v)", tr, tr.args, s.Err())
			if tr.String() != unreachable || !tt.cause(s.Err()) || tr.args[0] != tt.arg {
				t.Errorf("saw %s, args %v (%v)", tr, tr.args, s.Err())
			}
		})
	}
	m.check(t)
}

// answerDNS answers each query with an error; or not at all.
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
		// The header and the question, without what may follow.
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
