// Counter serves a page and, on a WebSocket, a number that it counts up.
package main

import (
	"context"
	_ "embed"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

//go:embed index.html
var page string

// client returns the handlers of a client, for a request or a WebSocket.
func client(*runtime.Stream) runtime.Handlers {
	n := 0
	return runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			switch state {
			case runtime.StateServerTxn:
				s.Respond("index.html", time.Time{}, strings.NewReader(page))
			case runtime.StateServerUpgrade, runtime.StateTimeout:
				s.StartTimeout(time.Second / 10)
				s.RequestTx()
			}
			return runtime.OK
		},
		Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			n++
			return len(strconv.AppendInt(buf[:0], int64(n), 10)), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
		},
	}
}

func main() {
	p, err := sspolicy.Load(os.Args[1], sspolicy.Options{})
	if err != nil {
		log.Fatal(err)
	}
	c, err := runtime.NewContext(p.Policy, runtime.Options{
		Transports: []transport.Transport{http.New(http.Server), ws.New(ws.Server)},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := c.Serve(ctx, "counter", runtime.Handlers{}, runtime.WithClients(client)); err != nil {
		log.Fatal(err)
	}
}
