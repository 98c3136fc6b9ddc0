package system_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
)

// echo answers requests with their path, and echoes messages of WebSockets.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		io.WriteString(w, r.URL.Path)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil || conn.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

// TestSwapTransports replaces and overlays the policy while streams of each protocol
// work or are connected. Streams of an unchanged streamtype keep their connection;
// others connect again.
func TestSwapTransports(t *testing.T) { synctest.Test(t, testSwapTransports) }

func testSwapTransports(t *testing.T) {
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
				s += fmt.Sprintf(`{ %q: { "endpoint": "live", "port": 80, "protocol": %q, %s"http_url": %q, "retry": "r" } }`, name, p, method, url)
			}
		}
		return `{ "retry": [ { "r": { "backoff": [ 1 ], "conceal": 65535, "svalidping": 30, "svalidhup": 35 } } ], "s": [ ` + s + ` ] }`
	}
	c := newBench(t, compile(t, text(0)), echo)

	var stop atomic.Bool
	var wg sync.WaitGroup
	var connections [2]atomic.Int64 // of ws_same and ws_moved
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
					teststream.Must(c.NewStream(name, handlers))
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
		p := compile(t, text(i))
		set := c.SetPolicy
		if i%3 == 0 {
			set = c.Overlay
		}
		if err := set(p); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop.Store(true)
	wg.Wait()
	synctest.Wait()
	if n := connections[0].Load(); n != 5 {
		t.Errorf("%d connections of 5 unchanged streams", n)
	}
	if n := connections[1].Load(); n <= 5 {
		t.Errorf("%d connections of 5 changed streams", n)
	}
}
