package thirdparty

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// TestGorilla exchanges messages with gorilla/websocket, with a subprotocol, and
// with and without compression. Its server sends fragments of 512 bytes.
func TestGorilla(t *testing.T) {
	var messages []string
	for _, n := range []int{0, 1, 125, 126, 511, 512, 513, 4000, 4001, 4096, 16384, 16385, 65535, 65536, 100_000} {
		messages = append(messages, strings.Repeat("compress me, ", n/13+1)[:n])
	}
	for _, deflate := range []bool{false, true} {
		for _, binary := range []bool{false, true} {
			t.Run(fmt.Sprintf("deflate=%v,binary=%v", deflate, binary), func(t *testing.T) {
				kinds := make(chan int, len(messages))
				addr := serve(t, false, echo(websocket.Upgrader{Subprotocols: []string{"b"}, EnableCompression: deflate, ReadBufferSize: 512, WriteBufferSize: 512}, kinds))
				var options []ws.Option
				if deflate {
					options = append(options, ws.WithDeflate())
				}
				c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{ws.New(options...)}}, &policy.StreamType{
					Name: "s", Protocol: policy.ProtocolWS, Endpoint: addr.Addr().String(), Port: addr.Port(),
					HTTP: &policy.HTTP{WSSubprotocol: "a,b", WSBinary: binary}})
				conn, err := c.Open(t.Context(), "s")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				go func() {
					for _, m := range messages {
						io.WriteString(conn, m)
					}
				}()
				wantKind := websocket.TextMessage
				if binary {
					wantKind = websocket.BinaryMessage
				}
				i := 0
				for msg, err := range conn.Messages() {
					if err != nil || string(msg) != messages[i] {
						t.Fatalf("message %d of %d bytes came back as one of %d, %v", i, len(messages[i]), len(msg), err)
					}
					if kind := <-kinds; kind != wantKind {
						t.Errorf("message %d is of type %d, want %d", i, kind, wantKind)
					}
					if i++; i == len(messages) {
						break
					}
				}
				if i != len(messages) {
					t.Errorf("%d messages came back, want %d", i, len(messages))
				}
			})
		}
	}
}

// echo returns a handler that sends each message back, and its type to kinds.
func echo(u websocket.Upgrader, kinds chan<- int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := u.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, r, err := c.NextReader()
			if err != nil {
				return
			}
			kinds <- kind
			w, err := c.NextWriter(kind)
			if err != nil {
				return
			}
			io.Copy(w, r)
			w.Close()
		}
	}
}
