package sim

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// serverProtocol is rawProtocol with streams of a server as the peers.
func serverProtocol(name string, streams int) *protocol {
	pr := rawProtocol(name, streams, false)
	pr.serve = serveStreams
	return pr
}

// serveStreams starts a server of the runtime, whose streams send back what they receive.
func serveStreams(w *world, h *host) {
	st := &policy.StreamType{Name: "server", Protocol: policy.ProtocolRaw, Server: true, Endpoint: "!sim"}
	c := teststream.Must(runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{st}}, runtime.Options{
		Transports: []transport.Transport{raw.New(raw.Server)},
		Logger:     slog.New(logHandler{w}),
		Listeners:  map[string]net.Listener{"sim": w.net.listen(h)},
	}))
	clients := &accepted{w: w, host: h.name}
	teststream.Must(c.NewStream("server", runtime.Handlers{}, runtime.WithClients(clients.handlers)))
	w.stops = append(w.stops, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := c.Shutdown(ctx); err != nil {
			w.find([]string{h.name}, "Shutdown of the server: %v", err)
		}
		clients.mu.Lock()
		defer clients.mu.Unlock()
		if clients.begun != clients.ended {
			w.find([]string{h.name}, "%d clients were accepted, and %d have ended", clients.begun, clients.ended)
		}
	})
}

// accepted are the clients of a server.
type accepted struct {
	w    *world
	host string

	mu           sync.Mutex
	begun, ended int
}

// An acceptedClient is one of them.
type acceptedClient struct {
	of *accepted

	mu      sync.Mutex // locked by a callback
	states  string     // short names, in order
	pending []byte     // to send back
}

// sequences are the states that a client of a server may go through.
var sequences = map[string]bool{
	"": true, "CRE ": true, "CRE CNG ": true, "CRE CNG CON ": true, "CRE CNG CON DIS ": true,
	"CRE CNG CON DIS DES ": true, "CRE CNG DES ": true, "CRE DES ": true,
}

func (a *accepted) handlers(*runtime.Stream) runtime.Handlers {
	k := &acceptedClient{of: a}
	return runtime.Handlers{State: k.onState, Rx: k.onRx, Tx: k.onTx}
}

// enter begins a callback.
func (k *acceptedClient) enter() (leave func()) {
	if !k.mu.TryLock() {
		k.of.w.find([]string{k.of.host}, "callbacks of a client overlap")
		k.mu.Lock()
	}
	return k.mu.Unlock
}

func (k *acceptedClient) onState(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
	defer k.enter()()
	k.states += teststream.Name(state) + " "
	if !sequences[k.states] {
		k.of.w.find([]string{k.of.host}, "states of a client: %s", k.states)
	}
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	switch state {
	case runtime.StateCreating:
		k.of.begun++
	case runtime.StateDestroying:
		k.of.ended++
	}
	return runtime.OK
}

func (k *acceptedClient) onRx(s *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
	defer k.enter()()
	k.pending = append(k.pending, buf...)
	s.RequestTx()
	return runtime.OK
}

func (k *acceptedClient) onTx(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
	defer k.enter()()
	n := copy(buf, k.pending)
	if k.pending = k.pending[n:]; len(k.pending) > 0 {
		s.RequestTx()
	}
	return n, 0, runtime.OK
}
