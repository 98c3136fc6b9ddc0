package sim

import (
	"context"
	cryptorand "crypto/rand"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A protocol is what a run simulates.
type protocol struct {
	name           string
	hosts, streams int

	// shared means that streams share connections. The order of what they send at the same
	// instant is random, so a seed may have several traces.
	shared bool

	// window is the maximum number of unread bytes in one direction; 0 means 64 KiB.
	window int

	// servers means that the peers are servers of the runtime.
	servers bool

	// proxied means that a proxy executes the streams.
	proxied bool

	// onSettled is called when the streams have settled; it may be nil.
	onSettled func()

	// free means that the division of messages into packets depends on the scheduling of
	// goroutines in a library, so that a seed may have several traces.
	free  bool
	small bool // bodies fit into a few packets

	// faults are those of hosts; nil means ofHost.
	faults []chance

	// serverBuffers makes writes of servers return immediately.
	serverBuffers bool

	transports func(w *world) []transport.Transport
	streamType func(w *world, i int) *policy.StreamType
	serve      func(w *world, h *host) // starts the peer of a host; stop ends it
	talk       func(p *program) talk
}

// hostOf returns the host of a stream.
func (p *protocol) hostOf(i int) string { return fmt.Sprint("h", i%p.hosts) }

// allHosts returns the names of the hosts.
func (p *protocol) allHosts() []string {
	all := names("h", p.hosts)
	if p.proxied {
		all = append(all, proxyHost)
	}
	return all
}

// names returns n names with a prefix.
func names(prefix string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(prefix, i))
	}
	return all
}

// A world is one run.
type world struct {
	seed      uint64
	protocol  *protocol
	plan      *plan
	tr        *trace
	net       *network
	creds     credentials.Memory
	calm      atomic.Bool // no more faults
	faultTime time.Duration
	ending    atomic.Bool // no more streams
	programs  []*program
	epoch     atomic.Int64 // number of policies and contexts
	stops     []func()     // of the peers
	proxy     *proxyPeer   // nil unless the protocol is proxied

	cues  sync.Mutex
	armed []*event // waiting for a moment; guarded by cues

	mu       sync.Mutex
	context  *runtime.Context
	contexts int // number of contexts created
	policies int // number of policies created
	rotation int // version of the credentials
	findings []string
	excerpt  string // of the trace before the first finding
}

// An outcome is the result of a run.
type outcome struct {
	sum      string
	states   int
	elapsed  time.Duration // virtual
	findings []string
	excerpt  string // of the trace, for the first finding
	trace    *trace
	plan     *plan
}

// find records a violation of a law.
func (w *world) find(involved []string, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.tr.note("FINDING", "%s: %s", involved[0], text)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.findings == nil {
		w.excerpt = w.tr.tail(40, append(involved, "FINDING", "world")...)
	}
	w.findings = append(w.findings, fmt.Sprintf("%s at %v: %s", involved[0], time.Since(w.tr.start), text))
}

// jitter is Options.Jitter. It depends only on the time, since streams that lose a shared
// connection call it in any order.
func (w *world) jitter() uint16 { return w.jitterAt(time.Now()) }

func (w *world) jitterAt(t time.Time) uint16 {
	return uint16(rand.New(rand.NewPCG(w.seed, uint64(t.UnixNano()))).Uint32())
}

// connectTimeout is Options.ConnectTimeout. It differs from all other limits of transports.
const connectTimeout = 14 * time.Second

// newContext creates a context with the current policy.
func (w *world) newContext() {
	if w.protocol.proxied {
		w.newProxiedContext()
		return
	}
	w.mu.Lock()
	w.contexts++
	p, number := w.policyLocked(0), w.contexts
	w.mu.Unlock()
	c, err := runtime.NewContext(p, runtime.Options{
		Transports:     w.protocol.transports(w),
		Logger:         slog.New(logHandler{w}),
		ConnectTimeout: connectTimeout,
		Credentials:    &w.creds,
		DialContext:    w.net.dialer(number),
		Jitter:         w.jitter,
		Hooks:          runtime.Hooks{Wait: w.onWait},
	})
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.context = c
}

// current returns the context for new streams.
func (w *world) current() *runtime.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.context
}

// policyLocked returns a policy. The bits of change select the streamtypes that differ from
// the first policy.
func (w *world) policyLocked(change int) *policy.Policy {
	w.policies++
	p := &policy.Policy{Release: fmt.Sprint(w.policies)}
	for i := range w.protocol.streams {
		st := w.protocol.streamType(w, i)
		if change>>i&1 != 0 {
			st.Timeout += time.Duration(w.policies) * time.Second
		}
		p.StreamTypes = append(p.StreamTypes, st)
	}
	return p
}

// rotateCredentials replaces the token of each stream.
func (w *world) rotateCredentials() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rotation++
	for i := range tokens {
		w.creds.SetBlob(policy.BlobAuth, i, fmt.Sprintf("token%d-%d", i, w.rotation))
	}
}

// rotations returns the number of rotations of the credentials.
func (w *world) rotations() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rotation
}

// checkToken checks the credentials in a request of a stream. If attempt is the current
// attempt, they must not be older than its start.
func (w *world) checkToken(p *program, got string, attempt int) {
	var i, rotation int
	if _, err := fmt.Sscanf(got, "token%d-%d", &i, &rotation); err != nil || i != p.i%tokens {
		p.find("credentials %q, want token%d", got, p.i%tokens)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.attempt == attempt && rotation < p.rotation {
		p.find("credentials %q after rotation %d", got, p.rotation)
	}
}

// tokens is the number of tokens: stream i uses token i%tokens.
const tokens = 4

// A logHandler turns log records of the runtime into findings.
type logHandler struct{ w *world }

func (logHandler) Enabled(context.Context, slog.Level) bool { return true }
func (l logHandler) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l logHandler) WithGroup(string) slog.Handler          { return l }
func (l logHandler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	l.w.find([]string{"log"}, "%s", text)
	return nil
}

// simulate runs a world with faults for a number of minutes. keep, unless nil, selects the
// events of its plan.
func simulate(t *testing.T, pr *protocol, seed uint64, minutes int, keep func(*event) bool) *outcome {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	if pr.free {
		cryptorand.Reader = &clockReader{seed: seed} // until the end of the test
	}
	stuck := time.AfterFunc(stuckAfter, func() {
		panic(fmt.Sprintf("PROTOCOL=%s SEED=%d: the clock of the bubble stands still", pr.name, seed))
	})
	defer stuck.Stop()
	o := &outcome{}
	synctest.Test(t, func(t *testing.T) {
		before := len(goroutines())
		w := &world{seed: seed, protocol: pr, faultTime: time.Duration(minutes) * time.Minute, tr: &trace{start: time.Now()}}
		w.plan = newPlan(seed, minutes, pr)
		if keep != nil {
			w.plan = w.plan.only(keep)
		}
		w.plan.begin(w.tr.start)
		w.net = newNetwork(w)
		w.run()
		synctest.Wait()
		if left := goroutines(); len(left) > before {
			w.find([]string{"end"}, "goroutines are left:\n%s", strings.Join(left, "\n\n"))
		}
		o.sum, o.states, o.elapsed = w.tr.sum(), w.tr.states, time.Since(w.tr.start)
		o.findings, o.excerpt, o.plan, o.trace = w.findings, w.excerpt, w.plan, w.tr
	})
	return o
}

// stuckAfter is the time limit of a run, in real time. A run needs less than a second. The
// clock of a bubble stops while a goroutine waits for a mutex.
const stuckAfter = time.Minute

// goroutines returns the stacks of the goroutines in bubbles.
func goroutines() (found []string) {
	var b strings.Builder
	pprof.Lookup("goroutine").WriteTo(&b, 2)
	for _, g := range strings.Split(b.String(), "\n\n") {
		if strings.Contains(g, "synctest bubble") {
			found = append(found, g)
		}
	}
	return found
}

// settleTime is the time after the last fault in which every stream must succeed. A
// connection that the peer has forgotten is detected within 15 s, or after svalidhup, and
// an attempt takes up to connectTimeout; the rest is twice the longest wait of the
// policies. promptTime is the time in which it must succeed again.
const (
	settleTime = 90 * time.Second
	promptTime = 40 * time.Second
)

func (w *world) run() {
	w.rotateCredentials()
	for _, name := range names("h", w.protocol.hosts) {
		w.protocol.serve(w, w.net.host(name))
	}
	w.newContext()
	for i := range w.protocol.streams {
		p := newProgram(w, i)
		w.programs = append(w.programs, p)
	}
	for _, p := range w.programs { // peers refer to the programs
		p.later("first", 0, p.create)
	}
	for _, e := range w.plan.events {
		time.Sleep(time.Until(e.begin()))
		if e.on != nil {
			w.arm(e)
			continue
		}
		w.do(e)
	}
	time.Sleep(time.Until(w.tr.start.Add(w.faultTime + time.Millisecond)))
	w.tr.note("world", "no more faults")
	w.calm.Store(true)
	w.net.heal()
	for _, p := range w.programs {
		p.calmDown()
	}
	time.Sleep(settleTime)
	for _, p := range w.programs {
		p.checkSettled()
	}
	if w.protocol.onSettled != nil {
		w.protocol.onSettled()
	}
	if n := w.net.openConns(); n > 4*len(w.programs) { // including those kept for the next request
		w.find([]string{"world"}, "%d connections are open for %d streams", n, len(w.programs))
	}
	// A stream that has settled succeeds promptly.
	time.Sleep(promptTime)
	for _, p := range w.programs {
		p.checkPrompt()
	}
	w.end()
}

// end closes everything, and checks that nothing is left.
func (w *world) end() {
	w.ending.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.current().Shutdown(ctx); err != nil && ctx.Err() != nil {
		w.find([]string{"end"}, "Shutdown: %v", err)
	}
	time.Sleep(time.Minute) // for the rest of earlier contexts
	if n := w.net.openConns(); n > 0 {
		w.find([]string{"end"}, "%d connections are open after Shutdown", n)
	}
	for _, p := range w.programs {
		p.checkEnd()
	}
	for _, stop := range slices.Backward(w.stops) {
		stop()
	}
	time.Sleep(2 * time.Minute)
}

// do executes an event of the plan.
func (w *world) do(e *event) {
	who := e.target
	if who == "" {
		who = "world"
	}
	w.tr.note(who, "%v", e)
	if e.kind == setPolicy || e.kind == overlay || e.kind == closeContext || e.kind == shutdown {
		w.epoch.Add(1)
	}
	switch {
	case e.kind <= peerLate:
		w.net.strike(e)
	case e.kind <= serverPolicy:
		w.net.host(e.target).server.do(e)
	case e.kind < setPolicy:
		w.programs[streamNumber(e.target)].do(e)
	case e.kind == rotate:
		w.rotateCredentials()
	case e.kind == setPolicy, e.kind == overlay:
		w.mu.Lock()
		p, c := w.policyLocked(e.arg), w.context
		w.mu.Unlock()
		if w.proxy != nil {
			c = w.proxy.current()
		}
		set := c.SetPolicy
		if e.kind == overlay {
			set = c.Overlay
		}
		if err := set(p); err != nil {
			w.find([]string{"world"}, "%v: %v", e.kind, err)
		}
	case e.kind == closeContext, e.kind == shutdown:
		old := w.current()
		w.newContext()
		if e.kind == closeContext {
			old.Close()
			return
		}
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			err := old.Shutdown(ctx)
			w.tr.note("world", "Shutdown: %v", err)
			if ctx.Err() == context.DeadlineExceeded && !w.slowCallbacks() {
				w.find([]string{"world"}, "Shutdown has not ended within 10 s: %v", err)
			}
		}()
	}
}

// slowCallbacks reports whether callbacks of the plan are slow.
func (w *world) slowCallbacks() bool {
	return slices.ContainsFunc(w.plan.events, func(e *event) bool { return e.kind == answerSlow })
}

// onWait is Hooks.Wait.
func (w *world) onWait(_ context.Context, s *runtime.Stream, d time.Duration) {
	for _, p := range w.programs {
		if p.owns(s) {
			p.onWait(s, d)
		}
	}
}

// delay returns the wait of a policy, as in docs/runtime.md.
func delay(r *policy.Retry, failures int, random uint16) time.Duration {
	base, percent := int64(3000), int64(30)
	if r != nil && len(r.Backoff) > 0 {
		base = r.Backoff[min(failures, len(r.Backoff)-1)].Milliseconds()
	}
	if r != nil && r.JitterPercent > 0 {
		percent = int64(r.JitterPercent)
	}
	return time.Duration(base+int64(math.Floor(float64(base*percent*int64(random))/65536/100))) * time.Millisecond
}
