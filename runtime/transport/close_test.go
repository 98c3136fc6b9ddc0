package transport

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A stuckConn is a connection whose Close returns only after released is closed.
type stuckConn struct {
	net.Conn
	released <-chan struct{}
}

func (c *stuckConn) Close() error {
	<-c.released
	return c.Conn.Close()
}

// dialPipe returns a connection that Dial has made over conn, and its Host.
func dialPipe(t *testing.T, conn net.Conn) (Host, net.Conn) {
	t.Helper()
	env := NewHost(Config{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }})
	d, err := env.Dialer(&policy.StreamType{})
	if err != nil {
		t.Fatal(err)
	}
	dialed, err := d.Dial(t.Context(), "tcp", "h:1")
	if err != nil {
		t.Fatal(err)
	}
	return env, dialed
}

// secure returns a TLS connection over conn, whose peer is theirs.
func secure(t *testing.T, conn, theirs net.Conn, authority *testcert.Authority) net.Conn {
	t.Helper()
	go tls.Server(theirs, authority.Server(nil, "h")).Handshake()
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, SessionTicketsDisabled: true})
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestClose closes connections whose peer does not read, or whose Close does not return,
// while an operation of the program waits for it.
func TestClose(t *testing.T) {
	authority := testcert.New("root")
	for _, tt := range []struct {
		name       string
		tls, stuck bool
		want       time.Duration
	}{
		{"a connection", false, false, 0},
		{"a Close that does not return", false, true, closeWait},
		{"TLS to a peer that does not read", true, false, closeWait},
		{"both", true, true, 2 * closeWait},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				released := make(chan struct{})
				ours, theirs := net.Pipe()
				defer theirs.Close()
				if tt.stuck {
					ours = &stuckConn{ours, released}
				}
				env, conn := dialPipe(t, ours)
				if tt.tls {
					conn = secure(t, conn, theirs, authority)
				}
				start := time.Now()
				err := Close(conn)
				if d := time.Since(start); d != tt.want || tt.stuck != (err == errClose) {
					t.Errorf("Close took %v, want %v; the error is %v", d, tt.want, err)
				}
				start = time.Now()
				Close(conn)
				if d := time.Since(start); d > 0 {
					t.Errorf("the second Close took %v", d)
				}
				close(released)
				env.Release()
			})
		})
	}
}

// TestCloseLater checks that Release waits for the close_notify of a connection that closes in
// the background, but not long.
func TestCloseLater(t *testing.T) {
	authority := testcert.New("root")
	for _, tt := range []struct{ late, want time.Duration }{
		{closeWait / 2, closeWait / 2},
		{time.Hour, closeWait},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			env, conn := dialPipe(t, ours)
			conn = secure(t, conn, theirs, authority)
			synctest.Wait()
			start := time.Now()
			CloseLater(conn)
			read := make(chan int64)
			go func() {
				time.Sleep(tt.late)
				n, _ := io.Copy(io.Discard, theirs)
				read <- n
			}()
			env.Release()
			if d := time.Since(start); d != tt.want {
				t.Errorf("Release took %v, want %v", d, tt.want)
			}
			if n := <-read; n > 0 != (tt.late < closeWait) {
				t.Errorf("the peer, which reads after %v, got %d bytes", tt.late, n)
			}
		})
	}
}

// TestCloseAccepted closes an accepted connection whose Close does not return. It counts
// as open until that has returned.
func TestCloseAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		released := make(chan struct{})
		ours, theirs := net.Pipe()
		defer theirs.Close()
		l := &limitedListener{slots: make(chan struct{}, 1)}
		l.slots <- struct{}{}
		start := time.Now()
		if err := Close(&acceptedConn{Conn: &stuckConn{ours, released}, l: l}); err != errClose || time.Since(start) != closeWait {
			t.Errorf("Close: %v after %v", err, time.Since(start))
		}
		if len(l.slots) == 0 {
			t.Error("the connection does not count as open")
		}
		close(released)
		synctest.Wait()
		if len(l.slots) > 0 {
			t.Error("the closed connection counts as open")
		}
	})
}
