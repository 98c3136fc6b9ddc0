package sim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/proxy"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/sspc"
)

// proxyHost is the host of the proxy.
const proxyHost = "proxy"

// proxied is a protocol whose streams are executed by a proxy.
func proxied(of *protocol, talk func(*program) talk) *protocol {
	pr := *of
	pr.name += "+proxy"
	pr.proxied, pr.shared = true, true
	pr.talk = talk
	pr.streamType = func(w *world, i int) *policy.StreamType {
		st := of.streamType(w, i)
		if st.HTTP != nil {
			st.HTTP.URL = "/" + st.Name
		}
		d := fork(w.seed, "proxied", i)
		st.ProxyBuflen = []uint32{0, 1000, 5000}[d.IntN(3)]
		return st
	}
	pr.serve = func(w *world, h *host) {
		of.serve(w, h)
		if w.proxy == nil {
			w.proxy = &proxyPeer{w: w, h: w.net.host(proxyHost)}
			w.proxy.h.onRestart = func(bool) { w.proxy.restart() }
			w.proxy.start()
			w.stops = append(w.stops, w.proxy.stop)
		}
	}
	return &pr
}

// proxiedTransitions is transitions for a stream that a proxy executes, as in
// docs/proxy.md. Each link begins another stream of the proxy.
var proxiedTransitions = func() map[string]string {
	const lost = "UPSTREAM_LINK_RETRY"
	all := map[string]string{lost: lost + " CNG TMO POL DES"}
	for state, next := range transitions {
		if state != "" && state != "DES" && state != "CON" && state != "ACK" && state != "NAK" {
			next += " " + lost
		}
		all[state] = next
	}
	all["CNG"] += " DIS" // a new policy of the proxy ends the attempt
	return all
}()

// newProxiedContext creates the context of the programs.
func (w *world) newProxiedContext() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.contexts++
	w.context = teststream.Must(runtime.NewContext(nil, runtime.Options{
		Proxy:       teststream.Must(sspc.New("tcp:"+proxyHost+":80", sspc.Options{})),
		Logger:      slog.New(logHandler{w}),
		DialContext: w.net.dialer(w.contexts),
		Jitter:      w.jitter,
	}))
}

// A proxyPeer is the proxy of a world.
type proxyPeer struct {
	w *world
	h *host

	mu      sync.Mutex
	context *runtime.Context
	proxy   *proxy.Proxy
	ended   sync.WaitGroup // earlier proxies
}

// start starts a proxy.
func (x *proxyPeer) start() {
	w := x.w
	w.mu.Lock()
	w.contexts++
	p, number := w.policyLocked(0), w.contexts
	w.mu.Unlock()
	w.epoch.Add(1)
	c := teststream.Must(runtime.NewContext(p, runtime.Options{
		Transports:     w.protocol.transports(w),
		Logger:         slog.New(logHandler{w}),
		ConnectTimeout: connectTimeout,
		Credentials:    &w.creds,
		DialContext:    w.net.dialer(number),
		Jitter:         w.jitter,
	}))
	x.mu.Lock()
	defer x.mu.Unlock()
	x.context, x.proxy = c, proxy.New(c, proxy.Options{})
	go x.proxy.Serve(w.net.listen(x.h))
}

// current returns the context of the proxy.
func (x *proxyPeer) current() *runtime.Context {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.context
}

// restart replaces the proxy, abruptly or gently.
func (x *proxyPeer) restart() {
	x.mu.Lock()
	c, p := x.context, x.proxy
	gentle := fork(x.w.seed, "restart", time.Since(x.w.tr.start)).oneIn(2)
	x.mu.Unlock()
	x.ended.Go(func() { x.end(c, p, gentle) })
	x.start()
}

// end ends a proxy, and checks that it leaves nothing behind.
func (x *proxyPeer) end(c *runtime.Context, p *proxy.Proxy, gentle bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if gentle {
		drain, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		p.Shutdown(drain)
	} else {
		p.Close()
	}
	if n := p.Stats().Links; n > 0 {
		x.w.find([]string{proxyHost}, "%d links are left", n)
	}
	c.Close()
	if err := c.Shutdown(ctx); err != nil && ctx.Err() != nil {
		x.w.find([]string{proxyHost}, "Shutdown: %v", err)
	}
}

// stop ends the proxy after its clients.
func (x *proxyPeer) stop() {
	x.ended.Wait()
	if n := x.proxy.Stats().Links; n > 0 {
		x.w.find([]string{proxyHost}, "%d links are left by clients that have ended", n)
	}
	x.end(x.context, x.proxy, true)
}

// numbered returns message n of a stream, which contains its stream and number.
func numbered(w *world, name string, n int) []byte {
	d := fork(w.seed, "message", name, n)
	size := 20 + d.IntN(2000)
	if d.oneIn(10) {
		size = 20 + d.IntN(maxPayload-20)
	}
	b := fmt.Appendf(nil, "%s %d %d;", name, n, size)
	return append(b, payload(name, n, len(b), size)...)
}

// parseNumbered returns the stream and the number of a message, and whether the message is
// complete and unchanged.
func parseNumbered(b []byte) (name string, n int, ok bool) {
	var size int
	_, err := fmt.Sscanf(string(b[:min(20, len(b))]), "%s %d %d;", &name, &n, &size)
	head := bytes.IndexByte(b, ';') + 1
	return name, n, err == nil && size == len(b) && !mismatch(b[head:], name, n, head)
}

// A proxiedTalk sends messages that are echoed through a proxy. They may get lost with the
// link or with the connection of the proxy, and are not duplicated unless the protocol
// allows that.
type proxiedTalk struct {
	p       *program
	n       int // number of the last message sent
	message []byte
	sent    int // bytes of it sent
	in      []byte
	within  bool
	last    int // number of the last message echoed
	acks    int

	mu     sync.Mutex
	conns  int
	counts map[int]int // number of times the peer has received each message
	first  map[int]time.Time
	latest map[any]int // latest message of each connection
}

func newProxiedTalk(p *program) talk {
	return &proxiedTalk{p: p, counts: map[int]int{}, first: map[int]time.Time{}, latest: map[any]int{}}
}

func (t *proxiedTalk) create(*runtime.Stream) {}
func (t *proxiedTalk) begin(*runtime.Stream)  {}
func (t *proxiedTalk) connected()             { t.message, t.sent, t.in, t.within = nil, 0, nil, false }
func (t *proxiedTalk) announce() int          { return 0 }

// connection returns the number of a connection that the peer has accepted.
func (t *proxiedTalk) connection() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns++
	return t.conns
}

// count is called for each message that the peer receives on a connection.
func (t *proxiedTalk) count(on any, b []byte, qos byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name, n, ok := parseNumbered(b)
	t.p.w.tr.note(t.p.host, "message %s %d", name, n)
	t.counts[n]++
	switch {
	case !ok || name != t.p.name:
		t.p.find("the peer receives %.20q with %d bytes from %s", b, len(b), t.p.name)
	case t.counts[n] == 1:
		t.first[n] = time.Now()
	case qos != 1 && !lostSince(on, t.first[n]):
		t.p.find("message %d arrives again with QoS %d", n, qos)
	}
	if t.counts[n] == 1 && n < t.latest[on] && !t.mqtt() { // successive links may share a connection
		t.p.find("message %d arrives after %d", n, t.latest[on])
	}
	t.latest[on] = max(t.latest[on], n)
}

// lostSince reports whether the peer is a broker that has lost its sessions since a time
// without the client knowing.
func lostSince(on any, since time.Time) bool {
	c, ok := on.(*brokerConn)
	return ok && c.resumed && c.lost.After(since)
}

func (t *proxiedTalk) tx(buf []byte) (int, runtime.Flags, runtime.Result) {
	var flags runtime.Flags
	if t.sent == len(t.message) {
		t.n++
		t.message, t.sent = numbered(t.p.w, t.p.name, t.n), 0
		flags |= runtime.FlagSOM
	}
	n := copy(buf, t.message[t.sent:])
	if t.sent += n; t.sent == len(t.message) {
		flags |= runtime.FlagEOM
	} else {
		t.p.s.RequestTx()
	}
	return n, flags, runtime.OK
}

func (t *proxiedTalk) rx(buf []byte, flags runtime.Flags) (bool, string) {
	if (flags&runtime.FlagSOM != 0) == t.within {
		return false, fmt.Sprintf("flags %d within a message: %v", flags, t.within)
	}
	t.in = append(t.in, buf...)
	if t.within = flags&runtime.FlagEOM == 0; t.within {
		return false, ""
	}
	b := t.in
	t.in = nil
	name, n, ok := parseNumbered(b)
	switch {
	case !ok || name != t.p.name || n > t.n:
		return false, fmt.Sprintf("a message of %d bytes: %.20q", len(b), b)
	case n <= t.last && !t.mqtt():
		return false, fmt.Sprintf("message %d comes back after %d", n, t.last)
	}
	t.last = max(t.last, n)
	return true, ""
}

// mqtt reports whether the peer is a broker, which delivers the messages of a session
// later.
func (t *proxiedTalk) mqtt() bool { return t.p.w.protocol.streamType(t.p.w, t.p.i).MQTT != nil }

func (t *proxiedTalk) verdict(ack bool) (bool, string) {
	m := t.p.w.protocol.streamType(t.p.w, t.p.i).MQTT
	if m == nil {
		return false, "a verdict over this protocol"
	}
	if !ack || m.QoS == 0 {
		return ack && m.Subscribe == "", ""
	}
	t.acks++
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.acks > len(t.counts) {
		return false, fmt.Sprintf("%d messages are acknowledged, and the broker has %d", t.acks, len(t.counts))
	}
	return m.Subscribe == "", ""
}

func (t *proxiedTalk) check() string { return "" }
