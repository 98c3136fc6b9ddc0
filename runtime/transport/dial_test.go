package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestSetupDial checks which certificates and protocols of a server are accepted.
func TestSetupDial(t *testing.T) {
	authority := testcert.New("root")
	for _, tt := range []struct {
		name   string
		store  *policy.TrustStore
		host   string   // in the certificate of the server
		server []string // its protocols
		alpn   []string
		want   string // the negotiated protocol
		err    string // part of the error; "" means none
	}{
		{"no protocol", authority.Store(), "127.0.0.1", nil, nil, "", ""},
		{"a protocol", authority.Store(), "127.0.0.1", []string{"b", "a"}, []string{"a"}, "a", ""},
		{"no common protocol", authority.Store(), "127.0.0.1", []string{"b"}, []string{"a"}, "", "no application protocol"},
		{"another host", authority.Store(), "127.0.0.2", nil, nil, "", "127.0.0.2"},
		{"another authority", testcert.New("other").Store(), "127.0.0.1", nil, nil, "", "unknown authority"},
	} {
		ln, err := tls.Listen("tcp", "127.0.0.1:0", authority.Server(tt.server, tt.host))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					io.Copy(conn, conn)
					conn.Close()
				}()
			}
		}()
		setup := newSetup(t, newEnv(t, Config{}), &policy.StreamType{TrustStore: tt.store})
		target := &policy.Target{Network: "tcp", Host: "127.0.0.1", Port: uint16(ln.Addr().(*net.TCPAddr).Port), TLS: true}
		var steps []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{ // without some hooks
			TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
				steps = append(steps, "done")
				if (err != nil) != (tt.err != "") {
					t.Errorf("%s: the trace got %v", tt.name, err)
				}
			},
		})
		conn, err := setup.Dial(ctx, target, tt.alpn...)
		switch {
		case err != nil:
			if tt.err == "" || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
			}
		case tt.err != "":
			t.Errorf("%s: no error, want %q", tt.name, tt.err)
		default:
			if got := conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != tt.want {
				t.Errorf("%s: the protocol is %q, want %q", tt.name, got, tt.want)
			}
			conn.Close()
		}
		if got := strings.Join(steps, " "); got != "done" {
			t.Errorf("%s: the trace got %q", tt.name, got)
		}
		ln.Close()
	}
}

// TestDialEnd checks that Release closes connections, and that dials after it fail.
func TestDialEnd(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	env := NewHost(Config{DialContext: func(context.Context, string, string) (net.Conn, error) { return here, nil }})
	direct, err := env.Dialer(&policy.StreamType{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := direct.Dial(t.Context(), "tcp", "h:1")
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.(interface{ Dialed() net.Conn }).Dialed(); got != here {
		t.Errorf("Dialed is %v", got)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite of a pipe: %v", err)
	}
	env.Close()
	if env.Closing().Err() == nil {
		t.Error("Closing is not done after Close")
	}
	env.Release()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Read after Release: %v", err)
	}
	if _, err := direct.Dial(t.Context(), "tcp", "h:1"); !errors.Is(err, ErrClosed) {
		t.Errorf("Dial after Release: %v", err)
	}
}

// A slowConn is a connection whose Close waits.
type slowConn struct {
	net.Conn
	wait   time.Duration
	closed *atomic.Int64
}

func (c *slowConn) Close() error {
	time.Sleep(c.wait)
	c.closed.Add(1)
	return nil
}

// TestReleaseWaits checks that all connections are closed after Release, including one
// being closed and one being dialed, and that Release returns even if a Close or a dial
// does not.
func TestReleaseWaits(t *testing.T) {
	for _, tt := range []struct{ dial, close, want time.Duration }{
		{0, 0, 0},
		{0, time.Second, time.Second},
		{time.Second, 0, time.Second},
		{time.Second, time.Second, 2 * time.Second},
		{0, time.Hour, 5 * time.Second},
		{time.Hour, 0, 5 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			var closed atomic.Int64
			block := tt.dial
			env := NewHost(Config{ConnectTimeout: -1, DialContext: func(context.Context, string, string) (net.Conn, error) {
				time.Sleep(block)
				return &slowConn{nil, tt.close, &closed}, nil
			}})
			d, err := env.Dialer(&policy.StreamType{})
			if err != nil {
				t.Fatal(err)
			}
			dial := func() net.Conn {
				conn, _ := d.Dial(t.Context(), "tcp", "h:1")
				return conn
			}
			if tt.dial > 0 {
				go dial()
			} else {
				conn := dial()
				dial() // closed by Release
				go conn.Close()
			}
			synctest.Wait()
			start := time.Now()
			env.Release()
			if got := time.Since(start); got != tt.want {
				t.Errorf("dials of %v and closes of %v: Release took %v, want %v", tt.dial, tt.close, got, tt.want)
			}
			if tt.want < closeLimit && (closed.Load() == 0 || tt.dial == 0 && closed.Load() == 1) {
				t.Errorf("dials of %v and closes of %v: %d connections are closed", tt.dial, tt.close, closed.Load())
			}
			time.Sleep(2 * time.Hour) // for all goroutines to end
		})
	}
}

// TestDialLimit checks that a dial ends after DialTimeout, with its context, or with the
// environment.
func TestDialLimit(t *testing.T) {
	hang := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, tt := range []struct {
		name  string
		limit time.Duration // ConnectTimeout
		after time.Duration // when end is called
		end   func(Host, context.CancelFunc)
		want  time.Duration
		err   error
	}{
		{"limit", 8 * time.Second, time.Hour, func(Host, context.CancelFunc) {}, 11 * time.Second, context.DeadlineExceeded},
		{"short limit", time.Millisecond, time.Hour, func(Host, context.CancelFunc) {}, 1001250 * time.Microsecond, context.DeadlineExceeded},
		{"no limit", -1, time.Hour, func(_ Host, cancel context.CancelFunc) { cancel() }, time.Hour, context.Canceled},
		{"context", 8 * time.Second, time.Second, func(_ Host, cancel context.CancelFunc) { cancel() }, time.Second, context.Canceled},
		{"StopDials", 8 * time.Second, time.Second, func(e Host, _ context.CancelFunc) { e.StopDials() }, time.Second, context.Canceled},
	} {
		for _, proxy := range []string{"", "proxy"} {
			synctest.Test(t, func(t *testing.T) {
				env := newEnv(t, Config{ConnectTimeout: tt.limit, DialContext: hang})
				d, err := env.Dialer(&policy.StreamType{SOCKS5Proxy: proxy})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start := time.Now()
				timer := time.AfterFunc(tt.after, func() { tt.end(env, cancel) })
				defer timer.Stop()
				_, err = d.Dial(ctx, "tcp", "h:1")
				if got := time.Since(start); got != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("%s, proxy %q: %v after %v, want %v after %v", tt.name, proxy, err, got, tt.err, tt.want)
				}
				var proxyError *ProxyError
				if errors.As(err, &proxyError) != (proxy != "") {
					t.Errorf("%s, proxy %q: a %T", tt.name, proxy, err)
				}
			})
		}
	}
}

// TestTrace checks that no hook is nil, and that those of the context are called.
func TestTrace(t *testing.T) {
	calls := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GetConn: func(string) { calls++ }})
	for _, ctx := range []context.Context{t.Context(), ctx} {
		trace := Trace(ctx)
		trace.GetConn("")
		trace.GotConn(httptrace.GotConnInfo{})
		trace.TLSHandshakeStart()
		trace.TLSHandshakeDone(tls.ConnectionState{}, nil)
		trace.WroteHeaders()
		trace.WroteRequest(httptrace.WroteRequestInfo{})
		trace.GotFirstResponseByte()
	}
	if calls != 1 {
		t.Errorf("%d calls, want 1", calls)
	}
}
