package h3_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/h3"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

var own = testcert.New("own")

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// serve serves h3 until the end of the test.
func serve(t testing.TB, h http.HandlerFunc) netip.AddrPort {
	return serveBy(t, own.Server(nil, "127.0.0.1"), h)
}

func serveBy(t testing.TB, config *tls.Config, h http.HandlerFunc) netip.AddrPort {
	pc := must(net.ListenPacket("udp", "127.0.0.1:0"))
	srv := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(config), Logger: slog.New(slog.DiscardHandler)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(pc)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
		pc.Close()
	})
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

func streamType(addr netip.AddrPort, change ...func(*policy.StreamType)) *policy.StreamType {
	st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolH3, Opportunistic: true, TLS: true, TrustStore: own.Store(),
		Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &policy.HTTP{URL: "/x"}}
	for _, f := range change {
		f(st)
	}
	return st
}

func newContext(t testing.TB, o runtime.Options, st *policy.StreamType) *runtime.Context {
	t.Helper()
	if o.Transports == nil {
		o.Transports = []transport.Transport{h3.New(sshttp.SigV4)}
	}
	return teststream.NewContext(t, o, st)
}

// run makes a transaction, and returns what the stream told and received.
func run(t *testing.T, o runtime.Options, st *policy.StreamType, data string) (events, body string, err error) {
	c := newContext(t, o, st)
	var tr teststream.Trace
	var got []byte
	end := func(s *runtime.Stream) policy.Result {
		err = s.Err()
		return policy.DestroyMe
	}
	tr.On = map[string]func(*runtime.Stream) policy.Result{"DIS": end, "ARF": end}
	h := runtime.Handlers{
		State: tr.State,
		Rx: func(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
			got = append(got, buf...)
			name := "rx"
			if flags&policy.FlagPerfJSON != 0 {
				name = "perf"
			} else if flags == policy.FlagEOM && len(buf) == 0 {
				name = "rx(EOM)"
			}
			return tr.NoteOnce(s, name)
		},
	}
	sent := 0
	if data != "" {
		h.Tx = func(_ *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
			var flags policy.Flags
			if sent == 0 {
				flags |= policy.FlagSOM
			}
			n := copy(buf, data[sent:])
			if sent += n; sent == len(data) {
				flags |= policy.FlagEOM
			}
			return n, flags, policy.OK
		}
	}
	s := must(c.NewStream("s", h))
	if data != "" {
		s.RequestTxLen(uint64(len(data)))
	} else {
		s.RequestTx()
	}
	tr.AwaitEnd(t, "DES")
	c.Close()
	return strings.TrimSuffix(tr.String(), " DES"), string(got), err
}

var large = bytes.Repeat([]byte("0123456789abcdef"), 1<<18)

func handler(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/x":
		fmt.Fprintf(w, "%s %s", r.Proto, r.Host)
	case "/404":
		w.WriteHeader(404)
		io.WriteString(w, "no")
	case "/503":
		w.WriteHeader(503)
	case "/204":
		w.WriteHeader(204)
	case "/redirect":
		http.Redirect(w, r, "/204", http.StatusFound)
	case "/echo":
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
	case "/large":
		w.Write(large)
	case "/cut":
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "hello")
		w.(http.Flusher).Flush()
		time.Sleep(50 * time.Millisecond) // a reset overtakes what it cuts
		panic(http.ErrAbortHandler)
	case "/never":
		<-r.Context().Done()
	}
}

func TestSequences(t *testing.T) {
	addr := serve(t, handler)
	other := testcert.New("other")
	url := func(u string) func(*policy.StreamType) { return func(st *policy.StreamType) { st.HTTP.URL = u } }
	const fetched = "CRE POL CNG CON rx rx(EOM) ACK DIS"
	for _, tt := range []struct {
		name  string
		st    func(*policy.StreamType)
		data  string
		limit time.Duration
		want  string
		body  string
		cause any
	}{
		{name: "GET", want: fetched, body: "HTTP/3.0 " + addr.String()},
		{name: "large", st: url("/large"), want: fetched, body: string(large)},
		{name: "404", st: url("/404"), want: "CRE POL CNG CON rx rx(EOM) NAK DIS", body: "no"},
		{name: "204", st: url("/204"), want: "CRE POL CNG CON ACK DIS"},
		{name: "503", st: func(st *policy.StreamType) { st.HTTP.URL, st.Retry = "/503", teststream.Retry(1) }, want: "CRE POL CNG UNR POL CNG UNR ARF", cause: new(*sshttp.StatusError)},
		{name: "redirect", st: func(st *policy.StreamType) { st.HTTP.URL, st.HTTP.AllowRedirects = "/redirect", true }, want: "CRE POL CNG CON ACK DIS"},
		{name: "redirect refused", st: url("/redirect"), want: "CRE POL CNG UNR ARF", cause: new(*sshttp.RedirectError)},
		{name: "POST", st: func(st *policy.StreamType) { st.HTTP.URL, st.HTTP.Method = "/echo", "POST" }, data: "hello", want: fetched, body: "hello"},
		{name: "large POST", st: func(st *policy.StreamType) { st.HTTP.URL, st.HTTP.Method = "/echo", "POST" }, data: string(large), want: fetched, body: string(large)},
		{name: "cut", st: url("/cut"), want: "CRE POL CNG CON rx DIS", body: "hello", cause: new(*http3.Error)},
		{name: "no answer", st: url("/never"), limit: 300 * time.Millisecond, want: "CRE POL CNG UNR ARF", cause: transport.ErrTimeout},
		{name: "wrong store", st: func(st *policy.StreamType) { st.TrustStore = other.Store() }, want: "CRE POL CNG UNR ARF", cause: new(*tls.CertificateVerificationError)},
		{name: "wrong name", st: func(st *policy.StreamType) { st.Endpoint = "localhost" }, want: "CRE POL CNG UNR ARF", cause: new(*tls.CertificateVerificationError)},
		{name: "nobody there", st: func(st *policy.StreamType) { st.Port = 1; st.Retry = teststream.Retry(1) }, limit: 200 * time.Millisecond, want: "CRE POL CNG UNR POL CNG UNR ARF"},
		{name: "perf", st: func(st *policy.StreamType) { st.HTTP.URL, st.Perf = "/204", true }, want: "CRE POL CNG perf CON ACK DIS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := streamType(addr)
			if tt.st != nil {
				tt.st(st)
			}
			events, body, err := run(t, runtime.Options{ConnectTimeout: tt.limit}, st, tt.data)
			if events != tt.want || !st.Perf && body != tt.body {
				t.Errorf("saw %s, %d bytes (%v)\nwant %s, %d bytes", events, len(body), err, tt.want, len(tt.body))
			}
			switch cause := tt.cause.(type) {
			case nil:
			case error:
				if !errors.Is(err, cause) {
					t.Errorf("ended for %v, want %v", err, cause)
				}
			default:
				if !errors.As(err, cause) {
					t.Errorf("ended for %v, want a %T", err, cause)
				}
			}
		})
	}
}

// What can not be is refused.
func TestRefused(t *testing.T) {
	for name, change := range map[string]func(*policy.StreamType){
		"socks5":      func(st *policy.StreamType) { st.SOCKS5Proxy = "127.0.0.1:1" },
		"unix":        func(st *policy.StreamType) { st.Endpoint = "+/tmp/x" },
		"without TLS": func(st *policy.StreamType) { st.TLS = false },
	} {
		c := newContext(t, runtime.Options{}, streamType(netip.MustParseAddrPort("127.0.0.1:1"), change))
		if _, err := c.NewStream("s", runtime.Handlers{}); !errors.Is(err, transport.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An endpoint may turn TLS off.
	events, _, err := run(t, runtime.Options{}, streamType(netip.MustParseAddrPort("127.0.0.1:1"), func(st *policy.StreamType) { st.Endpoint = "http://127.0.0.1:1/" }), "")
	if events != "CRE POL CNG UNR ARF" {
		t.Errorf("saw %s (%v)", events, err)
	}
}

// Requests share a connection, whose socket is that of ListenPacket; it ends with
// the context.
func TestConnection(t *testing.T) {
	var mu sync.Mutex
	peers := map[string]bool{}
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		peers[r.RemoteAddr] = true
	})
	var sockets atomic.Int32
	var socket net.PacketConn
	c := newContext(t, runtime.Options{Transports: []transport.Transport{h3.NewWith(h3.Options{
		ListenPacket: func(ctx context.Context) (net.PacketConn, error) {
			sockets.Add(1)
			var err error
			socket, err = net.ListenPacket("udp", "127.0.0.1:0")
			return socket, err
		}})}}, streamType(addr))
	for range 5 {
		if _, err := c.Fetch(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if n := sockets.Load(); n != 1 || len(peers) != 1 || !peers[socket.LocalAddr().String()] {
		t.Errorf("%d sockets, requests from %v", n, peers)
	}
	c.Close()
	if err := socket.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket is open: %v", err)
	}
}

// A reader that takes its time slows the server down.
func TestFlowControl(t *testing.T) {
	var sent atomic.Int64
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for buf := make([]byte, 64<<10); ; {
			n, err := w.Write(buf)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	c := newContext(t, runtime.Options{}, streamType(addr))
	conn := must(c.Open(t.Context(), "s"))
	defer conn.Close()
	io.ReadFull(conn, make([]byte, 1<<20))
	for was := int64(0); was == 0 || was != sent.Load(); {
		was = sent.Load()
		time.Sleep(100 * time.Millisecond)
	}
	if n := sent.Load(); n > 8<<20 {
		t.Errorf("the server has sent %d bytes, of which 1 MB is read", n)
	}
}

// With a credit no more is delivered than it is, and each byte in its order.
func TestPeerTxCredit(t *testing.T) {
	addr := serve(t, handler)
	c := newContext(t, runtime.Options{}, streamType(addr, func(st *policy.StreamType) { st.HTTP.URL = "/large" }))
	var body []byte
	given, ended := 1000, make(chan error, 1)
	s := must(c.NewStream("s", runtime.Handlers{
		State: func(s *runtime.Stream, state policy.State, _ uint32) policy.Result {
			if state == policy.StateDisconnected || state == policy.StateAllRetriesFailed {
				ended <- s.Err()
				return policy.DestroyMe
			}
			return policy.OK
		},
		Rx: func(s *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
			if body = append(body, buf...); len(body) > given {
				t.Errorf("%d bytes delivered with a credit of %d", len(body), given)
			}
			if len(body) == given { // all of it comes
				more := min(given, len(large)-given)
				given += more
				s.AddPeerTxCredit(uint32(more))
			}
			return policy.OK
		},
	}, runtime.WithPeerTxCredit(1000)))
	s.RequestTx()
	select {
	case err := <-ended:
		if err != nil || !bytes.Equal(body, large) {
			t.Errorf("%d bytes of %d, %v", len(body), len(large), err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("stuck")
	}
}

// A request that fails makes http3 take another connection for those that follow.
// Those that are under way on the one before go on, and it is closed after them.
func TestFailedRequest(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	conns := make(chan *quic.Conn, 10)
	pc := must(net.ListenPacket("udp", "127.0.0.1:0"))
	defer pc.Close()
	srv := &http3.Server{
		TLSConfig:   http3.ConfigureTLSConfig(own.Server(nil, "127.0.0.1")),
		Logger:      slog.New(slog.DiscardHandler),
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context { conns <- c; return ctx },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.Header.Get("X") {
			case "slow":
				io.WriteString(w, "hello ")
				w.(http.Flusher).Flush()
				close(begun)
				<-goOn
				io.WriteString(w, "world")
			case "reset":
				panic(http.ErrAbortHandler)
			}
		}),
	}
	go srv.Serve(pc)
	defer srv.Close()
	addr := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	c := newContext(t, runtime.Options{}, streamType(addr, func(st *policy.StreamType) {
		st.Metadata = []policy.Metadata{{Name: "x", Header: "x:"}}
	}))
	slow := make(chan error, 1)
	go func() {
		r, err := c.Fetch(t.Context(), "s", runtime.WithMetadata("x", "slow"))
		if err == nil && string(r.Body) != "hello world" {
			err = fmt.Errorf("got %q", r.Body)
		}
		slow <- err
	}()
	<-begun
	first := <-conns
	for range 3 {
		if _, err := c.Fetch(t.Context(), "s", runtime.WithMetadata("x", "reset")); err == nil {
			t.Error("a request that is reset has not failed")
		}
		if _, err := c.Fetch(t.Context(), "s"); err != nil {
			t.Error(err)
		}
		<-conns
	}
	close(goOn)
	if err := <-slow; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	<-first.Context().Done()
}

// A request that is given up while its connection is made leaves the next one the
// connection, and nothing of the error if there is none.
func TestGivenUp(t *testing.T) {
	addr := serve(t, handler)
	for _, broken := range []error{nil, errors.New("no socket")} {
		asked, goOn := make(chan struct{}, 2), make(chan error, 2)
		tr := h3.NewWith(h3.Options{ListenPacket: func(context.Context) (net.PacketConn, error) {
			asked <- struct{}{}
			if err := <-goOn; err != nil {
				return nil, err
			}
			return net.ListenPacket("udp", "127.0.0.1:0")
		}})
		c := newContext(t, runtime.Options{Transports: []transport.Transport{tr}}, streamType(addr))
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan error)
		go func() {
			_, err := c.Fetch(ctx, "s")
			given <- err
		}()
		<-asked
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.Sleep(20 * time.Millisecond) // for the request to have ended, of which no one tells
		goOn <- broken
		time.Sleep(50 * time.Millisecond) // and the connection to have been made
		goOn <- nil
		if _, err := c.Fetch(t.Context(), "s"); err != nil {
			t.Errorf("after %v: %v", broken, err)
		}
		c.Close()
	}
}

// A server that has gone without a word is found to be gone: the next attempt is
// made on another connection.
func TestServerGone(t *testing.T) {
	front := must(net.ListenPacket("udp", "127.0.0.1:0"))
	defer front.Close()
	back := must(net.Dial("udp", serve(t, handler).String()))
	defer back.Close()
	var deaf atomic.Bool
	var client atomic.Pointer[net.UDPAddr]
	relay := func(from net.PacketConn) {
		buf := make([]byte, 2000)
		for {
			n, peer, err := from.ReadFrom(buf)
			if err != nil {
				return
			}
			client.Store(peer.(*net.UDPAddr))
			if !deaf.Load() {
				back.Write(buf[:n])
			}
		}
	}
	go relay(front)
	go func() {
		buf := make([]byte, 2000)
		for {
			n, err := back.Read(buf)
			if err != nil {
				return
			}
			if to := client.Load(); to != nil && !deaf.Load() {
				front.WriteTo(buf[:n], to)
			}
		}
	}()
	c := newContext(t, runtime.Options{ConnectTimeout: 400 * time.Millisecond}, streamType(front.LocalAddr().(*net.UDPAddr).AddrPort()))
	if _, err := c.Fetch(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	deaf.Store(true)
	if _, err := c.Fetch(t.Context(), "s"); !errors.Is(err, transport.ErrTimeout) {
		t.Errorf("without an answer: %v", err)
	}
	deaf.Store(false)
	if _, err := c.Fetch(t.Context(), "s"); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

// Close, with requests in each of their phases, leaves nothing.
func TestClose(t *testing.T) {
	addr := serve(t, handler)
	for _, url := range []string{"/never", "/large", "/x"} {
		c := newContext(t, runtime.Options{}, streamType(addr, func(st *policy.StreamType) { st.HTTP.URL = url }))
		for range 10 {
			must(c.NewStream("s", runtime.Handlers{})).Connect()
		}
		c.Close()
	}
	silent := must(net.ListenPacket("udp", "127.0.0.1:0")) // no handshake
	defer silent.Close()
	c := newContext(t, runtime.Options{}, streamType(silent.LocalAddr().(*net.UDPAddr).AddrPort()))
	must(c.NewStream("s", runtime.Handlers{})).Connect()
	c.Close()
}
