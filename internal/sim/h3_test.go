package sim

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime/h3"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// h3Protocol is requests and responses over HTTP/3.
func h3Protocol(name string, hosts, streams int) *protocol {
	pr := httpProtocol(name, policy.ProtocolH3, hosts, streams, true)
	pr.faults, pr.free = ofDatagramHost, true
	pr.transports = func(w *world) []transport.Transport {
		return []transport.Transport{h3.NewWith(h3.Options{ListenPacket: w.net.udp.listen, LookupNetIP: w.net.udp.lookup})}
	}
	pr.serve = serveH3
	return pr
}

// An h3Server is the peer of a host. It restarts on the same socket.
type h3Server struct {
	w      *world
	h      *host
	socket *socket

	mu      sync.Mutex
	key     int            // index of the key of its stateless resets
	run     *h3Run         // nil while the server is down
	ends    sync.WaitGroup // of earlier runs
	stopped bool
}

// An h3Run is a server between two restarts.
type h3Run struct {
	transport *quic.Transport
	listener  *quic.EarlyListener
	server    *http3.Server
	serving   sync.WaitGroup

	mu    sync.Mutex
	conns map[*quic.Conn]bool
}

func serveH3(w *world, h *host) {
	s := &h3Server{w: w, h: h, socket: w.net.udp.serve(h)}
	s.startLocked()
	h.onFault = s.onFault
	w.stops = append(w.stops, s.stop)
}

var errRefuses = errors.New("the server refuses connections")

// startLocked starts a run.
func (s *h3Server) startLocked() {
	if s.run != nil || s.stopped {
		return
	}
	s.socket.forget()
	key := quic.StatelessResetKey(sha256.Sum256(fmt.Append(nil, s.h.name, s.key)))
	s.run = &h3Run{transport: &quic.Transport{Conn: s.socket, StatelessResetKey: &key}}
	d := fork(s.w.seed, "quic", s.h.name)
	if d.oneIn(4) {
		s.run.transport.VerifySourceAddress = func(net.Addr) bool { return true }
	}
	s.listenLocked()
}

// listenLocked starts accepting connections.
func (s *h3Server) listenLocked() {
	r := s.run
	d := fork(s.w.seed, "quic config", s.h.name)
	config := &quic.Config{MaxIdleTimeout: 20 * time.Second}
	if d.oneIn(2) { // it does not notice that a client has gone
		config.MaxIdleTimeout = time.Hour
	}
	accepts := config.Clone()
	config.GetConfigForClient = func(*quic.ClientInfo) (*quic.Config, error) {
		if s.w.plan.active(time.Now(), s.h.name, refuse) != nil {
			return nil, errRefuses
		}
		return accepts, nil
	}
	r.listener = teststream.Must(r.transport.ListenEarly(http3.ConfigureTLSConfig(s.w.serverTLS(s.h)), config))
	r.conns = map[*quic.Conn]bool{}
	r.server = &http3.Server{
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) { s.w.handle(s.h, rw, req) }),
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.conns[c] = true
			s.w.moment(s.h.name, dialed, time.Now())
			return ctx
		},
	}
	server, listener := r.server, r.listener
	r.serving.Go(func() { server.ServeListener(listener) })
}

// onFault applies a fault of the network to the server.
func (s *h3Server) onFault(e *event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.kind {
	case rebind:
		s.w.net.udp.rebind(s.h.name)
	case vanish, restart, restartLost:
		if e.kind == restartLost || e.kind == vanish && e.number%2 == 0 {
			s.key++
		}
		if s.run != nil {
			s.run.end(e.kind == restart, &s.ends)
			s.run = nil
		}
		time.AfterFunc(time.Until(e.end())+time.Millisecond, func() {
			if s.w.plan.active(time.Now(), s.h.name, vanish, restart, restartLost) == nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.startLocked()
			}
		})
	case reset:
		if s.run != nil {
			s.run.mu.Lock()
			defer s.run.mu.Unlock()
			for c := range s.run.conns {
				c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeInternalError), "")
			}
			clear(s.run.conns)
		}
	case hangUp:
		if r := s.run; r != nil { // requests in progress may end
			r.listener.Close()
			r.serving.Wait()
			server := r.server
			s.ends.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				server.Shutdown(ctx)
			})
			s.listenLocked()
		}
	}
}

// end ends a run. A polite end notifies the clients.
func (r *h3Run) end(polite bool, ends *sync.WaitGroup) {
	r.listener.Close()
	if polite {
		r.mu.Lock()
		for c := range r.conns {
			c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		}
		r.mu.Unlock()
	}
	r.transport.Close()
	r.serving.Wait()
	ends.Go(func() { r.server.Close() })
}

func (s *h3Server) stop() {
	s.mu.Lock()
	s.stopped = true
	r := s.run
	s.run = nil
	s.mu.Unlock()
	if r != nil {
		r.end(true, &s.ends)
	}
	s.ends.Wait()
	s.socket.Close()
}
