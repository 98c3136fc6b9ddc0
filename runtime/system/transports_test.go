package system_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// TestSwapTransports: streams of each protocol, some at work and some connected,
// while policies replace one another and are laid over one another: those of a
// streamtype that stays the same keep their connection, the others connect anew.
func TestSwapTransports(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, err := websocket.Accept(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.CloseNow()
			for {
				kind, msg, err := conn.Read(r.Context())
				if err != nil || conn.Write(r.Context(), kind, msg) != nil {
					return
				}
			}
		}
		io.WriteString(w, r.URL.Path)
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	protocols := []string{"h1", "h2", "ws"}
	text := func(n int) string {
		s := ""
		for _, p := range protocols {
			for name, url := range map[string]string{p + "_same": "same", p + "_moved": fmt.Sprint("moved/", n)} {
				if s != "" {
					s += ",\n"
				}
				method := `"http_method": "GET", `
				if p == "ws" {
					method = ""
				}
				s += fmt.Sprintf(`{ %q: { "endpoint": "127.0.0.1", "port": %s, "protocol": %q, %s"http_url": %q, "retry": "r" } }`,
					name, portOf(server.URL), p, method, url)
			}
		}
		return `{ "retry": [ { "r": { "backoff": [ 1 ], "conceal": 65535, "svalidping": 30, "svalidhup": 35 } } ], "s": [ ` + s + ` ] }`
	}
	c, err := runtime.NewContext(policy(t, text(0)).Policy, runtime.Options{
		Transports: []transport.Transport{sshttp.New(), ws.New()},
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	var stop atomic.Bool
	var wg sync.WaitGroup
	var connections [2]atomic.Int64 // of streams of ws: same, moved
	for _, p := range protocols {
		for i, name := range []string{p + "_same", p + "_moved"} {
			for range 5 {
				if p == "ws" {
					var handlers runtime.Handlers
					handlers.State = func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
						switch state {
						case runtime.StateCreating:
							s.Connect()
						case runtime.StateConnected:
							connections[i].Add(1)
						case runtime.StateDestroying:
							if !stop.Load() && s.Err() == runtime.ErrPolicyChanged {
								c.NewStream(name, handlers)
							}
						}
						return runtime.OK
					}
					if _, err := c.NewStream(name, handlers); err != nil {
						t.Fatal(err)
					}
					continue
				}
				wg.Go(func() {
					for !stop.Load() {
						r, err := c.Fetch(t.Context(), name)
						switch {
						case err != nil && (i == 0 || !errors.Is(err, runtime.ErrPolicyChanged)):
							t.Errorf("%s: %v", name, err)
							return
						case err == nil && i == 0 && string(r.Body) != "/same":
							t.Errorf("%s: %q", name, r.Body)
						}
						time.Sleep(time.Millisecond)
					}
				})
			}
		}
	}
	for i := 1; i <= 40; i++ {
		p := policy(t, text(i)).Policy
		set := c.SetPolicy
		if i%3 == 0 {
			set = c.Overlay
		}
		if err := set(p); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	for connections[0].Load() < 5 {
		time.Sleep(time.Millisecond)
	}
	stop.Store(true)
	wg.Wait()
	if n := connections[0].Load(); n != 5 {
		t.Errorf("%d connections of 5 streams that have not changed", n)
	}
	if n := connections[1].Load(); n <= 5 {
		t.Errorf("%d connections of streams that have changed", n)
	}
}
