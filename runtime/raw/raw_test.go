package raw_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func retry(conceal uint16) func(*policy.StreamType) {
	return func(st *policy.StreamType) {
		st.Opportunistic, st.Retry = false, teststream.Retry(conceal)
	}
}

// TestSequences checks the sequences of docs/runtime.md.
func TestSequences(t *testing.T) {
	greet := func(c net.Conn) { io.WriteString(c, "hello") }
	once := func(do func(net.Conn)) func(net.Conn) {
		var n atomic.Int32
		return func(c net.Conn) {
			if n.Add(1) == 1 {
				do(c)
				return
			}
			io.Copy(io.Discard, c)
		}
	}
	var received chan struct{} // gets a value with each piece
	for _, tt := range []struct {
		name   string
		server func(net.Conn) // nil means that the address refuses connections
		change []func(*policy.StreamType)
		option []runtime.StreamOption
		until  string
		want   string
		body   string
		cause  error
	}{
		{"the peer closes", greet, nil, nil, "DIS", "CRE POL CNG CON rx DIS", "hello", io.EOF},
		{"the peer closes, nothing sent", func(net.Conn) {}, nil, nil, "DIS", "CRE POL CNG CON DIS", "", io.EOF},
		{"the peer closes, not opportunistic", once(greet), []func(*policy.StreamType){retry(2)}, nil, "DIS POL CNG CON", "CRE POL CNG CON rx DIS POL CNG CON", "hello", nil},
		{"nailed up", greet, []func(*policy.StreamType){func(st *policy.StreamType) { st.NailedUp = true }}, nil, "DIS", "CRE CNG CON rx DIS", "hello", io.EOF},
		{"the peer resets", func(c net.Conn) { greet(c); <-received; c.(*net.TCPConn).SetLinger(0) }, nil, nil, "DIS", "CRE POL CNG CON rx DIS", "hello", syscall.ECONNRESET},
		{"refused", nil, []func(*policy.StreamType){retry(2)}, nil, "ARF", "CRE POL CNG UNR POL CNG UNR POL CNG UNR ARF", "", syscall.ECONNREFUSED},
		{"refused, no retry", nil, nil, nil, "ARF", "CRE POL CNG UNR ARF", "", syscall.ECONNREFUSED},
		{"a peer without TLS", func(c net.Conn) { io.WriteString(c, "220 what is this\r\n"); io.Copy(io.Discard, c) }, []func(*policy.StreamType){secure, retry(1)}, nil, "ARF", "CRE POL CNG UNR POL CNG UNR ARF", "", nil},
		{"a peer that sends no handshake", func(c net.Conn) { io.Copy(io.Discard, c) }, []func(*policy.StreamType){secure}, nil, "ARF", "CRE POL CNG UNR ARF", "", transport.ErrTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			received = make(chan struct{}, 100)
			addr := net.Addr(net.TCPAddrFromAddrPort(testserver.Refused(t)))
			if tt.server != nil {
				addr = serve(t, tt.server)
			}
			var o runtime.Options
			if tt.cause == transport.ErrTimeout {
				o.ConnectTimeout = 200 * time.Millisecond
			}
			c := newContext(t, o, streamType(addr, tt.change...))
			tr := newTrace()
			tr.rx = func(*runtime.Stream, []byte) { received <- struct{}{} }
			s := teststream.Must(c.NewStream("s", tr.handlers(), tt.option...))
			s.RequestTx()
			tr.AwaitEnd(t, tt.until)
			if tr.String() != tt.want || tr.Body() != tt.body || tt.cause != nil && !errors.Is(s.Err(), tt.cause) {
				t.Errorf("got %s, %q (%v)\nwant %s, %q (%v)", tr, tr.Body(), s.Err(), tt.want, tt.body, tt.cause)
			}
		})
	}
}

// TestEcho sends pieces to an echo server over each kind of connection.
func TestEcho(t *testing.T) {
	config := own.Server(nil, "127.0.0.1", "localhost")
	for _, tt := range []struct {
		name string
		ln   func() net.Listener
		st   func(*policy.StreamType)
	}{
		{"TCP", func() net.Listener { return testserver.Listen(t) }, func(*policy.StreamType) {}},
		{"TLS", func() net.Listener { return tls.NewListener(testserver.Listen(t), config) }, secure},
		{"unix", func() net.Listener { return testserver.ListenUnix(t) }, func(*policy.StreamType) {}},
		{"unix, abstract", func() net.Listener {
			return teststream.Must(net.Listen("unix", "@sspolicy-raw-"+strings.ReplaceAll(t.TempDir(), "/", "-")))
		}, func(*policy.StreamType) {}},
		{"unix, TLS", func() net.Listener { return tls.NewListener(testserver.ListenUnix(t), config) }, secure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newContext(t, runtime.Options{}, streamType(serveOn(t, tt.ln(), echo), tt.st))
			tr := newTrace()
			s := teststream.Must(c.NewStream("s", tr.handlers()))
			for _, piece := range []string{"one", "two", "three"} {
				tr.send(s, piece)
			}
			tr.awaitBody(t, "onetwothree")
			s.Destroy()
			tr.awaitEvent(t, "DES")
			tr.Want(t, "CRE POL CNG CON rx DIS DES")
			// By Open, with more than buffers hold.
			conn := teststream.Must(c.Open(t.Context(), "s"))
			defer conn.Close()
			data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
			go func() {
				conn.Write(data)
				conn.CloseWrite()
			}()
			if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d of %d bytes, %v", len(got), len(data), err)
			}
			// By Fetch, which closes its direction after the body, and treats the end of
			// the connection as that of the response.
			r, err := c.Fetch(t.Context(), "s", runtime.WithBody(data))
			if err != nil || !bytes.Equal(r.Body, data) {
				t.Errorf("Fetch: %v", err)
			}
		})
	}
}

// TestPeerEnds checks that the peer receives everything after it has closed its direction.
func TestPeerEnds(t *testing.T) {
	got := make(chan int, 1)
	addr := serve(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 1))
		c.(*net.TCPConn).CloseWrite()
		n, _ := io.Copy(io.Discard, c)
		got <- 1 + int(n)
	})
	c := newContext(t, runtime.Options{}, streamType(addr))
	conn := teststream.Must(c.Open(t.Context(), "s"))
	defer conn.Close()
	const size = 20 << 20
	if n, err := conn.Write(make([]byte, size)); n != size || err != nil {
		t.Errorf("%d bytes written, %v", n, err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read: %v", err)
	}
	if n := <-got; n != size {
		t.Errorf("the peer got %d bytes of %d", n, size)
	}
}

// TestCloseWrite checks the half close of a stream without a Conn.
func TestCloseWrite(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		b, _ := io.ReadAll(c)
		c.Write(bytes.ToUpper(b))
	})
	c := newContext(t, runtime.Options{}, streamType(addr))
	tr := newTrace()
	tr.On["CON"] = func(s *runtime.Stream) policy.Result {
		tr.send(s, "all there is")
		if err := raw.Of(s).CloseWrite(); err != nil {
			t.Error(err)
		}
		return policy.OK
	}
	s := teststream.Must(c.NewStream("s", tr.handlers()))
	if err := raw.Of(s).CloseWrite(); err != raw.ErrNotConnected {
		t.Errorf("without a connection: %v", err)
	}
	s.Connect()
	tr.awaitEvent(t, "DIS")
	if tr.Body() != "ALL THERE IS" || s.Err() != io.EOF {
		t.Errorf("%q, %v", tr.Body(), s.Err())
	}
}

// TestWriteWithoutReader checks that Write fails when the peer has reset the
// connection, although the program does not read.
func TestWriteWithoutReader(t *testing.T) {
	received := make(chan bool, 1)
	addr := serve(t, func(c net.Conn) {
		c.Write(make([]byte, 200<<10))
		<-received
		c.(*net.TCPConn).SetLinger(0)
	})
	hooks := runtime.Hooks{Rx: func(context.Context, *runtime.Stream, int) {
		select {
		case received <- true:
		default:
		}
	}}
	c := newContext(t, runtime.Options{Hooks: hooks}, streamType(addr))
	conn := teststream.Must(c.Open(t.Context(), "s"))
	defer conn.Close()
	var err error
	for err == nil {
		_, err = conn.Write(make([]byte, 100<<10))
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
}

// TestBackPressure checks that the peer stops while Rx does not return, and that Tx is
// not called while the peer does not read.
func TestBackPressure(t *testing.T) {
	const size = 64 << 20
	// transfer moves much data on another stream meanwhile.
	transfer := func(c *runtime.Context) {
		t.Helper()
		if _, err := c.Fetch(t.Context(), "other", runtime.WithLimit(-1)); err != nil {
			t.Error(err)
		}
	}
	fast := streamType(serve(t, func(c net.Conn) { c.Write(make([]byte, size)) }))
	fast.Name = "other"

	var sent, supplied atomic.Int64
	writer := serve(t, func(c net.Conn) {
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Write(buf)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	c := newContext(t, runtime.Options{}, streamType(writer), fast)
	var first sync.Once
	received, hold := make(chan bool), make(chan bool)
	s := teststream.Must(c.NewStream("s", runtime.Handlers{Rx: func(s *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
		first.Do(func() { close(received) })
		<-hold
		return policy.OK
	}}))
	s.Connect()
	<-received
	transfer(c)
	if n := sent.Load(); n > size/4 {
		t.Errorf("the peer has sent %d bytes while Rx does not return", n)
	}
	close(hold)

	silent := serve(t, func(c net.Conn) { <-t.Context().Done() })
	requested := make(chan bool)
	c = newContext(t, runtime.Options{}, streamType(silent), fast)
	s = teststream.Must(c.NewStream("s", runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
		if supplied.Add(int64(len(buf))) == int64(len(buf)) {
			close(requested)
		}
		s.RequestTx()
		return len(buf), 0, policy.OK
	}}))
	s.RequestTx()
	<-requested
	transfer(c)
	if n := supplied.Load(); n == 0 || n > size/4 {
		t.Errorf("Tx has provided %d bytes for a peer that reads none", n)
	}
}

// TestClose shuts contexts down with connections in each phase.
func TestClose(t *testing.T) {
	addr := serve(t, func(c net.Conn) { c.Write(make([]byte, 1<<20)); io.Copy(io.Discard, c) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, st := range []*policy.StreamType{streamType(addr), streamType(addr, secure)} {
		c := newContext(t, runtime.Options{}, st)
		for range 10 {
			s := teststream.Must(c.NewStream("s", runtime.Handlers{}))
			s.Connect()
			go c.Open(ctx, "s")
		}
		teststream.Shutdown(t, c)
	}
}
