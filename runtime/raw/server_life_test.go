package raw_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// connected creates a listener with one client. It returns the listener, the traces of
// both, and the client's end of the connection.
func connected(t *testing.T, c *runtime.Context, o ...runtime.StreamOption) (s *runtime.Stream, listener, client *trace, conn net.Conn) {
	t.Helper()
	listener, client = newTrace(), newTrace()
	s, err := c.NewStream("s", listener.handlers(), append(o, runtime.WithClients(func(*runtime.Stream) runtime.Handlers { return echoing(client) }))...)
	if err != nil {
		t.Fatal(err)
	}
	if conn, err = net.Dial("tcp", s.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client.awaitEvent(t, "CON")
	return s, listener, client, conn
}

// TestServerPolicy replaces the policy under a listener with a client.
func TestServerPolicy(t *testing.T) {
	p := func(change ...func(*policy.StreamType)) *policy.Policy {
		return &policy.Policy{StreamTypes: []*policy.StreamType{rawServer(change...)}}
	}
	timeout := func(d time.Duration) func(*policy.StreamType) {
		return func(st *policy.StreamType) { st.Timeout = d }
	}
	c := newContext(t, runtime.Options{}, rawServer())
	s, listener, client, conn := connected(t, c)
	if err := c.SetPolicy(p()); err != nil { // the same
		t.Fatal(err)
	}
	if err := c.Overlay(p(timeout(1))); err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "still here")
	client.awaitBody(t, "still here")
	if more, err := net.Dial("tcp", s.Addr().String()); err != nil {
		t.Error(err)
	} else {
		more.Close()
	}
	if err := c.SetPolicy(p(timeout(2))); err != nil {
		t.Fatal(err)
	}
	listener.AwaitEnd(t, "DES")
	client.AwaitEnd(t, "DES")
	if s.Err() != runtime.ErrPolicyChanged {
		t.Error(s.Err())
	}
}

// destroyHere is an action that calls Destroy.
func destroyHere(s *runtime.Stream) runtime.Result { s.Destroy(); return runtime.OK }

// TestServerCallbacks destroys a listener from callbacks.
func TestServerCallbacks(t *testing.T) {
	c := newContext(t, runtime.Options{}, rawServer())
	for name, destroy := range (teststream.Actions{"result": teststream.Destroy, "Destroy": destroyHere}) {
		tr := newTrace()
		tr.On["CRE"] = destroy
		if _, err := c.NewStream("s", tr.handlers()); !errors.Is(err, runtime.ErrRefused) {
			t.Errorf("%s in CREATING: %v", name, err)
		}
		tr.Want(t, "CRE DES")
	}
	s, listener, client, conn := connected(t, c)
	client.On["rx"] = func(s *runtime.Stream) runtime.Result { s.Listener().Destroy(); return runtime.OK }
	io.WriteString(conn, "x")
	listener.AwaitEnd(t, "DES")
	listener.Want(t, "CRE DES")
	if got := client.Last(); got != "DES" {
		t.Errorf("the client ends with %s", got)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if s.RequestTx() == nil || s.Connect() == nil {
		t.Error("a destroyed listener takes requests")
	}
}

// TestListenerRequests checks that a listener ignores requests.
func TestListenerRequests(t *testing.T) {
	tr := newTrace()
	tr.On["CRE"] = func(s *runtime.Stream) runtime.Result { s.RequestTx(); s.Connect(); return runtime.OK }
	c := newContext(t, runtime.Options{}, rawServer(func(st *policy.StreamType) { st.NailedUp = true }))
	s, err := c.NewStream("s", tr.handlers())
	if err != nil {
		t.Fatal(err)
	}
	s.RequestTx()
	s.Connect()
	tr.Settle(t, s)
	tr.Want(t, "CRE TMO TMO")
}

// A brokenListener accepts nothing.
type brokenListener struct{ net.Listener }

var errBroken = errors.New("broken")

func (brokenListener) Accept() (net.Conn, error) { return nil, errBroken }

// TestServe checks that Serve ends when its context is done, or when nothing more can be
// accepted.
func TestServe(t *testing.T) {
	c := newContext(t, runtime.Options{}, rawServer(), &policy.StreamType{Name: "client", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1})
	ctx, cancel := context.WithCancel(context.Background())
	tr := newTrace()
	tr.On["CRE"] = func(*runtime.Stream) runtime.Result { cancel(); return runtime.OK }
	if err := c.Serve(ctx, "s", tr.handlers()); err != nil {
		t.Error(err)
	}
	tr.Want(t, "CRE DES")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Serve(context.Background(), "s", runtime.Handlers{}, runtime.WithListener(brokenListener{ln})); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if err := c.Serve(context.Background(), "client", runtime.Handlers{}); !errors.Is(err, runtime.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := c.NewStream("client", runtime.Handlers{}, runtime.WithLimits(runtime.Limits{})); !errors.Is(err, runtime.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := c.Open(context.Background(), "s"); !errors.Is(err, runtime.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := c.Handle("s", 1); !errors.Is(err, runtime.ErrUnsupported) {
		t.Error(err)
	}
	for _, err := range c.Accept("client") {
		if !errors.Is(err, runtime.ErrUnsupported) {
			t.Error(err)
		}
	}
}

// TestServerContextCloses shuts a context down under a listener with clients.
func TestServerContextCloses(t *testing.T) {
	c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{rawServer()}},
		runtime.Options{Transports: []transport.Transport{raw.New(raw.TLS, raw.Server)}, Logger: teststream.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	_, listener, client, conn := connected(t, c)
	teststream.Shutdown(t, c)
	listener.Want(t, "CRE DES")
	client.Want(t, "CRE CNG CON DIS DES")
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open")
	}
}

// TestAcceptRate checks the limit of accepted connections per second.
func TestAcceptRate(t *testing.T) {
	c := newContext(t, runtime.Options{}, rawServer())
	s, _, _, _ := connected(t, c, runtime.WithLimits(runtime.Limits{AcceptRate: 50}))
	start := time.Now()
	for range 60 {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "x")
		conn.Read(make([]byte, 1))
		conn.Close()
	}
	if took := time.Since(start); took < 150*time.Millisecond { // 50 at once, and 20 ms for each of the others
		t.Errorf("61 connections in %v", took)
	}
}

// TestServerIdle checks that a client that is idle, or does not begin TLS, is disconnected
// unless the limits are removed.
func TestServerIdle(t *testing.T) {
	cert := system.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")
	encrypted := func(st *policy.StreamType) {
		secure(st)
		st.ServerCert = &policy.Cert{Name: "cert", DER: string(cert.Certificate[0])}
		st.ServerKey = &policy.Cert{Name: "key", DER: string(testcert.KeyDER(cert))}
	}
	const short = 50 * time.Millisecond
	for _, tt := range []struct {
		name   string
		change func(*policy.StreamType)
		limits runtime.Limits
		want   string // the states, or "" if the client stays
		err    error
	}{
		{"idle", func(*policy.StreamType) {}, runtime.Limits{IdleTimeout: short}, "CRE CNG CON rx DIS DES", raw.ErrIdle},
		{"no limit", func(*policy.StreamType) {}, runtime.Limits{IdleTimeout: -1}, "", nil},
		{"no TLS", encrypted, runtime.Limits{HeaderTimeout: short}, "CRE CNG DES", runtime.ErrTimeout},
		{"no TLS, no limit", encrypted, runtime.Limits{HeaderTimeout: -1, IdleTimeout: -1}, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var network testserver.Network
				ln := network.Listen("s")
				tr := newTrace()
				c := newContext(t, runtime.Options{ConnectTimeout: short}, rawServer(tt.change))
				s, err := c.NewStream("s", runtime.Handlers{}, runtime.WithListener(ln), runtime.WithLimits(tt.limits),
					runtime.WithClients(func(*runtime.Stream) runtime.Handlers { return tr.handlers() }))
				if err != nil {
					t.Fatal(err)
				}
				conn, err := network.DialContext(t.Context(), "tcp", "s")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if !s.StreamType().TLS {
					io.WriteString(conn, "x")
				}
				synctest.Wait()
				var client *runtime.Stream
				for client = range c.Clients(s) {
				}
				if client == nil {
					t.Fatal("no client")
				}
				conn.SetReadDeadline(time.Now().Add(time.Hour))
				_, err = conn.Read(make([]byte, 1))
				if stays := errors.Is(err, os.ErrDeadlineExceeded); stays != (tt.want == "") {
					t.Errorf("the client read %v", err)
				}
				if tt.want != "" {
					tr.AwaitEnd(t, "DES")
					tr.Want(t, tt.want)
					if !errors.Is(client.Err(), tt.err) {
						t.Errorf("%v, want %v", client.Err(), tt.err)
					}
				}
			})
		})
	}
}

// TestShutdownFailedHandshake shuts down a listener while TLS handshakes of its clients
// fail. No link may be used after its end.
func TestShutdownFailedHandshake(t *testing.T) {
	cert := system.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")
	c := newContext(t, runtime.Options{}, rawServer(func(st *policy.StreamType) {
		secure(st)
		st.ServerCert = &policy.Cert{Name: "cert", DER: string(cert.Certificate[0])}
		st.ServerKey = &policy.Cert{Name: "key", DER: string(testcert.KeyDER(cert))}
	}))
	for range 20 {
		s, err := c.NewStream("s", runtime.Handlers{})
		if err != nil {
			t.Fatal(err)
		}
		var clients sync.WaitGroup
		for range 10 {
			clients.Go(func() {
				conn, err := net.Dial("tcp", s.Addr().String())
				if err != nil {
					return // shut down
				}
				defer conn.Close()
				io.WriteString(conn, "this is no handshake\r\n")
				io.Copy(io.Discard, conn)
			})
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		clients.Wait()
	}
}

// A stuckListener is a listener whose methods return only after it is closed.
type stuckListener struct {
	net.Listener
	released chan struct{}
}

func (l stuckListener) Accept() (net.Conn, error) { <-l.released; return nil, net.ErrClosed }
func (l stuckListener) Close() error              { <-l.released; return nil }

// TestStuckListener destroys a listener whose port does not close.
func TestStuckListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		stuck := stuckListener{ln, make(chan struct{})}
		c := newContext(t, runtime.Options{Logger: slog.New(slog.DiscardHandler)}, rawServer())
		gone := make(chan struct{})
		tr := newTrace()
		tr.On["DES"] = func(*runtime.Stream) runtime.Result { close(gone); return runtime.OK }
		s, err := c.NewStream("s", tr.handlers(), runtime.WithListener(stuck))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		s.Destroy()
		<-gone
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("Destroy took %v", d)
		}
		close(stuck.released)
	})
}
