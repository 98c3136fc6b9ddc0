package ws_test

import (
	"context"
	"errors"
	"io"
	stdhttp "net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// openServer opens a server whose clients answer requests with the path, if available, or
// the name of the server, and echo messages.
func openServer(t *testing.T, c *runtime.Context, name string) (*runtime.Stream, *teststream.Trace) {
	t.Helper()
	var tr teststream.Trace
	s, err := c.NewStream(name, runtime.Handlers{State: tr.State}, runtime.WithClients(func(*runtime.Stream) runtime.Handlers {
		return echoing(newTrace(teststream.Actions{"TXN": func(s *runtime.Stream) runtime.Result {
			answer := name
			if path, err := s.Metadata("path"); err == nil {
				answer = name + " " + path
			}
			_ = s.Respond("", time.Time{}, strings.NewReader(answer))
			return runtime.OK
		}}))
	}))
	if err != nil {
		t.Fatal(err)
	}
	return s, &tr
}

// getPage requests a page, and checks its text. It keeps the connection.
func getPage(t *testing.T, url, want string) {
	t.Helper()
	resp, err := stdhttp.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != want || err != nil {
		t.Errorf("%s: %q, %v, want %q", url, body, err, want)
	}
}

// TestServerJoins has servers of ws and h1 that join one of h1 by its name. Each receives
// the requests of its kind until it ends.
func TestServerJoins(t *testing.T) {
	types := []*policy.StreamType{
		{Name: "host", Protocol: policy.ProtocolH1, Endpoint: "127.0.0.1"},
		{Name: "talk", Protocol: policy.ProtocolWS, Endpoint: "!host", HTTP: &policy.HTTP{WSSubprotocol: "talk"}},
		{Name: "page", Protocol: policy.ProtocolH1, Endpoint: "!host"},
		{Name: "bytes", Protocol: policy.ProtocolRaw, Endpoint: "!host"},
		{Name: "secret", Protocol: policy.ProtocolH1, Endpoint: "!host", TLS: true},
		{Name: "lost", Protocol: policy.ProtocolH1, Endpoint: "!none"},
	}
	for _, st := range types {
		st.Server = true
		if st.HTTP == nil {
			st.HTTP = new(policy.HTTP)
		}
	}
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{ws.New(ws.Server), http.New(http.Server), raw.New(raw.Server)}}, types...)
	open := func(name string) (*runtime.Stream, *teststream.Trace) { return openServer(t, c, name) }
	host, hostTrace := open("host")
	url := "http://" + host.Addr().String()
	get := func(want string) { t.Helper(); getPage(t, url, want) }
	defer stdhttp.DefaultClient.CloseIdleConnections()
	dial := func() (*websocket.Conn, error) {
		conn, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{"talk"}})
		if err == nil {
			t.Cleanup(func() { conn.CloseNow() })
		}
		return conn, err
	}
	for _, name := range []string{"lost", "bytes", "secret"} {
		if _, err := c.NewStream(name, runtime.Handlers{}); !errors.Is(err, runtime.ErrEndpoint) {
			t.Errorf("%s: %v", name, err)
		}
	}
	get("host")
	if _, err := dial(); err == nil {
		t.Error("the host accepts a WebSocket")
	}
	talk, _ := open("talk")
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, conn, "hello"); got != "hello" {
		t.Errorf("%q", got)
	}
	get("host")
	page, pageTrace := open("page")
	if page.Addr().String() != host.Addr().String() {
		t.Errorf("the guest listens on %v", page.Addr())
	}
	get("page")
	get("page")
	done := make(chan error, 1)
	go func() { done <- talk.Shutdown(context.Background()) }()
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("Shutdown of the guest: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := dial(); err == nil {
		t.Error("a guest that has left accepts a WebSocket")
	}
	get("page")
	page.Destroy()
	pageTrace.AwaitEnd(t, "DES")
	get("host")
	_, pageTrace = open("page")
	get("page")
	host.Destroy()
	hostTrace.AwaitEnd(t, "DES")
	pageTrace.AwaitEnd(t, "DES")
	pageTrace.Want(t, "CRE DES")
}
