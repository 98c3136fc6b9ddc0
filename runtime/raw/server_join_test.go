package raw_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestRawServerJoins has a server that joins another one by its name: it receives the
// connections until it ends.
func TestRawServerJoins(t *testing.T) {
	named := func(name, endpoint string) *policy.StreamType {
		return rawServer(func(st *policy.StreamType) { st.Name, st.Endpoint = name, endpoint })
	}
	c := newContext(t, runtime.Options{}, named("host", "127.0.0.1"), named("guest", "!host"), named("last", "!guest"), named("lost", "!none"))
	open := func(name string) (*runtime.Stream, *trace) {
		t.Helper()
		tr := newTrace()
		s, err := c.NewStream(name, tr.handlers(), runtime.WithClients(func(*runtime.Stream) runtime.Handlers {
			client := newTrace()
			client.rx = func(s *runtime.Stream, _ []byte) { client.send(s, name) }
			return client.handlers()
		}))
		if err != nil {
			t.Fatal(err)
		}
		return s, tr
	}
	host, hostTrace := open("host")
	ask := func(want string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", host.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		io.WriteString(conn, "?")
		buf := make([]byte, len(want))
		if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != want {
			t.Errorf("%q, %v, want %q", buf, err, want)
		}
		return conn
	}
	if _, err := c.NewStream("lost", runtime.Handlers{}); !errors.Is(err, runtime.ErrEndpoint) {
		t.Error(err)
	}
	ask("host")
	guest, _ := open("guest")
	if guest.Addr().String() != host.Addr().String() {
		t.Errorf("the guest listens on %v", guest.Addr())
	}
	kept := ask("guest")
	last, lastTrace := open("last")
	ask("last")
	last.Destroy()
	lastTrace.AwaitEnd(t, "DES")
	ask("guest").Close()
	kept.Close()
	if err := guest.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	ask("host")
	_, guestTrace := open("guest")
	ask("guest")
	host.Destroy()
	hostTrace.AwaitEnd(t, "DES")
	guestTrace.AwaitEnd(t, "DES")
	if conn, err := net.Dial("tcp", host.Addr().String()); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
	if _, err := c.NewStream("guest", runtime.Handlers{}); !errors.Is(err, runtime.ErrEndpoint) {
		t.Errorf("a guest without its host: %v", err)
	}
}
