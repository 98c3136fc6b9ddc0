package sspc_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/testbroker"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/proxy"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/sspc"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// streamTypes are the streamtypes of the proxies.
func streamTypes() []*policy.StreamType {
	retry := &policy.Retry{Backoff: []time.Duration{time.Second}, Conceal: 5}
	h := func(name, method, url string, meta ...policy.Metadata) *policy.StreamType {
		return &policy.StreamType{Name: name, Protocol: policy.ProtocolH1, Endpoint: "origin", Port: 80, Opportunistic: true, Retry: retry,
			HTTP: &policy.HTTP{Method: method, URL: url}, Metadata: meta}
	}
	return []*policy.StreamType{
		h("get", "GET", "get?city=${city}", policy.Metadata{Name: "city"}, policy.Metadata{Name: "ctype", Header: "content-type:"}),
		h("big", "GET", "big"),
		h("none", "GET", "none"),
		{Name: "nowhere", Protocol: policy.ProtocolH1, Endpoint: "nowhere", Port: 80, Opportunistic: true, HTTP: &policy.HTTP{Method: "GET"}},
		h("post", "POST", "post"),
		{Name: "ws", Protocol: policy.ProtocolWS, Endpoint: "origin", Port: 80, Retry: retry, HTTP: &policy.HTTP{URL: "ws"}},
		{Name: "raw", Protocol: policy.ProtocolRaw, Endpoint: "origin", Port: 7, Opportunistic: true, Retry: retry},
	}
}

// bigBody is the response to big.
var bigBody = strings.Repeat("0123456789", 50_000)

func originHandler() nethttp.Handler {
	mux := nethttp.NewServeMux()
	mux.HandleFunc("/get", func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(w, "weather in %s", r.FormValue("city"))
	})
	mux.HandleFunc("/big", func(w nethttp.ResponseWriter, r *nethttp.Request) { io.WriteString(w, bigBody) })
	mux.HandleFunc("/post", func(w nethttp.ResponseWriter, r *nethttp.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d bytes of %d, %v", n, r.ContentLength, err)
	})
	mux.HandleFunc("/ws", func(w nethttp.ResponseWriter, r *nethttp.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	})
	return mux
}

// A world is a proxy, its origin and a client in a bubble.
type world struct {
	t       *testing.T
	network testserver.Network
	client  *runtime.Context

	mu     sync.Mutex
	proxy  *proxy.Proxy // nil while none runs
	roles  []*proxy.Role
	behind *runtime.Context
}

func newWorld(t *testing.T, known ...*policy.StreamType) *world {
	t.Helper()
	return newWorldOver(t, false, known...)
}

// newWorldOver returns a world. If mux is set, all links share one byte stream.
func newWorldOver(t *testing.T, mux bool, known ...*policy.StreamType) *world {
	t.Helper()
	w := &world{t: t}
	testserver.HTTP(t, w.network.Listen("origin:80"), &nethttp.Server{Handler: originHandler()})
	testserver.Serve(t, w.network.Listen("origin:7"), func(c net.Conn) {
		buf := make([]byte, 1000)
		n, _ := c.Read(buf)
		c.Write(buf[:n])
	})
	w.start()
	t.Cleanup(w.kill)
	o := runtime.Options{
		Proxy: teststream.Must(sspc.New(sspc.DefaultAddress, sspc.Options{})),
		DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
			if network != "unix" || address != "@proxy.ss.lws" {
				return nil, fmt.Errorf("no proxy at %s %s", network, address)
			}
			return w.connect(func(p *proxy.Proxy, conn net.Conn) error { return p.ServeConn(conn) })
		},
	}
	if mux {
		o.Proxy = sspc.NewMux(func(context.Context) (io.ReadWriteCloser, error) {
			return w.connect(func(p *proxy.Proxy, conn net.Conn) error { return p.Serve(proxy.ListenMux(conn, nil)) })
		})
	}
	w.client = teststream.NewContext(t, o, known...)
	return w
}

// connect returns a connection to the proxy, which serve serves.
func (w *world) connect(serve func(*proxy.Proxy, net.Conn) error) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.proxy == nil {
		return nil, errors.New("there is no proxy")
	}
	ours, theirs := net.Pipe()
	go serve(w.proxy, theirs)
	return ours, nil
}

// start starts the proxy.
func (w *world) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.behind = teststream.Must(runtime.NewContext(&policy.Policy{StreamTypes: streamTypes()}, runtime.Options{
		Transports:  []transport.Transport{http.New(), ws.New(), raw.New()},
		DialContext: w.network.DialContext,
		Logger:      teststream.Logger(w.t),
	}))
	w.proxy = proxy.New(w.behind, proxy.Options{Roles: w.roles})
}

// kill ends the proxy.
func (w *world) kill() {
	w.mu.Lock()
	p := w.proxy
	w.proxy = nil
	w.mu.Unlock()
	if p != nil {
		p.Close()
		teststream.Shutdown(w.t, w.behind)
	}
}

// known returns streamtypes as the policy of a client describes them, or none.
func known(described bool) []*policy.StreamType {
	if !described {
		return nil
	}
	return streamTypes()
}

// TestProxyFetch makes requests through a proxy of this module, with and without a
// description of the streamtypes.
func TestProxyFetch(t *testing.T) {
	large := strings.Repeat("x", 300_000)
	for _, in := range []struct{ described, mux bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		for _, tt := range []struct {
			streamtype string
			options    []runtime.CallOption
			want       string
			err        error
		}{
			{"get", []runtime.CallOption{runtime.WithMetadata("city", "Paris")}, "weather in Paris", nil},
			{"big", nil, bigBody, nil},
			{"none", nil, "", runtime.ErrNack},
			{"post", []runtime.CallOption{runtime.WithBody([]byte("hello"))}, "5 bytes of 5, <nil>", nil},
			{"post", []runtime.CallOption{runtime.WithBody([]byte(large))}, "300000 bytes of 300000, <nil>", nil},
			{"post", []runtime.CallOption{runtime.WithBodyReader(strings.NewReader(large), -1)}, "300000 bytes of -1, <nil>", nil},
			{"ws", []runtime.CallOption{runtime.WithBody([]byte("hello"))}, "hello", nil},
			{"ws", []runtime.CallOption{runtime.WithBody([]byte(large))}, large, nil},
			{"raw", []runtime.CallOption{runtime.WithBody([]byte("hello"))}, "hello", nil},
			{"unknown", nil, "", runtime.ErrUnknownStreamType},
		} {
			t.Run(fmt.Sprintf("%s described %v mux %v", tt.streamtype, in.described, in.mux), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorldOver(t, in.mux, known(in.described)...)
					start := time.Now()
					r, err := w.client.Fetch(t.Context(), tt.streamtype, tt.options...)
					limit := 100 * time.Millisecond
					if tt.err == runtime.ErrUnknownStreamType {
						limit += transport.LinkRetry // a rejection before the request is reported with the next link
					}
					if took := time.Since(start); took >= limit {
						t.Errorf("it took %v, as if the proxy had not said what the streamtype is", took)
					}
					if !errors.Is(err, tt.err) {
						t.Fatalf("error %v, want %v", err, tt.err)
					}
					if err == nil && string(r.Body) != tt.want {
						t.Errorf("%d bytes: %.50q, want %.50q", len(r.Body), r.Body, tt.want)
					}
					status := 0
					if nack, ok := errors.AsType[*runtime.NackError](err); ok {
						status = nack.Status
					} else if err == nil {
						status = r.Status
					}
					want := map[string]int{"get": 200, "big": 200, "post": 200, "none": 404}[tt.streamtype]
					if status != want {
						t.Errorf("status %d, want %d", status, want)
					}
					if err == nil && tt.streamtype == "get" {
						if ctype, err := r.Metadata("ctype"); ctype != "text/plain" || err != nil {
							t.Errorf("content-type %q, %v", ctype, err)
						}
					}
				})
			})
		}
	}
}

// TestProxyNoBody sends a body to a streamtype that has none according to the proxy.
func TestProxyNoBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.client.Fetch(t.Context(), "get", runtime.WithBody([]byte("hello"))); !errors.Is(err, runtime.ErrNoBody) {
			t.Errorf("error %v", err)
		}
	})
}

// TestProxyCause checks that a client learns why a connection failed, unless its role
// forbids that.
func TestProxyCause(t *testing.T) {
	for _, hide := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.roles = []*proxy.Role{{HideErrors: hide}}
			w.kill()
			w.start()
			const cause = "connection refused"
			_, err := w.client.Fetch(t.Context(), "nowhere")
			if !errors.Is(err, runtime.ErrAllRetriesFailed) || strings.Contains(err.Error(), cause) == hide {
				t.Errorf("hidden %v: error %v", hide, err)
			}
		})
	}
}

// TestProxyMetadata checks that a described streamtype refuses metadata that it does not
// declare, before the proxy closes the link.
func TestProxyMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, known(true)...)
		_, err := w.client.Fetch(t.Context(), "get", runtime.WithMetadata("town", "Paris"))
		if !errors.Is(err, runtime.ErrUnknownMetadata) {
			t.Errorf("error %v", err)
		}
		w = newWorld(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = w.client.Fetch(ctx, "get", runtime.WithMetadata("town", "Paris"))
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, runtime.ErrLink) || !strings.Contains(err.Error(), `metadata ["town"]: does its policy declare that?`) {
			t.Errorf("error %v", err)
		}
	})
}

// TestProxyRestart kills the proxy under a WebSocket, and starts it again.
func TestProxyRestart(t *testing.T) {
	for _, mux := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { testProxyRestart(t, mux) })
	}
}

func testProxyRestart(t *testing.T, mux bool) {
	w := newWorldOver(t, mux, known(true)...)
	conn, err := w.client.Open(t.Context(), "ws")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echo := func(text string) {
		t.Helper()
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		for m, err := range conn.Messages() {
			if string(m) != text || err != nil {
				t.Fatalf("%q, %v, want %q", m, err, text)
			}
			break
		}
	}
	echo("one")
	w.kill()
	_, err = conn.Read(make([]byte, 10))
	if _, ok := errors.AsType[*runtime.ReconnectError](err); !ok || !errors.Is(err, runtime.ErrLink) {
		t.Fatalf("after the loss of the proxy: %v", err)
	}
	go func() {
		time.Sleep(10 * time.Second)
		w.start()
	}()
	start := time.Now()
	echo("two") // waits for the proxy
	if took := time.Since(start); took < 10*time.Second || took > 12*time.Second {
		t.Errorf("the stream was back after %v", took)
	}
}

// TestProxyStates compares the states of a stream with those of one that the program
// executes itself. The end of a response is separate, or on the last payload if the proxy
// has not sent that.
func TestProxyStates(t *testing.T) {
	for _, tt := range []struct{ streamtype, local, proxied string }{
		{"get", "CRE POL CNG CON rxS rxE ACK DIS", "CRE CNG CON rxS rxE ACK DIS"},
		{"none", "CRE POL CNG CON rxS rxE NAK DIS", "CRE CNG CON rxS rxE NAK DIS"},
	} {
		t.Run(tt.streamtype, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for c, want := range map[*runtime.Context]string{w.behind: tt.local, w.client: tt.proxied} {
					tr := &program{}
					s := teststream.Must(c.NewStream(tt.streamtype, tr.handlers()))
					s.RequestTx()
					tr.AwaitEnd(t, "DIS")
					if got := strings.ReplaceAll(tr.String(), "rxSE", "rxS rxE"); got != want {
						t.Errorf("got  %s\nwant %s", got, want)
					}
					s.Destroy()
				}
			})
		})
	}
}

// TestProxyMQTT publishes and subscribes through a proxy, on real sockets.
func TestProxyMQTT(t *testing.T) {
	broker := testserver.FreePort(t)
	testbroker.Start(t, fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\n", broker.Port()))
	st := &policy.StreamType{Name: "mqtt", Protocol: policy.ProtocolMQTT, Endpoint: "127.0.0.1", Port: broker.Port(),
		MQTT:     &policy.MQTT{Topic: "t/${id}", Subscribe: "t/${id}", QoS: 1, CleanStart: true},
		Metadata: []policy.Metadata{{Name: "id"}}}
	behind := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{mqtt.New()}}, st)
	path := serveProxy(t, behind, func(l net.Listener) net.Listener { return l })
	for _, described := range []bool{false, true} {
		var types []*policy.StreamType
		if described {
			types = append(types, st)
		}
		c := teststream.NewContext(t, runtime.Options{Proxy: teststream.Must(sspc.New("unix:"+path, sspc.Options{}))}, types...)
		conn, err := c.Open(t.Context(), "mqtt", runtime.WithMetadata("id", fmt.Sprint(described)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		for m, err := range conn.Messages() {
			if string(m) != "hello" || err != nil {
				t.Fatalf("%q, %v", m, err)
			}
			break
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// serveProxy serves a proxy on a unix socket, whose path it returns.
func serveProxy(t *testing.T, behind *runtime.Context, wrap func(net.Listener) net.Listener) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "proxy")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, behind, wrap(l))
	return path
}

func serveOn(t *testing.T, behind *runtime.Context, l net.Listener) {
	t.Helper()
	p := proxy.New(behind, proxy.Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Serve(l)
	}()
	t.Cleanup(func() {
		p.Close()
		<-done
	})
}

// behindTCP returns the context of a proxy whose origin is on a TCP port.
func behindTCP(t *testing.T) *runtime.Context {
	t.Helper()
	l := testserver.Listen(t)
	testserver.HTTP(t, l, &nethttp.Server{Handler: originHandler()})
	types := streamTypes()
	for _, st := range types {
		if st.Port == 80 {
			st.Endpoint, st.Port = "127.0.0.1", testserver.Addr(l).Port()
		}
	}
	return teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{http.New(), ws.New(), raw.New()}}, types...)
}

// TestSOCKS5 is the scenario of the documentation of lws:
//
//	application -- tcp -- SOCKS5 proxy -- tcp -- SS proxy -- internet
func TestSOCKS5(t *testing.T) {
	l := testserver.Listen(t)
	serveOn(t, behindTCP(t), l)
	socks, through := startSOCKS5(t)
	p, err := sspc.New("tcp:"+testserver.Addr(l).String(), sspc.Options{SOCKS5: socks.String()})
	if err != nil {
		t.Fatal(err)
	}
	c := teststream.NewContext(t, runtime.Options{Proxy: p})
	r, err := c.Fetch(t.Context(), "get", runtime.WithMetadata("city", "Paris"))
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Body) != "weather in Paris" {
		t.Errorf("body %q", r.Body)
	}
	if to := through.Load(); to == nil || *to != testserver.Addr(l) {
		t.Errorf("the SOCKS5 proxy has connected to %v, want %v", to, testserver.Addr(l))
	}
}

// startSOCKS5 starts a SOCKS5 proxy without a login, for IPv4. through is its latest
// target.
func startSOCKS5(t *testing.T) (addr netip.AddrPort, through *atomic.Pointer[netip.AddrPort]) {
	t.Helper()
	through = new(atomic.Pointer[netip.AddrPort])
	addr = testserver.ServeTCP(t, func(c net.Conn) {
		defer c.Close()
		var hello [3]byte
		var request [10]byte
		if _, err := io.ReadFull(c, hello[:]); err != nil {
			return
		}
		c.Write([]byte{5, 0})
		if _, err := io.ReadFull(c, request[:]); err != nil || request[3] != 1 {
			return
		}
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte(request[4:8])), binary.BigEndian.Uint16(request[8:]))
		through.Store(&to)
		out, err := net.Dial("tcp", to.String())
		if err != nil {
			return
		}
		defer out.Close()
		c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		go func() {
			io.Copy(out, c)
			out.Close()
		}()
		io.Copy(c, out)
	})
	return addr, through
}

// TestTLS uses a link with TLS and a client certificate.
func TestTLS(t *testing.T) {
	ca, other := testcert.New("ca"), testcert.New("other")
	config := ca.Server(nil, "proxy.example")
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	l := testserver.Listen(t)
	serveOn(t, behindTCP(t), tls.NewListener(l, config))
	addr := "tls:" + testserver.Addr(l).String()
	fetch := func(config *tls.Config) error {
		c := teststream.NewContext(t, runtime.Options{Proxy: teststream.Must(sspc.New(addr, sspc.Options{TLS: config}))})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var failed error
		tr := &teststream.Trace{On: teststream.Actions{"UPSTREAM_LINK_RETRY": func(s *runtime.Stream) runtime.Result {
			failed = s.Err()
			cancel()
			return runtime.DestroyMe
		}, "CON": func(s *runtime.Stream) runtime.Result { cancel(); return runtime.DestroyMe }}}
		s := teststream.Must(c.NewStream("get", runtime.Handlers{State: tr.State}, runtime.WithMetadata("city", "Paris")))
		s.Connect()
		<-ctx.Done()
		return failed
	}
	client := *ca.Client(1)
	if err := fetch(&tls.Config{RootCAs: ca.Pool(), ServerName: "proxy.example", Certificates: []tls.Certificate{client}}); err != nil {
		t.Errorf("with all that is needed: %v", err)
	}
	for name, config := range map[string]*tls.Config{
		"no client certificate":      {RootCAs: ca.Pool(), ServerName: "proxy.example"},
		"another trust store":        {RootCAs: other.Pool(), ServerName: "proxy.example", Certificates: []tls.Certificate{client}},
		"another name":               {RootCAs: ca.Pool(), ServerName: "other.example", Certificates: []tls.Certificate{client}},
		"another client's authority": {RootCAs: ca.Pool(), ServerName: "proxy.example", Certificates: []tls.Certificate{*other.Client(1)}},
	} {
		if err := fetch(config); !errors.Is(err, runtime.ErrLink) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
