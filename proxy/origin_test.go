package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// An origin is the servers of the streams in the traces.
type origin struct {
	http, raw, refused int // ports
}

// newOrigin starts the servers that the recorded links used.
func newOrigin(t testing.TB) *origin {
	mux := http.NewServeMux()
	text := func(w http.ResponseWriter, ctype string) {
		w.Header().Set("srv", "probe-origin")
		w.Header().Set("content-type", ctype)
	}
	mux.HandleFunc("/body", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		text(w, "application/octet-stream")
		w.Header().Set("content-length", strconv.Itoa(n))
		io.WriteString(w, strings.Repeat("0123456789", n/10+1)[:n])
	})
	mux.HandleFunc("/mintest", func(w http.ResponseWriter, r *http.Request) {
		text(w, "application/octet-stream")
		w.Header().Set("test-custom-header", "xp1")
		io.WriteString(w, strings.Repeat("0123456789", 1000))
	})
	mux.HandleFunc("/chunked", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		text(w, "text/plain")
		for ; n > 0; n -= 1000 {
			io.WriteString(w, strings.Repeat("x", 1000))
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/code", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("c"))
		text(w, "application/octet-stream")
		w.WriteHeader(n)
		io.WriteString(w, "status body")
	})
	mux.HandleFunc("/abort", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("content-type", "text/plain")
		w.Header().Set("content-length", "100")
		io.WriteString(w, "hello")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("POST /post", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		text(w, "text/plain")
		fmt.Fprintf(w, "got %d bytes", n)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"lws-minimal"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, message); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return &origin{
		http: server.Listener.Addr().(*net.TCPAddr).Port,
		raw: int(testserver.ServeTCP(t, func(c net.Conn) {
			buf := make([]byte, 4096)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				if _, err := c.Write(buf[:n]); err != nil {
					return
				}
			}
		}).Port()),
		refused: int(testserver.Refused(t).Port()),
	}
}

// streamtypes are the streamtypes of the recorded links.
func (o *origin) streamtypes() []*policy.StreamType {
	retry := &policy.Retry{Backoff: []time.Duration{10 * time.Millisecond}, Conceal: 3}
	h1 := func(name, method, url string, items ...policy.Metadata) *policy.StreamType {
		return &policy.StreamType{
			Name: name, Endpoint: "127.0.0.1", Port: uint16(o.http), Protocol: policy.ProtocolH1, Opportunistic: true,
			Metadata: items, HTTP: &policy.HTTP{Method: method, URL: url}, Retry: retry,
		}
	}
	path, uptag := policy.Metadata{Name: "path"}, policy.Metadata{Name: "uptag", Header: "x-up:"}
	srv, ctype := policy.Metadata{Name: "srv", Header: "srv:"}, policy.Metadata{Name: "ctype", Header: "content-type:"}
	get := h1("get", "GET", "${path}", path, uptag, srv, ctype)
	get.ClientBuflen = 40000
	get.HTTP.RespMap = []policy.StatusState{{Status: 530, State: 1530}}
	perf := h1("getperf", "GET", "${path}", path, srv)
	perf.Perf = true
	ws := h1("spam", "", "echo")
	ws.Protocol, ws.HTTP.WSSubprotocol, ws.HTTP.WSBinary = policy.ProtocolWS, "lws-minimal", true
	nailed := *ws
	nailed.Name, nailed.NailedUp = "nailed", true
	ride1, ride2 := h1("ride1", "POST", "post"), h1("ride2", "POST", "post")
	ride1.HTTP.Multipart, ride1.HTTP.MultipartName, ride1.Rideshare = true, "one", "ride2"
	ride2.HTTP.Multipart, ride2.HTTP.MultipartName = true, "two"
	refused := h1("refused", "GET", "")
	refused.Port = uint16(o.refused)
	long := h1(strings.Repeat("s", 31), "GET", "body?n=1")
	server := h1("srvhttp", "", "")
	server.Server = true
	return []*policy.StreamType{
		get, perf, ws, &nailed, ride1, ride2, refused, long, server,
		h1("mintest", "GET", "mintest", ctype, uptag, policy.Metadata{Name: "test", Header: "test-custom-header:"}, srv),
		h1("minpost", "POST", "post", ctype, srv),
		h1("h2post", "POST", "post", ctype, srv),
		{Name: "rawecho", Endpoint: "127.0.0.1", Port: uint16(o.raw), Protocol: policy.ProtocolRaw, Opportunistic: true},
	}
}
