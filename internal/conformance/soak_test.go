//go:build linux

package conformance

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/faulttest/link"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/h3"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// TestSoak runs many streams of random policies, with random events and network faults, for
// the time in SOAK (20s). At the end of each round everything is closed, and nothing may be
// left.
//
// SOAKSEED repeats the choices of an earlier run, as far as timing permits.
func TestSoak(t *testing.T) {
	duration, seed := soakOptions(t, 20*time.Second)
	var n tally
	own, other := testcert.New("own"), testcert.New("other")
	var brokers [2]string
	plain, tls, _ := startMosquitto(t, own, "max_queued_messages 10")
	brokers[0], brokers[1] = plain.String(), tls.String()
	m := setMark()
	var least, most uint64
	end := time.Now().Add(duration)
	logged := time.Now()
	for round := 0; time.Now().Before(end) && !t.Failed(); round++ {
		r := &soak{t: t, n: &n, rand: rand.New(rand.NewPCG(seed, uint64(round))), own: own, other: other, brokers: brokers}
		r.round(min(5*time.Second, max(time.Second, time.Until(end))))
		if left := m.leaked(); left != "" {
			t.Errorf("round %d left: %s", round, left)
		}
		goruntime.GC()
		var mem goruntime.MemStats
		goruntime.ReadMemStats(&mem)
		switch {
		case round < 2: // caches, pools and the test itself grow at first
		case least == 0:
			least = mem.HeapAlloc
		default:
			if most = max(most, mem.HeapAlloc); mem.HeapAlloc > 2*least+16<<20 {
				t.Errorf("after round %d the heap has %d KB; after the third it had %d", round, mem.HeapAlloc>>10, least>>10)
			}
		}
		if time.Since(logged) > time.Minute || time.Now().After(end) {
			logged = time.Now()
			t.Logf("round %d: heap %d KB, %d KB from the system; %s", round, mem.HeapAlloc>>10, mem.Sys>>10, &n)
		}
	}
	t.Logf("heap after the third round %d KB, most after any later %d KB", least>>10, most>>10)
	if n.streams.Load() > 1000 && (n.acks.Load() == 0 || n.failures.Load() == 0 || n.lost.Load() == 0 || n.timeouts.Load() == 0 ||
		n.h3.Load() == 0 || n.ws.Load() == 0 || n.mqtt.Load() == 0 || n.raw.Load() == 0) {
		t.Errorf("some events did not occur: %s", &n)
	}
}

// soakOptions returns the duration of a soak, from SOAK, and the seed of its choices, from
// SOAKSEED.
func soakOptions(t *testing.T, duration time.Duration) (time.Duration, uint64) {
	if v := os.Getenv("SOAK"); v != "" {
		duration = teststream.Must(time.ParseDuration(v))
	}
	seed := rand.Uint64()
	if v := os.Getenv("SOAKSEED"); v != "" {
		seed = teststream.Must(strconv.ParseUint(v, 10, 64))
	}
	t.Logf("SOAKSEED=%d", seed)
	return duration, seed
}

// A tally counts events.
type tally struct {
	streams, events, acks, nacks, failures, lost, timeouts, destroyed, faults atomic.Int64
	h3, ws, mqtt, raw                                                         atomic.Int64 // messages that arrived whole
}

func (n *tally) String() string {
	return fmt.Sprintf("%d streams, %d events, %d ACK, %d NAK, %d UNR, %d lost, %d TMO, %d destroyed while busy, %d faults; messages: %d h3, %d ws, %d mqtt, %d raw",
		n.streams.Load(), n.events.Load(), n.acks.Load(), n.nacks.Load(), n.failures.Load(), n.lost.Load(), n.timeouts.Load(),
		n.destroyed.Load(), n.faults.Load(), n.h3.Load(), n.ws.Load(), n.mqtt.Load(), n.raw.Load())
}

// A soak is one round.
type soak struct {
	t          *testing.T
	n          *tally
	rand       *rand.Rand
	own, other *testcert.Authority

	brokers [2]string // plain and with TLS
	proxies []*link.Proxy
	udp     *link.UDPProxy // of h3
	// serving is read-locked by each handler: http.Server.Close does not wait for handlers
	// of h2, and one may even start after it.
	serving sync.RWMutex
	stopped bool
}

// A carrier is the index of the proxy of a stream, or overH3.
type carrier int

const (
	overH1 carrier = iota
	overH1TLS
	overH2
	overRaw
	overRawTLS
	overMQTT
	overMQTTTLS
	overH3
	carriers
)

func (k carrier) secure() bool { return k != overH1 && k != overRaw && k != overMQTT }

const (
	soakLimit = 700 * time.Millisecond // limit of an attempt
	soakStall = 300 * time.Millisecond // the longest black hole
	// soakBound is the longest time without an event of a busy stream: the sum of all
	// waits, and a margin for a loaded machine.
	soakBound = 10 * time.Second
)

func (r *soak) round(d time.Duration) {
	stop := r.serve()
	defer stop()
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for range 2 {
		seed := r.rand.Uint64()
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 0))
			for time.Now().Before(end) && !r.t.Failed() {
				r.context(rnd, end)
			}
		})
	}
	wg.Wait()
}

// serve starts the servers, each behind a proxy with faults.
func (r *soak) serve() (stop func()) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.serving.RLock()
		defer r.serving.RUnlock()
		if r.stopped {
			panic(http.ErrAbortHandler)
		}
		size, _ := strconv.Atoi(q.URL.Query().Get("size"))
		switch q.URL.Path {
		case "/ws/echo", "/ws/close", "/ws/drop":
			serveWS(w, q)
		case "/echo":
			body, err := io.ReadAll(q.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			w.Write(body)
		case "/404":
			w.WriteHeader(404)
			io.WriteString(w, "not found")
		case "/503":
			w.WriteHeader(503)
		case "/204":
			w.WriteHeader(204)
		case "/redirect":
			http.Redirect(w, q, "/get?size=100", http.StatusFound)
		case "/cut":
			w.Header().Set("Content-Length", "100000")
			w.Write(large[:4096])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/slow":
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			fallthrough
		default:
			w.Write(large[:size])
		}
	})
	var stops []func()
	for i := range 3 {
		ln := teststream.Must(net.Listen("tcp", "127.0.0.1:0"))
		srv := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols)}
		srv.Protocols.SetHTTP1(i < 2)
		srv.Protocols.SetHTTP2(i == 2)
		if i == 0 {
			go srv.Serve(ln)
		} else {
			srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{r.own.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")}}
			go srv.ServeTLS(ln, "", "")
		}
		p := newProxy(ln.Addr().String(), r.fault)
		r.proxies = append(r.proxies, p)
		stops = append(stops, p.Close, func() { srv.Close() })
	}
	certificates := []tls.Certificate{r.own.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")}
	for _, config := range []*tls.Config{nil, {Certificates: certificates}} {
		server, stop := serveEcho(config)
		p := newProxy(server, r.fault)
		r.proxies = append(r.proxies, p)
		stops = append(stops, p.Close, stop)
	}
	for _, broker := range r.brokers {
		p := newProxy(broker, r.fault)
		r.proxies = append(r.proxies, p)
		stops = append(stops, p.Close)
	}
	pc := teststream.Must(net.ListenPacket("udp", "127.0.0.1:0"))
	srv := &http3.Server{Handler: handler, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: certificates}),
		Logger: slog.New(slog.DiscardHandler),
		// A connection whose datagrams are lost ends by the idle timeout of both ends.
		QUICConfig: &quic.Config{MaxIdleTimeout: soakBound / 4}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(pc)
	}()
	r.udp = newUDP(pc.LocalAddr().(*net.UDPAddr), r.fault)
	stops = append(stops, r.udp.Close, func() {
		srv.Close()
		<-done
		pc.Close()
	})
	return func() {
		for _, f := range stops {
			f()
		}
		r.serving.Lock()
		r.stopped = true
		r.serving.Unlock()
	}
}

// serveEcho echoes bytes until stop.
func serveEcho(config *tls.Config) (addr string, stop func()) {
	ln := withTLS(teststream.Must(net.Listen("tcp", "127.0.0.1:0")), config)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				io.Copy(c, c)
			})
		}
	})
	return ln.Addr().String(), func() { ln.Close(); wg.Wait() }
}

// fault returns a random fault, or none.
func (r *soak) fault() link.Fault {
	if rand.IntN(3) != 0 {
		return link.Fault{}
	}
	r.n.faults.Add(1)
	f := link.Fault{Kind: link.Kind(1 + rand.IntN(3)), Reply: rand.IntN(2) == 0, After: rand.IntN(4000), Stall: time.Duration(rand.Int64N(int64(soakStall)))}
	if rand.IntN(4) == 0 {
		f.After = rand.IntN(300_000)
	}
	return f
}

// policy returns a random policy.
func (r *soak) policy(rnd *rand.Rand) *policy.Policy {
	p := &policy.Policy{}
	// Streams that share a connection to a broker must agree on these.
	shared := policy.MQTT{CleanStart: rnd.IntN(2) == 0}
	if rnd.IntN(3) == 0 {
		shared.KeepAlive = time.Duration(1+rnd.IntN(3)) * time.Second
	}
	if rnd.IntN(3) == 0 {
		shared.WillTopic, shared.WillMessage, shared.WillQoS = "will", "gone", byte(rnd.IntN(3))
	}
	for i := range 16 {
		kind := carrier(rnd.IntN(int(carriers)))
		at := r.udp.Addr()
		if kind != overH3 {
			at = r.proxies[kind].Addr()
		}
		st := streamType(at)
		st.Name = fmt.Sprint("s", i)
		st.Opportunistic = rnd.IntN(3) > 0
		st.NailedUp = rnd.IntN(4) == 0
		if rnd.IntN(4) > 0 {
			st.Retry = &policy.Retry{Conceal: uint16(rnd.IntN(4))}
			for range rnd.IntN(3) {
				st.Retry.Backoff = append(st.Retry.Backoff, time.Duration(rnd.IntN(30))*time.Millisecond)
			}
			if len(st.Retry.Backoff) == 0 {
				st.Retry.Backoff = []time.Duration{0}
			}
		}
		st.Timeout = time.Duration(rnd.IntN(300)) * time.Millisecond
		if kind.secure() {
			secure(r.own.Store())(st)
			if rnd.IntN(8) == 0 {
				secure(r.other.Store())(st)
			}
		}
		switch kind {
		case overH2:
			h2(st)
		case overH3:
			st.Protocol = policy.ProtocolH3
		case overRaw, overRawTLS:
			rawOf(st)
		case overMQTT, overMQTTTLS:
			st.Protocol, st.HTTP = policy.ProtocolMQTT, nil
			m := shared
			m.QoS, m.Topic = byte(rnd.IntN(3)), "soak/${id}"
			m.Subscribe = m.Topic
			if rnd.IntN(4) == 0 {
				m.Subscribe = ""
			}
			if rnd.IntN(3) == 0 {
				m.BirthTopic, m.BirthMessage, m.BirthQoS = "birth", "here", byte(rnd.IntN(3))
			}
			st.MQTT = &m
		}
		if rnd.IntN(12) == 0 {
			st.Port = 1 // connection refused
		}
		st.Metadata = []policy.Metadata{{Name: "size"}, {Name: "x", Header: "x-anything:"}, {Name: "date", Header: "date:"}, {Name: "id"}}
		p.StreamTypes = append(p.StreamTypes, st)
		if st.HTTP == nil {
			continue
		}
		if kind <= overH1TLS && rnd.IntN(3) == 0 {
			st.Protocol, st.HTTP.URL = policy.ProtocolWS, []string{"/ws/echo", "/ws/echo", "/ws/echo", "/ws/close", "/ws/drop", "/404"}[rnd.IntN(6)]
			continue
		}
		st.HTTP.URL = []string{"/get", "/get", "/slow", "/404", "/503", "/204", "/redirect", "/cut"}[rnd.IntN(8)] + "?size=${size}"
		st.HTTP.AllowRedirects = rnd.IntN(2) == 0
		if rnd.IntN(4) == 0 {
			st.HTTP.Expect = 404
		}
		if rnd.IntN(3) == 0 {
			st.HTTP.Method, st.HTTP.URL = "POST", "/echo"
			st.HTTP.NoContentLength = rnd.IntN(3) == 0
		}
		if rnd.IntN(3) == 0 {
			st.HTTP.RespMap = []policy.StatusState{{Status: 404, State: 1404}, {Status: 200, State: 1200}}
		}
	}
	return p
}

// context runs streams of a random policy in a context of its own.
func (r *soak) context(rnd *rand.Rand, end time.Time) {
	var open atomic.Int64 // open connections
	creds := new(credentials.Memory)
	if rnd.IntN(3) == 0 { // so few that the broker must close one connection to accept another
		creds.SetBlob(policy.BlobMQTTClientID, 0, fmt.Sprint("soak", rnd.IntN(3)))
	}
	c, err := runtime.NewContext(r.policy(rnd), runtime.Options{
		Transports:     []transport.Transport{sshttp.New(), h3.New(), ws.New(), mqtt.New(), raw.New(raw.TLS)},
		ConnectTimeout: soakLimit, Credentials: creds,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			open.Add(1)
			return &countedConn{Conn: conn, open: &open}, nil
		},
		Logger: teststream.Logger(r.t),
	})
	if err != nil {
		r.t.Error(err)
		return
	}
	if d := min(time.Until(end), time.Duration(rnd.IntN(3000))*time.Millisecond); rnd.IntN(4) == 0 && d > 0 {
		// The context is closed while its streams are busy.
		timer := time.AfterFunc(d, func() { c.Close() })
		defer timer.Stop()
	}
	var wg sync.WaitGroup
	stop := min(time.Until(end), time.Duration(500+rnd.IntN(3000))*time.Millisecond)
	deadline := time.Now().Add(stop)
	for range 1 + rnd.IntN(40) {
		seed := rnd.Uint64()
		wg.Go(func() {
			w := rand.New(rand.NewPCG(seed, 1))
			for time.Now().Before(deadline) && !r.t.Failed() {
				if !r.stream(c, w, deadline) {
					return
				}
			}
		})
	}
	wg.Wait()
	teststream.Shutdown(r.t, c)
	if n := open.Load(); n != 0 {
		r.t.Errorf("%d connections are open after Shutdown", n)
	}
}

// A countedConn is counted until it is closed.
type countedConn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// A player is a stream with random behaviour.
type player struct {
	r       *soak
	st      *policy.StreamType
	url     string
	many    bool // a connection carries any number of messages or bytes
	size    int
	calm    atomic.Bool // end the stream without further disturbance
	inside  atomic.Int32
	changed chan struct{} // receives a value after an event
	over    chan struct{} // closed at DES

	mu        sync.Mutex
	rand      *rand.Rand
	events    []string
	latest    time.Time      // time of the latest event
	state     runtime.State  // latest state except TMO
	result    runtime.Result // result of the callback of state
	polled    bool           // the latest CNG came after POL
	connected bool
	verdict   bool // ACK or NAK since CON
	eom       bool // rx(EOM) since CON
	within    bool // a message has started and not ended
	others    bool // messages of other streams arrive too
	body      int  // bytes received of the current message
	ended     bool
	sent      int // bytes sent of the current message
}

// transitions has the states that may follow each state, as in the table of lws for
// clients.
var transitions = map[string]string{
	"": "CRE", "CRE": "CNG TMO POL DES", "DIS": "CNG TMO POL DES UNR", "UNR": "ARF TMO POL CNG DES",
	"CON": "ACK NAK DIS TMO DES", "CNG": "UNR CON TMO POL ARF CNG DES", "DES": "", "POL": "CNG TMO DES POL",
	"ARF": "CNG POL TMO DES", "ACK": "DIS TMO", "NAK": "DIS TMO", "TMO": "CNG CON ACK NAK POL TMO DIS UNR DES",
}

func (p *player) failLocked(format string, args ...any) {
	p.r.t.Errorf("%s (%v, %q): %s\nafter %s", p.st.Name, p.st.Protocol, p.url, fmt.Sprintf(format, args...), strings.Join(p.events, " "))
}

// enter checks that callbacks do not overlap. The callback must call the result when it
// ends.
func (p *player) enter() func() {
	if p.inside.Add(1) != 1 {
		p.mu.Lock()
		p.failLocked("callbacks overlap")
		p.mu.Unlock()
	}
	return func() {
		p.inside.Add(-1)
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
}

func (p *player) onState(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
	defer p.enter()()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.r.n
	n.events.Add(1)
	p.latest = time.Now()
	name := teststream.Name(state)
	if p.ended {
		p.failLocked("%s after the end", name)
	}
	last := ""
	for i := len(p.events) - 1; i >= 0 && last == ""; i-- {
		if !strings.HasPrefix(p.events[i], "rx") && !strings.HasPrefix(p.events[i], "USER") {
			last, _, _ = strings.Cut(p.events[i], "=")
		}
	}
	allowed := strings.Fields(transitions[last])
	if p.many && (last == "ACK" || last == "NAK") {
		allowed = append(allowed, "ACK", "NAK")
	}
	if !strings.HasPrefix(name, "USER") && !slices.Contains(allowed, name) {
		p.failLocked("%s after %s", name, last)
	}
	if len(p.events) > 200 {
		p.events = slices.Delete(p.events, 0, 100)
	}
	p.events = append(p.events, name)
	was := p.state
	if state != runtime.StateTimeout && state < runtime.StateUserBase {
		p.state = state
	}
	r := runtime.OK
	switch state {
	case runtime.StateConnecting:
		// After a declined POLL, Connect causes CNG without another POLL.
		p.polled = was == runtime.StatePoll && p.result == runtime.OK
		p.sent, p.body = 0, 0
	case runtime.StateConnected:
		p.connected, p.verdict, p.eom, p.within, p.body = true, false, false, false, 0
	case runtime.StateQoSAckRemote, runtime.StateQoSNackRemote:
		p.verdict = true
		if !p.many && p.eom != (p.body > 0) {
			p.failLocked("%s after %d bytes, end of message: %v", name, p.body, p.eom)
		}
		if state == runtime.StateQoSAckRemote {
			n.acks.Add(1)
		} else {
			n.nacks.Add(1)
		}
	case runtime.StateDisconnected:
		if !p.verdict || p.many {
			n.lost.Add(1)
		}
		p.connected = false
	case runtime.StateUnreachable:
		n.failures.Add(1)
	case runtime.StateTimeout:
		n.timeouts.Add(1)
		r = runtime.DisconnectMe
	case runtime.StateDestroying:
		if p.connected {
			p.failLocked("DES of a connected stream without DIS")
		}
		p.ended = true
		close(p.over)
		return runtime.DestroyMe
	}
	if !p.calm.Load() {
		switch p.rand.IntN(60) {
		case 0:
			r = runtime.DisconnectMe
		case 1:
			r = runtime.DestroyMe
		case 2, 3, 4:
			p.trickLocked(s)
		}
	}
	if state < runtime.StateUserBase && state != runtime.StateTimeout {
		p.result = r
	}
	if r != runtime.OK {
		p.events[len(p.events)-1] += "=" + r.String()
	}
	return r
}

func (p *player) onRx(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
	defer p.enter()()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latest = time.Now()
	if p.many {
		p.pieceLocked(buf, flags)
		return p.rxResultLocked(s)
	}
	if !p.connected || p.eom || p.verdict || p.ended {
		p.failLocked("rx without a connection, or after the end of the message")
	}
	if flags&runtime.FlagSOM != 0 != (p.body == 0 && len(buf) > 0) {
		p.failLocked("rx of %d bytes, flags %d, after %d", len(buf), flags, p.body)
	}
	if p.url != "/404?size=${size}" && !strings.HasPrefix(p.url, "/redirect") &&
		(p.body+len(buf) > len(large) || !bytes.Equal(buf, large[p.body:p.body+len(buf)])) {
		p.failLocked("rx of %d bytes at %d: not what was sent", len(buf), p.body)
	}
	p.body += len(buf)
	if flags&runtime.FlagEOM != 0 {
		p.eom = true
		p.events = append(p.events, "rx(EOM)")
		if p.st.Protocol == policy.ProtocolH3 {
			p.r.n.h3.Add(1)
		}
		if p.url == "/echo" && p.body != p.size || strings.HasPrefix(p.url, "/get") && p.body != p.size {
			p.failLocked("a message of %d bytes where there were %d", p.body, p.size)
		}
	} else if len(p.events) == 0 || p.events[len(p.events)-1] != "rx" {
		p.events = append(p.events, "rx")
	}
	return p.rxResultLocked(s)
}

// pieceLocked checks a piece of an echo. Over raw, messages form a stream of bytes.
func (p *player) pieceLocked(buf []byte, flags runtime.Flags) {
	if !p.connected || p.ended {
		p.failLocked("rx without a connection")
	}
	n := p.r.n
	if p.st.Protocol == policy.ProtocolRaw {
		for len(buf) > 0 {
			k := min(len(buf), p.size-p.body)
			if !bytes.Equal(buf[:k], large[p.body:p.body+k]) {
				p.failLocked("rx of %d bytes at %d: not what was sent", k, p.body)
			}
			buf = buf[k:]
			if p.body += k; p.body == p.size {
				p.body = 0
				n.raw.Add(1)
			}
		}
		return
	}
	if first := flags&runtime.FlagSOM != 0; first != (!p.within) {
		p.failLocked("rx of %d bytes, flags %d, within a message: %v", len(buf), flags, p.within)
	}
	p.within = flags&runtime.FlagEOM == 0
	if p.url == "/ws/drop" {
		return
	}
	if p.body+len(buf) > len(large) || !bytes.Equal(buf, large[p.body:p.body+len(buf)]) {
		p.failLocked("rx of %d bytes at %d: not what was sent", len(buf), p.body)
	}
	if p.body += len(buf); p.within {
		return
	}
	if p.body != p.size && !p.others {
		p.failLocked("a message of %d bytes where there were %d", p.body, p.size)
	}
	p.body = 0
	if p.st.Protocol == policy.ProtocolWS {
		n.ws.Add(1)
	} else {
		n.mqtt.Add(1)
	}
}

// rxResultLocked returns a result of Rx.
func (p *player) rxResultLocked(s *runtime.Stream) runtime.Result {
	if !p.calm.Load() {
		switch p.rand.IntN(400) {
		case 0:
			return runtime.DisconnectMe
		case 1:
			return runtime.DestroyMe
		case 2:
			p.trickLocked(s)
		case 3:
			time.Sleep(time.Duration(p.rand.IntN(20)) * time.Millisecond)
		}
	}
	return runtime.OK
}

func (p *player) onTx(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
	defer p.enter()()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latest = time.Now()
	if p.ended {
		p.failLocked("tx after the end")
	}
	if !p.calm.Load() {
		switch p.rand.IntN(50) {
		case 0:
			return 0, 0, runtime.DisconnectMe
		case 1:
			return 0, 0, runtime.DestroyMe
		case 2:
			time.AfterFunc(time.Duration(p.rand.IntN(20))*time.Millisecond, func() { s.RequestTx() })
			return 0, 0, runtime.TxDontSend
		}
	}
	if p.many && p.sent == p.size {
		p.sent = 0
	}
	if p.many && p.sent == 0 && (p.calm.Load() || p.rand.IntN(4) == 0) {
		return 0, 0, runtime.TxDontSend
	}
	n := copy(buf, large[p.sent:p.size])
	if p.many {
		s.RequestTx()
	}
	var flags runtime.Flags
	if p.sent == 0 {
		flags |= runtime.FlagSOM
	}
	if p.sent += n; p.sent == p.size {
		flags |= runtime.FlagEOM
	}
	return n, flags, runtime.OK
}

// trickLocked makes a random call that is valid at any time.
func (p *player) trickLocked(s *runtime.Stream) {
	switch p.rand.IntN(10) {
	case 0:
		s.Connect()
	case 1, 2:
		s.RequestTx()
	case 3:
		s.StartTimeout(time.Duration(p.rand.IntN(50)) * time.Millisecond)
	case 4:
		s.StartTimeout(0)
	case 5:
		s.CancelTimeout()
	case 6:
		s.SetHandlers(runtime.Handlers{State: p.onState, Rx: p.onRx})
	case 7:
		if err := s.SetMetadata("x", fmt.Sprint(p.rand.Uint64())); err != nil && p.events != nil && !p.ended && s.State() != runtime.StateDestroying {
			p.failLocked("%v", err)
		}
	case 8:
		s.Metadata("date")
		s.Err()
	case 9:
		if p.rand.IntN(3) == 0 {
			s.Destroy()
		}
	}
}

// idle reports whether the stream has ended as documented.
func (p *player) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.state {
	case runtime.StateDestroying, runtime.StateAllRetriesFailed:
		return true
	case runtime.StateConnected, runtime.StateQoSAckRemote, runtime.StateQoSNackRemote:
		return p.many
	case runtime.StateDisconnected:
		return p.verdict && !p.many || p.st.Opportunistic
	case runtime.StateUnreachable, runtime.StatePoll:
		return p.result != runtime.OK
	case runtime.StateConnecting:
		return p.result != runtime.OK && !p.polled
	}
	return false
}

// stream runs a stream. It returns false when the context is closed.
func (r *soak) stream(c *runtime.Context, w *rand.Rand, deadline time.Time) bool {
	types := c.Policy().StreamTypes
	p := &player{r: r, st: types[w.IntN(len(types))], rand: rand.New(rand.NewPCG(w.Uint64(), 2)), latest: time.Now(), changed: make(chan struct{}, 1), over: make(chan struct{})}
	p.many = p.st.HTTP == nil || p.st.Protocol == policy.ProtocolWS
	if p.st.HTTP != nil {
		p.url = p.st.HTTP.URL
	}
	p.size = 1 + w.IntN(2000)
	if w.IntN(4) == 0 {
		p.size = 1 + w.IntN(500_000)
	}
	p.mu.Lock()
	h := runtime.Handlers{State: p.onState, Rx: p.onRx, Tx: p.onTx}
	p.mu.Unlock()
	id := fmt.Sprint("own/", w.Uint64())
	if p.st.MQTT != nil && !p.st.MQTT.CleanStart { // the broker keeps the filters
		id, p.others = fmt.Sprint(w.IntN(32)), true
	}
	s, err := c.NewStream(p.st.Name, h, runtime.WithMetadata("size", fmt.Sprint(p.size)), runtime.WithMetadata("id", id))
	if err != nil {
		return c.Policy() != nil && !strings.Contains(err.Error(), runtime.ErrClosed.Error())
	}
	r.n.streams.Add(1)
	s.StartTimeout(time.Duration(50+w.IntN(1000)) * time.Millisecond)
	turns := 1 + w.IntN(6)
	if p.many {
		turns *= 3
	}
	for range turns {
		if (p.url == "/echo" || p.many) && w.IntN(2) == 0 {
			s.RequestTxLen(uint64(p.size))
		} else {
			s.RequestTx()
		}
		select {
		case <-p.over:
		case <-time.After(time.Duration(w.IntN(60)) * time.Millisecond):
		}
		p.mu.Lock()
		p.trickLocked(s)
		p.mu.Unlock()
	}
	wait := func(what string, done func() bool) bool {
		for !done() {
			select {
			case <-p.over:
				return true
			case <-p.changed:
			case <-time.After(100 * time.Millisecond): // done may depend on the time
			}
			p.mu.Lock()
			quiet := time.Since(p.latest)
			if quiet > soakBound {
				p.failLocked("stuck: %s, no event for %v; RequestTx: %v", what, quiet, s.RequestTx())
				p.mu.Unlock()
				return false
			}
			p.mu.Unlock()
		}
		return true
	}
	if w.IntN(3) > 0 {
		p.calm.Store(true)
		p.mu.Lock()
		// A stream that is not opportunistic keeps reconnecting.
		again := !p.st.Opportunistic && (strings.HasPrefix(p.url, "/cut") || p.url == "/ws/close" || p.url == "/ws/drop")
		p.mu.Unlock()
		limit := time.Now().Add(2 * soakBound) // for what never ends by itself
		if !wait("busy", func() bool { return p.idle() || again && time.Now().After(deadline) || time.Now().After(limit) }) {
			return false
		}
	} else {
		r.n.destroyed.Add(1)
	}
	s.Destroy()
	return wait("after Destroy", func() bool { return false })
}
