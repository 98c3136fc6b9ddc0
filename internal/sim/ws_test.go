package sim

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// wsProtocol is messages that are echoed.
func wsProtocol(name string, streams int, secure bool) *protocol {
	return &protocol{
		name: name, hosts: streams, streams: streams, window: 4 << 10,
		transports: func(*world) []transport.Transport { return []transport.Transport{ws.New()} },
		streamType: func(w *world, i int) *policy.StreamType {
			st := newStreamType(w, i, policy.ProtocolWS)
			st.HTTP = &policy.HTTP{URL: "/" + st.Name, WSBinary: true, WSPrioritizeReads: i%2 == 1, AuthHeader: "authorization:"}
			st.Auth = &policy.Auth{Name: "auth", StreamType: st.Name, Blob: uint8(i % tokens)}
			if secure {
				w.secure(st)
			}
			return st
		},
		serve: serveWS(secure),
		talk:  func(p *program) talk { return &wsTalk{p: p} },
	}
}

// serveWS returns a function that starts a server.
func serveWS(secure bool) func(w *world, h *host) {
	return func(w *world, h *host) {
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		s := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			wg.Add(1)
			defer wg.Done()
			w.handleWS(ctx, h, rw, r)
		})}
		ln := w.net.listen(h)
		if secure {
			s.TLSConfig = w.serverTLS(h, "http/1.1")
			wg.Go(func() { s.ServeTLS(ln, "", "") })
		} else {
			wg.Go(func() { s.Serve(ln) })
		}
		w.stops = append(w.stops, func() { cancel(); s.Close(); wg.Wait() })
	}
}

// handleWS echoes messages.
func (w *world) handleWS(ctx context.Context, h *host, rw http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	var i int
	fmt.Sscanf(name, "s%d", &i)
	if i >= len(w.programs) || w.programs[i].host != h.name {
		w.find([]string{h.name}, "a request that no stream makes: %s", r.URL)
		return
	}
	p := w.programs[i]
	w.checkToken(p, r.Header.Get("Authorization"), 0)
	number := p.talk.(interface{ connection() int }).connection()
	d := fork(w.seed, "ws", name, number)
	now := time.Now()
	if w.plan.active(now, h.name, peerSilent) != nil {
		select {
		case <-time.After(time.Until(d.at(now, 5*time.Minute))):
		case <-r.Context().Done():
		case <-ctx.Done():
		}
		return
	}
	if w.plan.active(now, h.name, peerBad) != nil && d.oneIn(3) {
		if d.oneIn(2) {
			rw.Header().Set("Retry-After", fmt.Sprint(int(retryAfter/time.Second)))
		}
		rw.WriteHeader([]int{404, 503, 200}[d.IntN(3)])
		return
	}
	c, err := websocket.Accept(rw, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.CloseNow()
	c.SetReadLimit(-1)
	w.tr.note(h.name, "ws %s", name)
	for {
		kind, message, err := c.Read(ctx)
		if err != nil {
			return
		}
		if t, ok := p.talk.(*proxiedTalk); ok {
			if _, _, whole := parseNumbered(message); !whole {
				// The library treats the end of the connection as that of the message.
				if _, _, err := c.Read(ctx); err != nil {
					return
				}
			}
			t.count(number, message, 0)
		}
		now := time.Now()
		if e := w.plan.active(now, h.name, peerSlow, peerReads, peerSilent); e != nil {
			until := d.at(now, d.ms(1, max(e.arg, 3000)))
			if e.kind == peerSilent {
				until = d.at(e.end(), d.ms(1, 100))
			}
			time.Sleep(until.Sub(now))
		}
		if w.plan.active(time.Now(), h.name, peerBad) != nil {
			switch d.IntN(8) {
			case 0:
				return
			case 1:
				c.Close(websocket.StatusGoingAway, "bye")
				return
			case 2:
				wg.Go(func() { c.Ping(ctx) }) // it waits for the PONG, which Read receives
			}
		}
		if c.Write(ctx, kind, message) != nil {
			return
		}
	}
}

// A wsTalk sends messages, and expects them back on the same connection.
type wsTalk struct {
	p        *program
	n        int // number of the last message sent
	size     int
	sent     int   // bytes of it sent
	waiting  []int // numbers of the messages not yet echoed
	sizes    []int // their sizes
	received int   // bytes of the first of these
	within   bool  // the echo of a message has begun

	mu     sync.Mutex
	served int // number of connections
}

// connection returns the number of a connection that the peer has accepted.
func (t *wsTalk) connection() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.served++
	return t.served
}

func (t *wsTalk) create(*runtime.Stream) {}
func (t *wsTalk) begin(*runtime.Stream)  {}
func (t *wsTalk) connected() {
	t.sent, t.size, t.received, t.waiting, t.sizes, t.within = 0, 0, 0, nil, nil, false
}
func (t *wsTalk) announce() int { return 0 }

func (t *wsTalk) tx(buf []byte) (int, runtime.Flags, runtime.Result) {
	var flags runtime.Flags
	if t.sent == t.size {
		t.n++
		d := fork(t.p.w.seed, "message", t.p.name, t.n)
		t.sent, t.size = 0, d.IntN(2000)
		if d.oneIn(10) {
			t.size = d.IntN(maxPayload)
		}
		flags |= runtime.FlagSOM
		t.waiting, t.sizes = append(t.waiting, t.n), append(t.sizes, t.size)
	}
	n := copy(buf, payload(t.p.name, t.n, t.sent, t.size))
	if t.sent += n; t.sent == t.size {
		flags |= runtime.FlagEOM
	}
	return n, flags, runtime.OK
}

func (t *wsTalk) rx(buf []byte, flags runtime.Flags) (bool, string) {
	if len(t.waiting) == 0 {
		return false, "a message comes back that was not sent"
	}
	n := t.waiting[0]
	if (flags&runtime.FlagSOM != 0) == t.within {
		return false, fmt.Sprintf("flags %d after %d bytes of message %d", flags, t.received, n)
	}
	t.within = flags&runtime.FlagEOM == 0
	if mismatch(buf, t.p.name, n, t.received) {
		return false, fmt.Sprintf("message %d does not come back as it was sent, after %d bytes", n, t.received)
	}
	if t.received += len(buf); t.within {
		return false, ""
	}
	if t.received != t.sizes[0] {
		return false, fmt.Sprintf("message %d comes back with %d bytes of %d", n, t.received, t.sizes[0])
	}
	t.waiting, t.sizes, t.received = t.waiting[1:], t.sizes[1:], 0
	return true, ""
}

func (t *wsTalk) verdict(bool) (bool, string) { return false, "a verdict over ws" }
func (t *wsTalk) check() string               { return "" }
