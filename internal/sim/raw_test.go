package sim

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// rawProtocol is bytes that are echoed.
func rawProtocol(name string, streams int, secure bool) *protocol {
	return &protocol{
		name: name, hosts: streams, streams: streams,
		transports: func(*world) []transport.Transport { return []transport.Transport{raw.New(raw.TLS)} },
		streamType: func(w *world, i int) *policy.StreamType {
			st := newStreamType(w, i, policy.ProtocolRaw)
			if secure {
				w.secure(st)
			}
			return st
		},
		serve: serveEcho(secure),
		talk:  func(p *program) talk { return &rawTalk{p: p} },
	}
}

// serveEcho returns a function that starts an echo server.
func serveEcho(secure bool) func(w *world, h *host) {
	return func(w *world, h *host) {
		var config *tls.Config
		if secure {
			config = w.serverTLS(h)
		}
		w.serve(h, config, func(c net.Conn, number int) { w.echo(h, c, number) })
	}
}

// serve starts a server, over TLS if config is not nil. It calls handle in a goroutine for
// each connection, with the number of the connection.
func (w *world) serve(h *host, config *tls.Config, handle func(c net.Conn, number int)) {
	ln := w.net.listen(h)
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for n := 1; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				served := c
				if config != nil {
					served = tls.Server(c, config)
				}
				handle(served, n)
				served.Close()
				mu.Lock()
				delete(conns, c)
				mu.Unlock()
			})
		}
	})
	w.stops = append(w.stops, func() {
		ln.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// echo serves a connection.
func (w *world) echo(h *host, c net.Conn, number int) {
	d := fork(w.seed, "echo", h.name, number)
	buf := make([]byte, 32<<10)
	for {
		size := len(buf)
		if w.plan.active(time.Now(), h.name, peerReads) != nil {
			size = 100 + d.IntN(2000)
			now := time.Now()
			time.Sleep(d.at(now, d.ms(1, 300)).Sub(now))
		}
		n, err := c.Read(buf[:size])
		if err != nil {
			return
		}
		now := time.Now()
		if e := w.plan.active(now, h.name, peerSlow, peerSilent); e != nil {
			until := d.at(now, d.ms(1, max(e.arg, 1)))
			if e.kind == peerSilent {
				until = d.at(e.end(), d.ms(1, 100))
			}
			time.Sleep(until.Sub(now))
		}
		if w.plan.active(time.Now(), h.name, peerBad) != nil && d.oneIn(4) {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// A rawTalk sends messages, and expects the same bytes on the same connection.
type rawTalk struct {
	p        *program
	n        int   // number of the connection
	rest     int   // unsent part
	ends     []int // ends of messages, as offsets in the connection
	sent     int
	received int
}

func (t *rawTalk) create(*runtime.Stream) {}
func (t *rawTalk) begin(*runtime.Stream)  {}

func (t *rawTalk) connected() {
	t.n++
	t.sent, t.received, t.rest, t.ends = 0, 0, 0, nil
}

func (t *rawTalk) announce() int { return 0 }

func (t *rawTalk) tx(buf []byte) (int, runtime.Flags, runtime.Result) {
	if t.rest == 0 {
		d := fork(t.p.w.seed, "message", t.p.name, t.n, t.sent)
		t.rest = 1 + d.IntN(2000)
		if d.oneIn(10) {
			t.rest = 1 + d.IntN(100_000)
		}
		t.ends = append(t.ends, t.sent+t.rest)
	}
	n := copyRing(buf[:min(len(buf), t.rest)], t.p.name, t.n, t.sent)
	t.sent += n
	if t.rest -= n; t.rest > 0 {
		t.p.s.RequestTx()
	}
	return n, 0, runtime.OK
}

// copyRing fills buf with a payload that repeats indefinitely.
func copyRing(buf []byte, name string, n, from int) int {
	for at := 0; at < len(buf); {
		at += copy(buf[at:], payload(name, n, (from+at)%maxPayload, maxPayload))
	}
	return len(buf)
}

func (t *rawTalk) rx(buf []byte, _ runtime.Flags) (bool, string) {
	if t.received+len(buf) > t.sent {
		return false, fmt.Sprintf("%d bytes have been received, and %d sent", t.received+len(buf), t.sent)
	}
	for at := 0; at < len(buf); {
		place := (t.received + at) % maxPayload
		n := min(len(buf)-at, maxPayload-place)
		if mismatch(buf[at:at+n], t.p.name, t.n, place) {
			return false, fmt.Sprintf("byte %d of connection %d, or a later one, is not what was sent", t.received+at, t.n)
		}
		at += n
	}
	t.received += len(buf)
	success := false
	for len(t.ends) > 0 && t.received >= t.ends[0] {
		t.ends, success = t.ends[1:], true
	}
	return success, ""
}

func (t *rawTalk) verdict(bool) (bool, string) { return false, "a verdict over raw" }
func (t *rawTalk) check() string               { return "" }
