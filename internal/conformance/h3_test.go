//go:build linux

package conformance

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

func h3Of(st *policy.StreamType) { st.Protocol = policy.ProtocolH3 }

// An h3Conn is the key of the connection in the context of a request.
type h3Conn struct{}

// serveH3 runs a server for h3 until the end of the test. It cuts a body short after a
// value from received.
func serveH3(t *testing.T, config *tls.Config, received <-chan struct{}) netip.AddrPort {
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.(http.Flusher).Flush()
		io.WriteString(w, "hello")
	})
	mux.HandleFunc("/204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	mux.HandleFunc("/404", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 404) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	cut := func(end func(*http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			select {
			case <-received:
			case <-r.Context().Done():
			}
			end(r)
		}
	}
	reset := func(r *http.Request) {
		r.Context().Value(h3Conn{}).(*quic.Conn).CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeInternalError), "")
	}
	mux.HandleFunc("/cut", cut(func(*http.Request) { panic(http.ErrAbortHandler) }))
	mux.HandleFunc("/reset", cut(reset))
	mux.HandleFunc("/reset-first", func(_ http.ResponseWriter, r *http.Request) { reset(r) })
	mux.HandleFunc("/never", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	pc := teststream.Must(net.ListenPacket("udp", "127.0.0.1:0"))
	srv := &http3.Server{Handler: mux, TLSConfig: http3.ConfigureTLSConfig(config), Logger: slog.New(slog.DiscardHandler),
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context { return context.WithValue(ctx, h3Conn{}, c) }}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(pc) })
	t.Cleanup(func() { srv.Close(); wg.Wait(); pc.Close() })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestH3 runs the sequences of docs/runtime.md against the server of quic-go, each twice
// in one context.
func TestH3(t *testing.T) {
	checkLeaks(t)
	own, other := testcert.New("own"), testcert.New("other")
	received := make(chan struct{}, 1)
	addr := serveH3(t, own.Server(nil, "127.0.0.1"), received)
	nobody := teststream.Must(net.ListenPacket("udp", "127.0.0.1:0"))
	nobody.Close()
	for _, tt := range []struct {
		name, url string
		st        change
		tx        string
		want      string
		body      string
		cause     func(error) bool
	}{
		{name: "GET 200", url: "/hello", want: fetched, body: "hello"},
		{name: "204", url: "/204", want: "CRE POL CNG CON ACK DIS"},
		{name: "404", url: "/404", want: "CRE POL CNG CON rx rx(EOM) NAK DIS", body: "no\n"},
		{name: "POST", url: "/echo", st: method("POST"), tx: "one and two", want: "CRE POL CNG tx CON rx rx(EOM) ACK DIS", body: "one and two"},
		{name: "cut body", url: "/cut", want: cutShort, body: "hello"},
		{name: "reset in the body", url: "/reset", want: cutShort, body: "hello"},
		{name: "reset before the answer", url: "/reset-first", st: conceal(1), want: "CRE POL CNG UNR POL CNG UNR ARF"},
		{name: "no answer", url: "/never", st: conceal(1), want: "CRE POL CNG UNR POL CNG UNR ARF", cause: is(runtime.ErrTimeout)},
		{name: "nobody there", url: "/hello", st: func(st *policy.StreamType) {
			st.Port, st.Retry = nobody.LocalAddr().(*net.UDPAddr).AddrPort().Port(), teststream.Retry(1)
		}, want: "CRE POL CNG UNR POL CNG UNR ARF"},
		{name: "wrong store", url: "/hello", st: func(st *policy.StreamType) { st.TrustStore, st.Retry = other.Store(), teststream.Retry(1) },
			want: "CRE POL CNG UNR POL CNG UNR ARF", cause: isTLS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limit := time.Duration(0)
			if tt.name == "no answer" || tt.name == "nobody there" {
				limit = 200 * time.Millisecond
			}
			st := streamType(addr, h3Of, secure(own.Store()))
			st.HTTP.URL = tt.url
			if tt.st != nil {
				tt.st(st)
			}
			c := newContext(t, runtime.Options{ConnectTimeout: limit}, st)
			for range 2 {
				tr := newTrace(teststream.Actions{"rx": func(*runtime.Stream) runtime.Result {
					select {
					case received <- struct{}{}:
					default:
					}
					return runtime.OK
				}})
				tr.text, tr.noteTx = tt.tx, true
				s := newStream(t, c, tr.handlers())
				s.RequestTx()
				if !tr.awaitEnds(1) || tr.String() != tt.want || tr.Body() != tt.body {
					t.Errorf("got  %s, %q (%v)\nwant %s, %q", tr, tr.Body(), s.Err(), tt.want, tt.body)
				}
				if tt.cause != nil && !tt.cause(s.Err()) {
					t.Errorf("the cause is %v", s.Err())
				}
				select {
				case <-received: // not for the next request
				default:
				}
			}
		})
	}
}

// A udpProxy forwards a number of datagrams in one direction, and then none in either.
type udpProxy struct {
	conn  *net.UDPConn
	left  atomic.Int64
	reply bool // left counts the datagrams of the server
	clean atomic.Bool
	wg    sync.WaitGroup
	mu    sync.Mutex
	back  []*net.UDPConn
}

func newUDPProxy(server netip.AddrPort, after int, reply bool) *udpProxy {
	p := &udpProxy{conn: teststream.Must(net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})), reply: reply}
	p.left.Store(int64(after))
	p.wg.Go(func() {
		to := map[netip.AddrPort]*net.UDPConn{}
		buf := make([]byte, 64<<10)
		for {
			n, from, err := p.conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			out := to[from]
			if out == nil {
				out = teststream.Must(net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server)))
				to[from] = out
				p.mu.Lock()
				p.back = append(p.back, out)
				p.mu.Unlock()
				p.wg.Go(func() {
					buf := make([]byte, 64<<10)
					for {
						n, err := out.Read(buf)
						if err != nil {
							return
						}
						if p.pass(true) {
							p.conn.WriteToUDPAddrPort(buf[:n], from)
						}
					}
				})
			}
			if p.pass(false) {
				out.Write(buf[:n])
			}
		}
	})
	return p
}

func (p *udpProxy) pass(reply bool) bool {
	switch {
	case p.clean.Load():
		return true
	case reply == p.reply:
		return p.left.Add(-1) >= 0
	}
	return p.left.Load() > 0
}

func (p *udpProxy) close() {
	p.conn.Close()
	p.mu.Lock()
	for _, c := range p.back {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// TestH3Silence lets the network fall silent after each datagram of either direction. The
// stream must end as documented, by the limit of an attempt or by svalidhup, and work
// again when the network does.
func TestH3Silence(t *testing.T) {
	checkLeaks(t)
	own := testcert.New("own")
	server := serveH3(t, own.Server(nil, "127.0.0.1"), nil)
	for _, reply := range []bool{false, true} {
		var mu sync.Mutex
		seen := map[string]int{}
		var wg sync.WaitGroup
		for after := range 12 {
			wg.Go(func() {
				p := newUDPProxy(server, after, reply)
				defer p.close()
				st := streamType(p.conn.LocalAddr().(*net.UDPAddr).AddrPort(), h3Of, secure(own.Store()), func(st *policy.StreamType) {
					st.HTTP.URL = "/hello"
					st.Retry = &policy.Retry{Name: "r", ValidPing: 500 * time.Millisecond, ValidHangup: time.Second}
				})
				c := newContext(t, runtime.Options{ConnectTimeout: time.Second}, st)
				defer teststream.Shutdown(t, c)
				tr := newTrace(nil)
				s := teststream.Must(c.NewStream("s", tr.handlers()))
				s.RequestTx()
				if !tr.awaitEnds(1) || !slices.Contains(endings, tr.String()) {
					t.Errorf("silence after %d datagrams: %s (%v)", after, tr, s.Err())
					return
				}
				got := tr.String()
				mu.Lock()
				seen[got]++
				mu.Unlock()
				p.clean.Store(true)
				s.Connect()
				if !tr.awaitEnds(2) || strings.TrimPrefix(tr.String(), got) != " CNG CON rx rx(EOM) ACK DIS" {
					t.Errorf("silence after %d datagrams: %s; then, without silence: %s (%v)", after, got, tr, s.Err())
				}
			})
		}
		wg.Wait()
		t.Logf("reply=%v: %v", reply, seen)
		if len(seen) < 2 {
			t.Errorf("the silence has no effect: %v", seen)
		}
	}
}
