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
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/h3"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func h3Of(st *policy.StreamType) { st.Protocol = policy.ProtocolH3 }

// An h3Conn is the key of the connection in the context of a request.
type h3Conn struct{}

// serveH3 runs an h3 server until the end of the test. It cuts a body short after a value
// from received.
func serveH3(t *testing.T, config *tls.Config, received <-chan struct{}) netip.AddrPort {
	return serveH3On(t, teststream.Must(net.ListenPacket("udp", "127.0.0.1:0")), config, received)
}

func serveH3On(t *testing.T, pc net.PacketConn, config *tls.Config, received <-chan struct{}) netip.AddrPort {
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
				case <-received: // skip values for the next request
				default:
				}
			}
		})
	}
}

// TestH3Silence silences the network after each datagram of either direction. The stream
// must end as documented, by the limit of an attempt or by svalidhup, and work again when
// the network does.
func TestH3Silence(t *testing.T) {
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	own := testcert.New("own")
	for _, reply := range []bool{false, true} {
		seen := map[string]int{}
		for after := range 12 {
			synctest.Test(t, func(t *testing.T) { seen[silence(t, own, after, reply)]++ })
		}
		t.Logf("reply=%v: %v", reply, seen)
		if len(seen) < 2 {
			t.Errorf("the silence has no effect: %v", seen)
		}
	}
}

// silence returns the sequence of a request when the network is silent after a number of
// datagrams from the client, or from the server if reply is set.
func silence(t *testing.T, own *testcert.Authority, after int, reply bool) string {
	var left atomic.Int64
	var clean atomic.Bool
	left.Store(int64(after))
	var server netip.AddrPort
	n := &testserver.PacketNetwork{Pass: func(from, _ netip.AddrPort) bool {
		switch {
		case clean.Load():
			return true
		case reply == (from == server):
			return left.Add(-1) >= 0
		}
		return left.Load() > 0
	}}
	server = serveH3On(t, n.Listen(), own.Server(nil, "127.0.0.1"), nil)
	st := streamType(server, h3Of, secure(own.Store()), func(st *policy.StreamType) {
		st.HTTP.URL = "/hello"
		st.Retry = &policy.Retry{Name: "r", ValidPing: 500 * time.Millisecond, ValidHangup: time.Second}
	})
	client := h3.NewWith(h3.Options{ListenPacket: func(context.Context) (net.PacketConn, error) { return n.Listen(), nil }})
	c := teststream.NewContext(t, runtime.Options{ConnectTimeout: time.Second, Transports: []transport.Transport{client}}, st)
	tr := newTrace(nil)
	s := newStream(t, c, tr.handlers())
	s.RequestTx()
	if !tr.awaitEnds(1) || !slices.Contains(endings, tr.String()) {
		t.Errorf("silence after %d datagrams: %s (%v)", after, tr, s.Err())
	}
	got := tr.String()
	clean.Store(true)
	s.Connect()
	if !tr.awaitEnds(2) || strings.TrimPrefix(tr.String(), got) != " CNG CON rx rx(EOM) ACK DIS" {
		t.Errorf("silence after %d datagrams: %s; then, without silence: %s (%v)", after, got, tr, s.Err())
	}
	return got
}
