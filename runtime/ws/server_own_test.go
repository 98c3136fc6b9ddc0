package ws_test

import (
	"context"
	"io"
	"net"
	stdhttp "net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// forward is the handler of docs/servers.md.
func forward(addr net.Addr) stdhttp.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "stream"})
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport: &stdhttp.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
		}},
	}
}

// TestOwnServer has a server of the program that delegates some paths to a streamtype, by
// forwarding requests and by a handler that streamtypes join.
func TestOwnServer(t *testing.T) {
	types := []*policy.StreamType{
		{Name: "stream", Protocol: policy.ProtocolH1, Endpoint: "127.0.0.1", HTTP: &policy.HTTP{WSSubprotocol: "talk"}},
		{Name: "own", Protocol: policy.ProtocolH1, Endpoint: "127.0.0.1", HTTP: &policy.HTTP{}},
		{Name: "joins", Protocol: policy.ProtocolWS, Endpoint: "!own", HTTP: &policy.HTTP{WSSubprotocol: "talk"}},
	}
	for _, st := range types {
		st.Server, st.Metadata = true, []policy.Metadata{{Name: "path"}, {Name: "method"}}
	}
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{ws.New(ws.Server), http.New(http.Server)}}, types...)
	mux := stdhttp.NewServeMux()
	mux.HandleFunc("/own", func(w stdhttp.ResponseWriter, r *stdhttp.Request) { io.WriteString(w, "own") })
	handler, err := c.Handle("own", mux)
	if err != nil {
		t.Fatal(err)
	}
	openServer(t, c, "joins")
	stream, _ := openServer(t, c, "stream")
	mux.Handle("/stream/", forward(stream.Addr()))
	server := httptest.NewServer(mux)
	defer server.Close()
	defer stdhttp.DefaultClient.CloseIdleConnections()
	getPage(t, server.URL+"/own", "own")
	getPage(t, server.URL+"/stream/page", "stream /stream/page")
	getPage(t, "http://"+handler.Addr().String()+"/own", "own")
	for _, at := range []string{server.URL + "/stream/talk", "http://" + handler.Addr().String()} {
		conn, _, err := websocket.Dial(t.Context(), at, &websocket.DialOptions{Subprotocols: []string{"talk"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.CloseNow() })
		if got := exchange(t, conn, "hello"); got != "hello" {
			t.Errorf("%s: %q", at, got)
		}
	}
}
