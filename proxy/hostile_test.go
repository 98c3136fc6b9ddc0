package proxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspctrace"
	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

func TestHandshakeTimeout(t *testing.T) {
	for _, sent := range [][]byte{nil, {0xaa}, sspcwire.AppendTimeout(nil, 1)} {
		synctest.Test(t, func(t *testing.T) {
			f := New(teststream.NewContext(t, runtime.Options{}), Options{})
			ours, theirs := net.Pipe()
			done := make(chan error, 1)
			begin := time.Now()
			go func() { done <- f.ServeConn(ours) }()
			if _, err := theirs.Write(sent); err != nil {
				t.Error(err)
			}
			if err := <-done; err != errHandshake || time.Since(begin) != HandshakeTimeout {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
		})
	}
}

// settled waits until the proxy has no links.
func (f *fixture) settled(t testing.TB) {
	t.Helper()
	eventually(t, "the proxy has no links", func() bool { return f.Stats().Links == 0 })
}

// TestTruncated truncates the bytes of recorded clients at many places. Other clients are
// not affected, and nothing is left.
func TestTruncated(t *testing.T) {
	links, err := sspctrace.Links()
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, newOrigin(t).streamtypes()...)
	seen := map[string]bool{}
	for _, l := range links {
		b := l.Bytes(false)
		for n := range min(len(b), 150) {
			if part := string(b[:n]); !seen[part] {
				seen[part] = true
				conn := f.dial(t)
				conn.Write(b[:n])
				conn.Close()
			}
		}
		if !seen[string(b)] {
			seen[string(b)] = true
			conn := f.dial(t)
			conn.Write(b)
			conn.Close() // without reading an answer
		}
	}
	f.settled(t)
	c := f.open(t, "get", 0)
	c.set("path", "body?n=3")
	c.connect()
	c.until("DIS")
}

// TestSlowClient checks that a client that does not read slows down its own peer and no
// other.
func TestSlowClient(t *testing.T) {
	sent := make(chan int, 1)
	port := testserver.ServeTCP(t, func(c net.Conn) {
		n, buf := 0, make([]byte, 10000)
		for {
			c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			m, err := c.Write(buf)
			n += m
			if err != nil {
				sent <- n
				return
			}
		}
	}).Port()
	st := &policy.StreamType{Name: "flood", Endpoint: "127.0.0.1", Port: port, Protocol: policy.ProtocolRaw, Opportunistic: true}
	f := newFixture(t, append(newOrigin(t).streamtypes(), st)...)
	c := f.open(t, "flood", 0)
	c.connect()
	got := <-sent // the peer is blocked
	if out := f.Stats().PayloadOut; out > defaultBuflen+1<<20 {
		t.Errorf("the proxy has taken %d bytes of %d", out, got)
	}
	other := f.open(t, "get", 0)
	other.set("path", "body?n=3")
	other.connect()
	other.until("DIS")
	c.Close()
	other.Close()
	f.settled(t)
}

// TestSlowPeer checks that a peer that does not read slows down its client, and that the
// end of that client is still noticed.
func TestSlowPeer(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	port := testserver.ServeTCP(t, func(c net.Conn) {
		c.(*net.TCPConn).SetReadBuffer(4096)
		<-hold
	}).Port()
	f := newFixture(t, &policy.StreamType{Name: "sink", Endpoint: "127.0.0.1", Port: port, Protocol: policy.ProtocolRaw, Opportunistic: true})
	c := f.open(t, "sink", 0)
	c.connect()
	c.until("CON")
	b, err := sspcwire.AppendPayload(nil, sspcwire.ToProxy, sspcwire.Payload{Data: make([]byte, 60000)})
	if err != nil {
		t.Fatal(err)
	}
	c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	for err == nil {
		_, err = c.Write(b)
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Error(err)
	}
	c.Close()
	f.settled(t)
}

// TestFailedBody checks that a client whose body was consumed by a failed attempt resends
// it from the beginning.
func TestFailedBody(t *testing.T) {
	read := func(c net.Conn, last string) string {
		var all []byte
		for buf := make([]byte, 4096); !strings.HasSuffix(string(all), last); {
			n, err := c.Read(buf)
			if err != nil {
				break
			}
			all = append(all, buf[:n]...)
		}
		return string(all)
	}
	attempts := 0
	port := testserver.ServeTCP(t, func(c net.Conn) {
		if attempts++; attempts == 1 {
			read(c, "begin\r\n")
			return
		}
		_, body, _ := strings.Cut(read(c, "0\r\n\r\n"), "\r\n\r\n")
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(body), body)
	}).Port()
	f := newFixture(t, &policy.StreamType{
		Name: "post", Endpoint: "127.0.0.1", Port: port, Protocol: policy.ProtocolH1, Opportunistic: true,
		HTTP: &policy.HTTP{Method: "POST"}, Retry: &policy.Retry{Backoff: []time.Duration{time.Millisecond}, Conceal: 5},
	})
	c := f.open(t, "post", 0)
	c.connect()
	c.expect("CREATE, CRE, CNG, CON")
	c.tx("begin", policy.FlagSOM)
	c.expect("DIS, CNG, UNR, POL, CNG, CON")
	c.tx("stale", 0) // of the first attempt
	c.tx("end", policy.FlagEOM)
	c.tx("again", policy.FlagSOM|policy.FlagEOM)
	if body := c.expect("rx SOM EOM, ACK, DIS"); body != "5\r\nagain\r\n0\r\n\r\n" {
		t.Errorf("%q", body)
	}
}

// TestFailedAfterTimeout checks that an attempt whose body was requested ends with
// DISCONNECTED, even after TIMEOUT.
func TestFailedAfterTimeout(t *testing.T) {
	conns := make(chan net.Conn, 1)
	port := testserver.ServeTCP(t, func(c net.Conn) { conns <- c; io.Copy(io.Discard, c) }).Port()
	f := newFixture(t, &policy.StreamType{
		Name: "post", Endpoint: "127.0.0.1", Port: port, Protocol: policy.ProtocolH1, Opportunistic: true, HTTP: &policy.HTTP{Method: "POST"},
	})
	c := f.open(t, "post", 0)
	c.connect()
	c.expect("CREATE, CRE, CNG, CON")
	c.send(sspcwire.AppendTimeout(nil, 1), nil)
	c.expect("TMO")
	(<-conns).Close()
	c.expect("DIS, CNG, UNR")
}

// TestFlood checks the limits on the resources of one client.
func TestFlood(t *testing.T) {
	var log lines
	f := newFixtureWith(t, Options{MaxLinks: 50, Logger: slog.New(slog.NewTextHandler(&log, nil))}, newOrigin(t).streamtypes()...)
	for range 100 { // of which 5 may stay without a streamtype
		f.dial(t)
	}
	eventually(t, "95 links are refused", func() bool { return f.Stats().LinksRefused >= 95 })
	if s := f.Stats(); s.LinksRefused != 95 {
		t.Errorf("%+v", s)
	}
	if n := strings.Count(log.String(), "link refused"); n > 2*maxWarnings {
		t.Errorf("%d warnings", n)
	}
}

// TestManyFrames checks that a link counts the overhead of small frames, and that metadata
// may be set any number of times.
func TestManyFrames(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	port := testserver.ServeTCP(t, func(c net.Conn) { <-hold }).Port()
	o := newOrigin(t)
	f := newFixture(t, append(o.streamtypes(), &policy.StreamType{
		Name: "stuck", Endpoint: "127.0.0.1", Port: port, Protocol: policy.ProtocolWS, Opportunistic: true, HTTP: &policy.HTTP{},
	})...)
	c := f.open(t, "stuck", 0)
	c.until("CRE")
	b, err := sspcwire.AppendPayload(nil, sspcwire.ToProxy, sspcwire.Payload{Flags: policy.FlagSOM | policy.FlagEOM})
	if err != nil {
		t.Fatal(err)
	}
	c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	sent := 0
	for ; err == nil && sent < 1_000_000; sent++ {
		_, err = c.Write(b)
	}
	if err == nil {
		t.Errorf("the proxy holds %d empty messages", sent)
	}
	get := f.open(t, "get", 0)
	for range 20_000 {
		get.set("uptag", "x")
	}
	get.set("path", "body?n=3")
	get.connect()
	get.until("DIS")
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.String()
}

// FuzzLink sends bytes to the proxy after a valid opening. The proxy must end the link when
// the client does.
func FuzzLink(f *testing.F) {
	links, err := sspctrace.Links()
	if err != nil {
		f.Fatal(err)
	}
	opening := len("\xaa\x00\x0c\x01\x00\x00\x00\x00\x00\x00\x00\x00get")
	for _, l := range links {
		if b := l.Bytes(false); len(b) > opening && len(b) < 2000 {
			f.Add(b[opening:])
		}
	}
	p := newFixtureWith(f, Options{Logger: slog.New(slog.DiscardHandler)}, newOrigin(f).streamtypes()...)
	names := []string{"get", "minpost", "spam", "rawecho", "ride1", "refused", "_lws_smd"}
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- p.ServeConn(ours) }()
		go io.Copy(io.Discard, theirs)
		name := names[len(b)%len(names)]
		head, err := sspcwire.AppendStreamType(nil, sspcwire.StreamType{Name: name, Credit: 1})
		if err != nil {
			t.Fatal(err)
		}
		theirs.SetWriteDeadline(time.Now().Add(limit))
		theirs.Write(append(head, b...))
		theirs.Close()
		select {
		case <-done:
		case <-time.After(limit):
			t.Fatal("the link does not end")
		}
	})
}
