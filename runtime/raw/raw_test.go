package raw_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func retry(conceal uint16) func(*policy.StreamType) {
	return func(st *policy.StreamType) {
		st.Opportunistic = false
		st.Retry = &policy.Retry{Name: "r", Backoff: []time.Duration{5 * time.Millisecond}, Conceal: conceal}
	}
}

// TestSequences has the rows for raw of docs/runtime.md.
func TestSequences(t *testing.T) {
	greet := func(c net.Conn) { io.WriteString(c, "hello") }
	once := func(do func(net.Conn)) func(net.Conn) {
		var n atomic.Int32
		return func(c net.Conn) {
			if n.Add(1) == 1 {
				do(c)
				return
			}
			io.Copy(io.Discard, c) // stays
		}
	}
	for _, tt := range []struct {
		name   string
		server func(net.Conn) // nil: nothing listens
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
		{"the peer resets", func(c net.Conn) { greet(c); time.Sleep(20 * time.Millisecond); c.(*net.TCPConn).SetLinger(0) }, nil, nil, "DIS", "CRE POL CNG CON rx DIS", "hello", syscall.ECONNRESET},
		{"refused", nil, []func(*policy.StreamType){retry(2)}, nil, "ARF", "CRE POL CNG UNR POL CNG UNR POL CNG UNR ARF", "", syscall.ECONNREFUSED},
		{"refused, no retry", nil, nil, nil, "ARF", "CRE POL CNG UNR ARF", "", syscall.ECONNREFUSED},
		{"no TLS there", func(c net.Conn) { io.WriteString(c, "220 what is this\r\n"); io.Copy(io.Discard, c) }, []func(*policy.StreamType){secure, retry(1)}, nil, "ARF", "CRE POL CNG UNR POL CNG UNR ARF", "", nil},
		{"silence where TLS should be", func(c net.Conn) { io.Copy(io.Discard, c) }, []func(*policy.StreamType){secure}, nil, "ARF", "CRE POL CNG UNR ARF", "", transport.ErrTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var addr net.Addr
			if tt.server == nil {
				ln := must(net.Listen("tcp", "127.0.0.1:0"))
				addr = ln.Addr()
				ln.Close()
			} else {
				addr = serve(t, tt.server)
			}
			c := newContext(t, runtime.Options{ConnectTimeout: 200 * time.Millisecond}, streamType(addr, tt.change...))
			tr := newTrace()
			s := must(c.NewStream("s", tr.handlers(), tt.option...))
			s.RequestTx()
			tr.AwaitEnd(t, tt.until)
			if tr.String() != tt.want || tr.received() != tt.body || tt.cause != nil && !errors.Is(s.Err(), tt.cause) {
				t.Errorf("saw %s, received %q (%v)\nwant %s, %q (%v)", tr, tr.received(), s.Err(), tt.want, tt.body, tt.cause)
			}
		})
	}
}

// TestEcho sends pieces over each kind of connection, and gets them back.
func TestEcho(t *testing.T) {
	config := own.Server(nil, "127.0.0.1", "localhost")
	for _, tt := range []struct {
		name string
		ln   func() net.Listener
		st   func(*policy.StreamType)
	}{
		{"TCP", func() net.Listener { return must(net.Listen("tcp", "127.0.0.1:0")) }, func(*policy.StreamType) {}},
		{"TLS", func() net.Listener { return must(tls.Listen("tcp", "127.0.0.1:0", config)) }, secure},
		{"unix", func() net.Listener { return must(net.Listen("unix", filepath.Join(t.TempDir(), "s"))) }, func(*policy.StreamType) {}},
		{"unix, abstract", func() net.Listener { return must(net.Listen("unix", "@"+filepath.Base(t.TempDir())+"-raw")) }, func(*policy.StreamType) {}},
		{"unix, TLS", func() net.Listener { return must(tls.Listen("unix", filepath.Join(t.TempDir(), "t"), config)) }, secure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newContext(t, runtime.Options{}, streamType(serveOn(t, tt.ln(), echo), tt.st))
			tr := newTrace()
			s := must(c.NewStream("s", tr.handlers()))
			for _, piece := range []string{"one", "two", "three"} {
				tr.send(s, piece)
			}
			tr.got(t, "onetwothree")
			s.Destroy()
			tr.saw(t, "DES")
			if got := tr.String(); got != "CRE POL CNG CON rx DIS DES" {
				t.Errorf("saw %s", got)
			}
			// The same by Open, with more than any buffer holds.
			conn := must(c.Open(t.Context(), "s"))
			defer conn.Close()
			data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
			go func() {
				conn.Write(data)
				conn.CloseWrite()
			}()
			if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d of %d bytes came back, %v", len(got), len(data), err)
			}
			// And by Fetch, which ends what it sends, and takes the end for that of
			// the answer.
			r, err := c.Fetch(t.Context(), "s", runtime.WithBody(data))
			if err != nil || !bytes.Equal(r.Body, data) {
				t.Errorf("Fetch: %v", err)
			}
		})
	}
}

// The peer ends what it sends, and still gets what it is sent.
func TestPeerEnds(t *testing.T) {
	got := make(chan int, 1)
	addr := serve(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 1))
		c.(*net.TCPConn).CloseWrite()
		time.Sleep(20 * time.Millisecond)
		n, _ := io.Copy(io.Discard, c)
		got <- 1 + int(n)
	})
	c := newContext(t, runtime.Options{}, streamType(addr))
	conn := must(c.Open(t.Context(), "s"))
	defer conn.Close()
	const size = 20 << 20
	if n, err := conn.Write(make([]byte, size)); n != size || err != nil {
		t.Errorf("%d bytes written, %v", n, err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("then %v", err)
	}
	if n := <-got; n != size {
		t.Errorf("the peer got %d bytes of %d", n, size)
	}
}

// A half close, by a stream that is not a Conn: the peer answers after it.
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
	s := must(c.NewStream("s", tr.handlers()))
	if err := raw.Of(s).CloseWrite(); err != raw.ErrNotConnected {
		t.Errorf("without a connection: %v", err)
	}
	s.Connect()
	tr.saw(t, "DIS")
	if tr.received() != "ALL THERE IS" || s.Err() != io.EOF {
		t.Errorf("%q, %v", tr.received(), s.Err())
	}
}

// Write fails when the peer is gone, though nobody reads what it has sent.
func TestWriteWithoutReader(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		c.Write(make([]byte, 200<<10))
		time.Sleep(20 * time.Millisecond)
		c.(*net.TCPConn).SetLinger(0)
	})
	c := newContext(t, runtime.Options{}, streamType(addr))
	conn := must(c.Open(t.Context(), "s"))
	defer conn.Close()
	var err error
	for err == nil {
		_, err = conn.Write(make([]byte, 100<<10))
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
}

// A reader that takes its time slows the peer down, and a peer that does, the
// writer.
func TestBackPressure(t *testing.T) {
	var sent, taken atomic.Int64
	addr := serve(t, func(c net.Conn) {
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Write(buf)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	c := newContext(t, runtime.Options{}, streamType(addr))
	hold := make(chan struct{})
	_, err := c.NewStream("s", runtime.Handlers{
		State: func(s *runtime.Stream, state policy.State, _ uint32) policy.Result {
			if state == policy.StateCreating {
				s.Connect()
			}
			return policy.OK
		},
		Rx: func(s *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
			<-hold
			return policy.OK
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	settled(&sent)
	if n := sent.Load(); n > 16<<20 {
		t.Errorf("the peer has sent %d bytes to a reader that takes none", n)
	}
	close(hold)

	silent := serve(t, func(c net.Conn) { <-t.Context().Done() })
	c = newContext(t, runtime.Options{}, streamType(silent))
	s := must(c.NewStream("s", runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
		taken.Add(int64(len(buf)))
		s.RequestTx()
		return len(buf), 0, policy.OK
	}}))
	s.RequestTx()
	settled(&taken)
	if n := taken.Load(); n == 0 || n > 16<<20 {
		t.Errorf("%d bytes were taken for a peer that reads none", n)
	}
}

// settled waits until a number does not change any more.
func settled(n *atomic.Int64) {
	for was := int64(0); was == 0 || was != n.Load(); {
		was = n.Load()
		time.Sleep(50 * time.Millisecond)
	}
}

// Context.Close, with connections in each of their phases.
func TestClose(t *testing.T) {
	addr := serve(t, func(c net.Conn) { c.Write(make([]byte, 1<<20)); io.Copy(io.Discard, c) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, st := range []*policy.StreamType{streamType(addr), streamType(addr, secure)} {
		c := newContext(t, runtime.Options{}, st)
		for range 10 {
			s := must(c.NewStream("s", runtime.Handlers{}))
			s.Connect()
			go c.Open(ctx, "s")
		}
		c.Close()
	}
}
