package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcmux"
	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// limit is the time limit of a wait.
const limit = time.Minute

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v not yet: %s", limit, what)
		}
	}
}

// A fixture is a proxy that listens on a unix socket.
type fixture struct {
	*Proxy
	ctx  *runtime.Context
	smd  *smd.SMD
	path string
}

func newFixture(t testing.TB, types ...*policy.StreamType) *fixture {
	t.Helper()
	return newFixtureWith(t, Options{}, types...)
}

func newFixtureWith(t testing.TB, o Options, types ...*policy.StreamType) *fixture {
	t.Helper()
	d := smd.New(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { d.Close() })
	ctx := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{http.New(), ws.New(), raw.New(), d}}, types...)
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	p := New(ctx, o)
	path := filepath.Join(t.TempDir(), "proxy")
	l, err := Listen(Address{Network: "unix", Host: path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() {
		p.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return &fixture{p, ctx, d, path}
}

type testWriter struct{ testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.Logf("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}

// A client is the other end of a link.
type client struct {
	testing.TB
	net.Conn
	r *sspcwire.Reader
}

func (f *fixture) dial(t testing.TB) *client {
	t.Helper()
	conn, err := net.Dial("unix", f.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(limit))
	return &client{t, conn, sspcwire.NewReader(conn, sspcwire.FromProxy, 2048)}
}

// open dials, and sends STREAMTYPE.
func (f *fixture) open(t testing.TB, name string, credit uint32) *client {
	t.Helper()
	c := f.dial(t)
	c.send(sspcwire.AppendStreamType(nil, sspcwire.StreamType{PID: 1, Credit: credit, Name: name}))
	return c
}

func (c *client) send(b []byte, err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
	if _, err := c.Write(b); err != nil {
		c.Fatal(err)
	}
}

func (c *client) set(name, value string) {
	c.Helper()
	c.send(sspcwire.AppendMetadata(nil, sspcwire.ToProxy, name, value))
}

func (c *client) connect() {
	c.Helper()
	c.send(sspcwire.AppendConnect(nil), nil)
}

func (c *client) tx(data string, flags policy.Flags) {
	c.Helper()
	c.send(sspcwire.AppendPayload(nil, sspcwire.ToProxy, sspcwire.Payload{Flags: flags, Data: []byte(data)}))
}

// next returns the next frame as text: "CREATE", "CNG", "meta name=value", "credit",
// "perf", or "rx SOM EOM" with the payload in data.
func (c *client) next() (event string, data []byte, err error) {
	f, err := c.r.Next()
	if err != nil {
		return "", nil, err
	}
	return describe(c, f)
}

func describe(t testing.TB, f sspcwire.Frame) (event string, data []byte, err error) {
	switch f.Type {
	case sspcwire.TypeCreateResult:
		r, err := f.CreateResult()
		if r.Failure != 0 {
			return "REFUSED", nil, err
		}
		return "CREATE", nil, err
	case sspcwire.TypeConnState:
		s, _, err := f.ConnState()
		return s.Short(), nil, err
	case sspcwire.TypeRxMetadata:
		name, value, err := f.Metadata()
		return "meta " + name + "=" + string(value), nil, err
	case sspcwire.TypePerf:
		return "perf", f.Body, nil
	case sspcwire.TypeRxCredit:
		return "credit", nil, nil
	case sspcwire.TypeRx:
		p, err := f.Payload()
		event = "rx"
		for i, name := range []string{"SOM", "EOM", "", "START", "END"} {
			if p.Flags&(1<<i) != 0 {
				event += " " + name
			}
		}
		return event, p.Data, err
	}
	t.Errorf("a frame of type %v", f.Type)
	return "", nil, nil
}

// until returns the events up to last, and the payload. Frames of one message are one
// event.
func (c *client) until(last string) (events []string, body string) {
	c.Helper()
	inside := false
	for {
		event, data, err := c.next()
		if err != nil {
			c.Fatalf("%q, then %v; want %q", events, err, last)
		}
		body += string(data)
		if strings.HasPrefix(event, "rx") {
			end := strings.Contains(event, "EOM")
			if inside && !end {
				continue
			}
			if inside {
				events[len(events)-1] += " EOM"
				inside = false
				continue
			}
			inside = !end
		}
		events = append(events, event)
		if event == last {
			return events, body
		}
	}
}

// expect checks the events up to the last of want.
func (c *client) expect(want string) (body string) {
	c.Helper()
	list := strings.Split(want, ", ")
	events, body := c.until(list[len(list)-1])
	if got := strings.Join(events, ", "); got != want {
		c.Fatalf("got  %s\nwant %s", got, want)
	}
	return body
}

// end checks that the proxy closes the link.
func (c *client) end() {
	c.Helper()
	for {
		event, _, err := c.next()
		if err == io.EOF {
			return
		}
		if err != nil {
			c.Fatal(err)
		}
		c.Logf("before the end: %s", event)
	}
}

func TestGet(t *testing.T) {
	f := newFixture(t, newOrigin(t).streamtypes()...)
	c := f.open(t, "get", sspcwire.DefaultCredit)
	c.expect("CREATE, CRE")
	for _, n := range []string{"3", "30000", "0"} { // on one link
		c.set("path", "body?n="+n)
		c.connect()
		if n == "0" {
			c.expect("CNG, meta srv=probe-origin, meta ctype=application/octet-stream, CON, ACK, DIS")
			continue
		}
		body := c.expect("CNG, meta srv=probe-origin, meta ctype=application/octet-stream, CON, rx SOM EOM, ACK, DIS")
		if n == "3" && body != "012" || n == "30000" && body != strings.Repeat("0123456789", 3000) {
			t.Errorf("n=%s: %d bytes", n, len(body))
		}
	}
	// A client that disconnects takes its stream with it.
	c.set("path", "slow")
	c.connect()
	c.expect("CNG")
	c.Close()
}

// TestNoEmptyFrame checks that no empty frame follows a body over TCP, after which the
// client of lws would lose payload of the next one.
func TestNoEmptyFrame(t *testing.T) {
	f := newFixture(t, newOrigin(t).streamtypes()...)
	l, err := Listen(Address{Network: "tcp", Host: "127.0.0.1:0"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	c := &client{t, conn, sspcwire.NewReader(conn, sspcwire.FromProxy, 2048)}
	c.send(sspcwire.AppendStreamType(nil, sspcwire.StreamType{Name: "get"}))
	c.expect("CREATE, CRE")
	for range 20 {
		c.set("path", "chunked?n=5000")
		c.connect()
		got := 0
		for event := ""; event != "DIS"; {
			var data []byte
			if event, data, err = c.next(); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(event, "rx") && len(data) == 0 {
				t.Errorf("an empty frame: %s", event)
			}
			got += len(data)
		}
		if got != 5000 {
			t.Errorf("%d bytes", got)
		}
	}
	f.Close()
	<-served
}

func TestPost(t *testing.T) {
	f := newFixture(t, newOrigin(t).streamtypes()...)
	c := f.open(t, "minpost", sspcwire.DefaultCredit)
	c.expect("CREATE, CRE")
	big := strings.Repeat("x", 4061)
	for _, hint := range []uint32{10*4061 + 1, 0} {
		if hint > 0 {
			c.send(sspcwire.AppendLengthHint(nil, hint), nil)
			c.expect("POL, CNG, CON")
		} else {
			c.connect()
			c.expect("CNG, CON")
		}
		for i := range 10 {
			flags := policy.Flags(0)
			if i == 0 {
				flags = policy.FlagSOM
			}
			c.tx(big, flags)
		}
		c.tx("x", policy.FlagEOM)
		if body := c.expect("meta ctype=text/plain, meta srv=probe-origin, rx SOM EOM, ACK, DIS"); body != "got 40611 bytes" {
			t.Errorf("%q", body)
		}
	}
}

// TestRideshare sends a body of two streamtypes. As with the proxy of lws, the answer names
// the last one.
func TestRideshare(t *testing.T) {
	f := newFixture(t, newOrigin(t).streamtypes()...)
	c := f.open(t, "ride1", 0)
	frame, err := c.r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := frame.CreateResult(); err != nil || strings.Join(r.Rideshares, " ") != "ride1 ride2" {
		t.Errorf("%v, %v", r, err)
	}
	c.connect()
	c.until("CON")
	c.tx("one", policy.FlagSOM|policy.FlagEOM)
	c.tx("two", policy.FlagSOM|policy.FlagEOM)
	for {
		frame, err := c.r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if frame.Type != sspcwire.TypeRx {
			continue
		}
		if p, err := frame.Payload(); err != nil || p.Rideshare != "ride2" || !strings.HasPrefix(string(p.Data), "got ") {
			t.Errorf("%q of %q, %v", p.Data, p.Rideshare, err)
		}
		break
	}
}

func TestEcho(t *testing.T) {
	f := newFixture(t, newOrigin(t).streamtypes()...)
	for _, name := range []string{"spam", "nailed", "rawecho"} {
		c := f.open(t, name, sspcwire.DefaultCredit)
		if name == "nailed" {
			c.expect("CREATE, CRE, CNG, CON")
		} else {
			c.expect("CREATE, CRE")
			c.connect()
			c.expect("CNG, CON")
		}
		for _, n := range []int{1, 1300, 5000, 40000} {
			c.tx(strings.Repeat("z", n), policy.FlagSOM|policy.FlagEOM)
			var body string
			for len(body) < n {
				event, data, err := c.next()
				if err != nil {
					t.Fatal(err)
				}
				if name != "rawecho" && strings.Contains(event, "SOM") != (len(body) == 0) {
					t.Errorf("%s after %d of %d bytes", event, len(body), n)
				}
				if body += string(data); name != "rawecho" && strings.Contains(event, "EOM") != (len(body) == n) {
					t.Errorf("%s with %d of %d bytes", event, len(body), n)
				}
			}
			if body != strings.Repeat("z", n) {
				t.Errorf("%s: %d bytes, want %d", name, len(body), n)
			}
		}
		c.Close()
	}
}

func TestRefused(t *testing.T) {
	f := newFixture(t, newOrigin(t).streamtypes()...)
	for _, name := range []string{"nosuchtype", "srvhttp"} {
		c := f.open(t, name, sspcwire.DefaultCredit)
		c.expect("REFUSED")
		c.end()
	}
	c := f.open(t, "refused", sspcwire.DefaultCredit)
	c.connect() // without waiting for CREATE_RESULT
	c.expect("CREATE, CRE, CNG, UNR, POL, CNG, UNR, POL, CNG, UNR, POL, CNG, UNR, ARF")
}

func TestShutdown(t *testing.T) {
	f := newFixture(t, newOrigin(t).streamtypes()...)
	testShutdown(t, f, f.dial)
}

func TestShutdownMux(t *testing.T) {
	f := newFixture(t, newOrigin(t).streamtypes()...)
	ours, theirs := net.Pipe()
	go f.Serve(ListenMux(theirs, nil))
	line := sspcmux.NewSession(ours, sspcmux.Options{})
	testShutdown(t, f, func(t testing.TB) *client {
		conn, err := line.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(limit))
		return &client{t, conn, sspcwire.NewReader(conn, sspcwire.FromProxy, 2048)}
	})
	<-line.Done()
}

// testShutdown checks that Shutdown waits for the connected stream of a link, and ends an
// idle one.
func testShutdown(t *testing.T, f *fixture, dial func(testing.TB) *client) {
	open := func(name string) *client {
		c := dial(t)
		c.send(sspcwire.AppendStreamType(nil, sspcwire.StreamType{PID: 1, Credit: sspcwire.DefaultCredit, Name: name}))
		return c
	}
	idle := open("get")
	idle.expect("CREATE, CRE")
	busy := open("minpost")
	busy.connect()
	busy.expect("CREATE, CRE, CNG, CON")
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		done <- f.Shutdown(ctx)
	}()
	idle.end()
	busy.tx("last", policy.FlagSOM|policy.FlagEOM)
	busy.expect("meta ctype=text/plain, meta srv=probe-origin, rx SOM EOM, ACK, DIS")
	busy.end()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
