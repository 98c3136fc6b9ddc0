package h3_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/h3"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

var own = testcert.New("own")

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// serve runs an h3 server until the end of the test.
func serve(t testing.TB, h http.HandlerFunc) netip.AddrPort {
	return serveBy(t, own.Server(nil, "127.0.0.1"), h)
}

func serveBy(t testing.TB, config *tls.Config, h http.HandlerFunc) netip.AddrPort {
	return serveOn(t, teststream.Must(net.ListenPacket("udp", "127.0.0.1:0")), config, h)
}

func serveOn(t testing.TB, pc net.PacketConn, config *tls.Config, h http.HandlerFunc) netip.AddrPort {
	server := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(config), Logger: slog.New(slog.DiscardHandler)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(pc)
	}()
	t.Cleanup(func() {
		server.Close()
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

// run makes a transaction, and returns its events, the payload received, and the
// error at its end.
func run(t *testing.T, o runtime.Options, st *policy.StreamType, data string, on teststream.Actions) (events, body string, err error) {
	c := newContext(t, o, st)
	tr := teststream.Trace{On: teststream.Actions{}}
	maps.Copy(tr.On, on)
	end := func(s *runtime.Stream) policy.Result {
		err = s.Err()
		return policy.DestroyMe
	}
	tr.On["DIS"], tr.On["ARF"] = end, end
	h := runtime.Handlers{
		State: tr.State,
		Rx: func(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
			tr.Keep(buf)
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
	s := teststream.Must(c.NewStream("s", h))
	if data != "" {
		s.RequestTxLen(uint64(len(data)))
	} else {
		s.RequestTx()
	}
	tr.AwaitEnd(t, "DES")
	return strings.TrimSuffix(tr.String(), " DES"), tr.Body(), err
}

var large = bytes.Repeat([]byte("0123456789abcdef"), 1<<18)

// delivered receives a value when the client has received the first piece of /cut.
var delivered = make(chan bool)

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
		<-delivered // a reset overtakes payload
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
		on    teststream.Actions
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
		{name: "cut", st: url("/cut"), want: "CRE POL CNG CON rx DIS", body: "hello", cause: new(*http3.Error),
			on: teststream.Actions{"rx": func(*runtime.Stream) policy.Result { delivered <- true; return policy.OK }}},
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
			events, body, err := run(t, runtime.Options{ConnectTimeout: tt.limit}, st, tt.data, tt.on)
			if events != tt.want || !st.Perf && body != tt.body {
				t.Errorf("got %s, %d bytes (%v)\nwant %s, %d bytes", events, len(body), err, tt.want, len(tt.body))
			}
			switch cause := tt.cause.(type) {
			case nil:
			case error:
				if !errors.Is(err, cause) {
					t.Errorf("Err returns %v, want %v", err, cause)
				}
			default:
				if !errors.As(err, cause) {
					t.Errorf("Err returns %v, want a %T", err, cause)
				}
			}
		})
	}
}

// TestRefused checks streamtypes that h3 does not support.
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
	// The endpoint turns TLS off.
	events, _, err := run(t, runtime.Options{}, streamType(netip.MustParseAddrPort("127.0.0.1:1"), func(st *policy.StreamType) { st.Endpoint = "http://127.0.0.1:1/" }), "", nil)
	if events != "CRE POL CNG UNR ARF" {
		t.Errorf("got %s (%v)", events, err)
	}
}

// TestConnection checks that requests share a connection on the socket of
// ListenPacket, which is closed with the context.
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
	teststream.Shutdown(t, c)
	if err := socket.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket is still open: %v", err)
	}
}

// TestLookup checks that LookupNetIP resolves the name of a server, and that its error is
// that of the attempt.
func TestLookup(t *testing.T) {
	addr := serveBy(t, own.Server(nil, "server.test"), handler)
	none := &net.DNSError{Err: "no such host", Name: "other.test", IsNotFound: true}
	o := runtime.Options{Transports: []transport.Transport{h3.NewWith(h3.Options{
		LookupNetIP: func(_ context.Context, network, host string) ([]netip.Addr, error) {
			if network != "ip" || host != "server.test" {
				return nil, none
			}
			return []netip.Addr{addr.Addr()}, nil
		}})}}
	for name, want := range map[string]error{"server.test": nil, "other.test": none} {
		c := newContext(t, o, streamType(addr, func(st *policy.StreamType) { st.Endpoint = name }))
		if _, err := c.Fetch(t.Context(), "s"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// TestFlowControl checks that a server cannot send much more than is read.
func TestFlowControl(t *testing.T) {
	var sent atomic.Int64
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			handler(w, r)
			return
		}
		for buf := make([]byte, 64<<10); ; {
			n, err := w.Write(buf)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	c := newContext(t, runtime.Options{}, streamType(addr, func(st *policy.StreamType) {
		st.HTTP.URL = "/${path}"
		st.Metadata = []policy.Metadata{{Name: "path"}}
	}))
	conn := teststream.Must(c.Open(t.Context(), "s"))
	defer conn.Close()
	io.ReadFull(conn, make([]byte, 1<<20))
	for range 8 { // the same connection carries 32 MB meanwhile
		teststream.Must(c.Fetch(t.Context(), "s", runtime.WithMetadata("path", "large")))
	}
	if n := sent.Load(); n > 8<<20 {
		t.Errorf("the server has sent %d bytes, of which 1 MB was read", n)
	}
}

// TestPeerTxCredit checks that no more than the credit is delivered, in order.
func TestPeerTxCredit(t *testing.T) {
	addr := serve(t, handler)
	c := newContext(t, runtime.Options{}, streamType(addr, func(st *policy.StreamType) { st.HTTP.URL = "/large" }))
	var body []byte
	given, ended := 1000, make(chan error, 1)
	s := teststream.Must(c.NewStream("s", runtime.Handlers{
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
			if len(body) == given {
				more := min(given, len(large)-given)
				given += more
				s.AddPeerTxCredit(uint32(more))
			}
			return policy.OK
		},
	}, runtime.WithPeerTxCredit(1000)))
	s.RequestTx()
	if err := <-ended; err != nil || !bytes.Equal(body, large) {
		t.Errorf("%d bytes of %d, %v", len(body), len(large), err)
	}
}

// TestFailedRequest checks that requests on the connection of a failed request continue,
// although http3 makes a new connection for later ones, and that the old connection is
// closed after them.
func TestFailedRequest(t *testing.T) {
	arrived, resume := make(chan struct{}), make(chan struct{})
	conns := make(chan *quic.Conn, 10)
	pc := teststream.Must(net.ListenPacket("udp", "127.0.0.1:0"))
	defer pc.Close()
	server := &http3.Server{
		TLSConfig:   http3.ConfigureTLSConfig(own.Server(nil, "127.0.0.1")),
		Logger:      slog.New(slog.DiscardHandler),
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context { conns <- c; return ctx },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.Header.Get("X") {
			case "slow":
				io.WriteString(w, "hello ")
				w.(http.Flusher).Flush()
				close(arrived)
				<-resume
				io.WriteString(w, "world")
			case "reset":
				panic(http.ErrAbortHandler)
			}
		}),
	}
	go server.Serve(pc)
	defer server.Close()
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
	<-arrived
	first := <-conns
	for range 3 {
		if _, err := c.Fetch(t.Context(), "s", runtime.WithMetadata("x", "reset")); err == nil {
			t.Error("a request that was reset has not failed")
		}
		if _, err := c.Fetch(t.Context(), "s"); err != nil {
			t.Error(err)
		}
		<-conns
	}
	close(resume)
	if err := <-slow; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	<-first.Context().Done()
}

// cancelDial cancels a request while ListenPacket is running, and waits for its end.
// ListenPacket then returns what it gets from results, and then makes sockets.
func cancelDial(t *testing.T, addr netip.AddrPort, results <-chan error) *runtime.Context {
	dials, destroyed := make(chan struct{}, 10), make(chan struct{}, 10)
	tr := h3.NewWith(h3.Options{ListenPacket: func(context.Context) (net.PacketConn, error) {
		dials <- struct{}{}
		if err := <-results; err != nil {
			return nil, err
		}
		return net.ListenPacket("udp", "127.0.0.1:0")
	}})
	c := newContext(t, runtime.Options{Transports: []transport.Transport{tr}, Hooks: runtime.Hooks{
		State: func(_ context.Context, _ *runtime.Stream, state policy.State, _ uint32) {
			if state == policy.StateDestroying {
				destroyed <- struct{}{}
			}
		}}}, streamType(addr))
	ctx, cancel := context.WithCancel(t.Context())
	fetched := make(chan error)
	go func() {
		_, err := c.Fetch(ctx, "s")
		fetched <- err
	}()
	<-dials
	cancel()
	if err := <-fetched; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-destroyed
	return c
}

// TestCanceledDial checks that a request succeeds after, or during, the dial of a
// request that was canceled.
func TestCanceledDial(t *testing.T) {
	addr := serve(t, handler)
	for range 10 {
		results := make(chan error)
		c := cancelDial(t, addr, results)
		close(results)
		if _, err := c.Fetch(t.Context(), "s"); err != nil {
			t.Error(err)
		}
	}
}

// TestCanceledDialFails checks that a request is not affected by a dial that failed before
// the request.
func TestCanceledDialFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := errors.New("first"), errors.New("second")
		results := make(chan error, 1)
		c := cancelDial(t, netip.MustParseAddrPort("127.0.0.1:1"), results)
		results <- first
		synctest.Wait()
		results <- second
		if _, err := c.Fetch(t.Context(), "s"); !errors.Is(err, second) || errors.Is(err, first) {
			t.Errorf("got %v", err)
		}
	})
}

// TestServerGone checks that the attempt after an unanswered one makes a new connection.
func TestServerGone(t *testing.T) { synctest.Test(t, testServerGone) }

func testServerGone(t *testing.T) {
	var cut atomic.Bool
	network := &testserver.PacketNetwork{Pass: func(_, _ netip.AddrPort) bool { return !cut.Load() }}
	o := h3.Options{ListenPacket: func(context.Context) (net.PacketConn, error) { return network.Listen(), nil }}
	c := newContext(t, runtime.Options{ConnectTimeout: 400 * time.Millisecond, Transports: []transport.Transport{h3.NewWith(o)}},
		streamType(serveOn(t, network.Listen(), own.Server(nil, "127.0.0.1"), handler)))
	if _, err := c.Fetch(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	cut.Store(true)
	if _, err := c.Fetch(t.Context(), "s"); !errors.Is(err, transport.ErrTimeout) {
		t.Errorf("without an answer: %v", err)
	}
	cut.Store(false)
	if _, err := c.Fetch(t.Context(), "s"); err != nil {
		t.Errorf("with the server back: %v", err)
	}
}

// TestClose shuts contexts down with requests in each phase.
func TestClose(t *testing.T) {
	addr := serve(t, handler)
	for _, url := range []string{"/never", "/large", "/x"} {
		c := newContext(t, runtime.Options{}, streamType(addr, func(st *policy.StreamType) { st.HTTP.URL = url }))
		for range 10 {
			teststream.Must(c.NewStream("s", runtime.Handlers{})).Connect()
		}
		teststream.Shutdown(t, c)
	}
	silent := teststream.Must(net.ListenPacket("udp", "127.0.0.1:0")) // without a handshake
	defer silent.Close()
	c := newContext(t, runtime.Options{}, streamType(silent.LocalAddr().(*net.UDPAddr).AddrPort()))
	teststream.Must(c.NewStream("s", runtime.Handlers{})).Connect()
	teststream.Shutdown(t, c)
}

// A packetPipe is a UDP socket in memory whose datagrams go to peer, unless lost is set.
type packetPipe struct {
	net.PacketConn // nil
	name           netip.AddrPort
	in             chan []byte
	peer           *packetPipe
	lost           atomic.Bool
	once           sync.Once
	closed         chan struct{}

	mu       sync.Mutex
	deadline time.Time
	moved    chan struct{} // closed when deadline changes
}

func newPipes() (a, b *packetPipe) {
	make1 := func(addr string) *packetPipe {
		return &packetPipe{name: netip.MustParseAddrPort(addr), in: make(chan []byte, 1000), closed: make(chan struct{}), moved: make(chan struct{})}
	}
	a, b = make1("127.0.0.1:1"), make1("127.0.0.1:2")
	a.peer, b.peer = b, a
	return a, b
}

func (p *packetPipe) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(p.name) }

func (p *packetPipe) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

func (p *packetPipe) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	close(p.moved)
	p.moved = make(chan struct{})
	return nil
}

func (p *packetPipe) SetDeadline(t time.Time) error      { return p.SetReadDeadline(t) }
func (p *packetPipe) SetWriteDeadline(t time.Time) error { return nil }

func (p *packetPipe) WriteTo(b []byte, _ net.Addr) (int, error) {
	if !p.lost.Load() {
		select {
		case p.peer.in <- bytes.Clone(b):
		default:
		}
	}
	return len(b), nil
}

func (p *packetPipe) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p.mu.Lock()
		deadline, moved := p.deadline, p.moved
		p.mu.Unlock()
		var late <-chan time.Time
		if !deadline.IsZero() {
			d := time.Until(deadline)
			if d <= 0 {
				return 0, nil, os.ErrDeadlineExceeded
			}
			late = time.After(d)
		}
		select {
		case packet := <-p.in:
			return copy(b, packet), net.UDPAddrFromAddrPort(p.peer.name), nil
		case <-p.closed:
			return 0, nil, net.ErrClosed
		case <-moved:
		case <-late:
		}
	}
}

// TestDatagramsStop checks that a response ends when the datagrams of the peer or of the
// client stop in the middle of it, and that PINGs keep a slow response alive.
func TestDatagramsStop(t *testing.T) {
	for _, tt := range []struct {
		name    string
		retry   *policy.Retry
		ours    bool // lose the datagrams of the client
		theirs  bool
		atLeast time.Duration
		atMost  time.Duration
		ok      bool
	}{
		{name: "all lost", retry: &policy.Retry{}, ours: true, theirs: true, atLeast: 30 * time.Second, atMost: 45 * time.Second},
		{name: "the server's lost", retry: &policy.Retry{}, theirs: true, atLeast: 30 * time.Second, atMost: 45 * time.Second},
		{name: "without retry", ours: true, theirs: true, atLeast: 50 * time.Second, atMost: 80 * time.Second},
		{name: "the client's lost", retry: &policy.Retry{}, ours: true, atLeast: 30 * time.Second, atMost: 95 * time.Second},
		{name: "svalidhup", retry: &policy.Retry{ValidHangup: 5 * time.Second}, ours: true, theirs: true, atLeast: 4 * time.Second, atMost: 8 * time.Second},
		{name: "slow", retry: &policy.Retry{}, atLeast: 10 * time.Minute, atMost: 11 * time.Minute, ok: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := newPipes()
				server := &http3.Server{
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						io.WriteString(w, "begun")
						w.(http.Flusher).Flush()
						select {
						case <-r.Context().Done():
						case <-time.After(10 * time.Minute):
						}
						io.WriteString(w, " and ended")
					}),
					TLSConfig:  http3.ConfigureTLSConfig(own.Server(nil, "127.0.0.1")),
					QUICConfig: &quic.Config{MaxIdleTimeout: time.Hour}, Logger: slog.New(slog.DiscardHandler),
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					server.Serve(theirs)
				}()
				o := h3.Options{ListenPacket: func(context.Context) (net.PacketConn, error) { return ours, nil }}
				st := streamType(theirs.name)
				st.Retry = tt.retry
				c := newContext(t, runtime.Options{Transports: []transport.Transport{h3.NewWith(o)}}, st)
				conn, err := c.Open(t.Context(), "s")
				if err != nil {
					t.Fatal(err)
				}
				piece := make([]byte, len("begun"))
				if _, err := io.ReadFull(conn, piece); err != nil || string(piece) != "begun" {
					t.Fatalf("got %q, %v", piece, err)
				}
				start := time.Now()
				ours.lost.Store(tt.ours)
				theirs.lost.Store(tt.theirs)
				body, err := io.ReadAll(conn)
				if took := time.Since(start); took < tt.atLeast || took > tt.atMost {
					t.Errorf("it took %v", took)
				}
				if (err == nil) != tt.ok || tt.ok != (string(body) == " and ended") {
					t.Errorf("got %q, %v", body, err)
				}
				teststream.Shutdown(t, c)
				server.Close()
				theirs.Close()
				<-done
				time.Sleep(time.Hour)
			})
		})
	}
}
