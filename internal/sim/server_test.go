package sim

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// serverProtocol is a protocol whose peers are streams of servers. handlers returns the
// talk of an accepted stream.
func serverProtocol(of *protocol, st func() *policy.StreamType, handlers func(*serverStream) serverTalk) *protocol {
	pr := *of
	pr.name += "+server"
	pr.servers = true
	pr.serve = func(w *world, h *host) {
		s := &server{w: w, h: h, streamType: st, talk: handlers}
		s.c = teststream.Must(runtime.NewContext(s.policy(false), runtime.Options{
			Transports: []transport.Transport{raw.New(raw.Server), sshttp.New(sshttp.Server), ws.New(ws.Server)},
			Logger:     slog.New(logHandler{w}),
		}))
		h.server = s
		s.listen()
		w.stops = append(w.stops, s.stop)
	}
	return &pr
}

// rawServer, httpServer and wsServer return streamtypes of servers.
func rawServer() *policy.StreamType { return &policy.StreamType{Protocol: policy.ProtocolRaw} }

func httpServer(p policy.Protocol) func() *policy.StreamType {
	return func() *policy.StreamType {
		return &policy.StreamType{Protocol: p, HTTP: &policy.HTTP{}, Metadata: []policy.Metadata{
			{Name: "method"}, {Name: "path"}, {Name: "auth"}, {Name: "size"}, {Name: "n", Header: "x-n:"},
			{Name: "got", Header: "x-got:"}, {Name: "retry", Header: "retry-after:"},
		}}
	}
}

func wsServer() *policy.StreamType {
	return &policy.StreamType{Protocol: policy.ProtocolWS, HTTP: &policy.HTTP{WSBinary: true}, Metadata: []policy.Metadata{
		{Name: "method"}, {Name: "path"}, {Name: "auth"},
	}}
}

// A server is a peer that consists of streams of the runtime. It always has a listener, or
// will have one soon.
type server struct {
	w          *world
	h          *host
	c          *runtime.Context
	streamType func() *policy.StreamType
	talk       func(*serverStream) serverTalk

	mu        sync.Mutex
	listener  *runtime.Stream
	listeners int // number of listeners created
	versions  int // number of policies with a changed streamtype
	clients   []*serverStream
	accepted  int // number of accepted streams
	ending    bool
}

// policy returns the policy of the server. other changes the streamtype.
func (s *server) policy(other bool) *policy.Policy {
	st := s.streamType()
	st.Name, st.Server = "server", true
	s.mu.Lock()
	defer s.mu.Unlock()
	if other {
		s.versions++
	}
	st.Timeout = time.Duration(1+s.versions) * time.Minute
	return &policy.Policy{StreamTypes: []*policy.StreamType{st}}
}

// listen creates a listener.
func (s *server) listen() {
	s.mu.Lock()
	s.listeners++
	number, ending := s.listeners, s.ending
	s.mu.Unlock()
	if ending {
		return
	}
	l, err := s.c.NewStream("server", runtime.Handlers{State: s.onState(number)},
		runtime.WithListener(s.w.net.listen(s.h)),
		runtime.WithClients(func(*runtime.Stream) runtime.Handlers { return s.accept(number) }))
	if err != nil {
		s.find("NewStream of a listener: %v", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener = l
}

func (s *server) find(format string, args ...any) {
	s.w.find([]string{s.h.name}, format, args...)
}

// onState returns the State callback of a listener.
func (s *server) onState(number int) func(*runtime.Stream, runtime.State, uint32) runtime.Result {
	last := ""
	return func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		name := teststream.Name(state)
		s.w.tr.note(s.h.name, "listener %d %s", number, name)
		if sequence := last + name; sequence != "CRE" && sequence != "CREDES" {
			s.find("states of a listener: %s", sequence)
		}
		last = name
		if state != runtime.StateDestroying {
			return runtime.OK
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, k := range s.clients {
			if k.listener == number {
				s.find("a listener ends before client %d", k.number)
			}
		}
		d := fork(s.w.seed, "listen", s.h.name, number)
		now := time.Now()
		time.AfterFunc(d.at(now, d.ms(10, 1000)).Sub(now), s.listen)
		return runtime.OK
	}
}

// do executes an event of the plan.
func (s *server) do(e *event) {
	s.mu.Lock()
	l := s.listener
	var client *runtime.Stream
	if n := len(s.clients); n > 0 {
		client = s.clients[e.arg%n].s
	}
	s.mu.Unlock()
	switch e.kind {
	case destroyClient:
		if client != nil {
			client.Destroy()
		}
	case destroyListener:
		l.Destroy()
	case drainListener:
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(e.arg)*time.Millisecond)
			defer cancel()
			err := l.Shutdown(ctx)
			s.w.tr.note(s.h.name, "Shutdown: %v", err)
			if err != nil && ctx.Err() == nil {
				s.find("Shutdown of a listener: %v", err)
			}
		}()
	case serverPolicy:
		other := e.arg%3 != 0
		gone := l.Err() != nil
		if err := s.c.SetPolicy(s.policy(other)); err != nil {
			s.find("SetPolicy: %v", err)
		}
		if !other && !gone && l.Err() != nil {
			s.find("the same policy ends a listener: %v", l.Err())
		}
	}
}

// stop ends the server, and checks that nothing is left.
func (s *server) stop() {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.c.Shutdown(ctx); err != nil {
		s.find("Shutdown of the server: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) > 0 {
		s.find("%d of %d accepted streams have not ended", len(s.clients), s.accepted)
	}
}

// accept returns the handlers of an accepted stream.
func (s *server) accept(listener int) runtime.Handlers {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted++
	k := &serverStream{of: s, listener: listener, number: s.accepted}
	k.talk = s.talk(k)
	return runtime.Handlers{State: k.onState, Rx: k.onRx, Tx: k.onTx}
}
