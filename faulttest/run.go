package faulttest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/dummy"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Options configure a run. The zero value is ready to use, except that [Run] needs
// Transports.
type Options struct {
	Args Args // parameters of the fault

	// Transports returns the transports of a run. Their times that do not come from
	// the policy are divided by hurry.
	Transports func(hurry int) []transport.Transport

	// Hurry divides the times of the policy, the program and the fault, but does not reduce
	// timeouts below Shortest, since a loaded machine would miss shorter ones. The defaults
	// are 1 and a second.
	Hurry    int
	Shortest time.Duration

	// ConnectTimeout is the connect timeout of the program, before Hurry; 0 means
	// the default.
	ConnectTimeout time.Duration

	// Timeout limits the duration of a run; 0 means slightly more than the fault
	// can take.
	Timeout time.Duration

	// Listen is the host and port on which the peer listens; "" means a free port
	// on loopback. Upstream is the host and port of a real server that replaces the
	// simulated one.
	Listen   string
	Upstream string

	// Log, if not nil, receives a line for each action of the peer. It must be safe
	// for concurrent use.
	Log func(line string)

	// Authority certifies the peer; nil means a new one.
	Authority *Authority

	// Plain makes the peer of a streamtype with TLS serve without TLS, for devices
	// whose policy cannot trust the Authority. Faults of TLS ignore it.
	Plain bool

	// For tests of this package.
	healthy bool          // run a healthy peer instead
	hush    time.Duration // see wait; 0 means 150 ms
}

func (o *Options) listen() string { return cmp.Or(o.Listen, "127.0.0.1:0") }

func (o *Options) connectTimeout() time.Duration {
	return o.shorten(cmp.Or(o.ConnectTimeout, runtime.DefaultConnectTimeout))
}

func (o *Options) hurry() int { return max(o.Hurry, 1) }

// An Event is a step of a stream: a state, by its short name, or "rx" or "tx".
type Event struct {
	Name  string
	At    time.Duration // since the start
	Cause string        // of UNR and DIS
}

// A Report is the result of a run.
type Report struct {
	Fault   string
	Stream  string
	OK      bool
	Problem string // why the run is not OK
	Want    string // expected sequence, in the notation of docs/runtime.md
	Got     string
	Events  []Event
	Start   time.Time
	Elapsed time.Duration
}

// Run runs a stream of a policy against the peer of a fault, and compares its
// states with those that the fault expects. The error is about the run itself: an
// unknown stream, a fault that does not apply, a port in use.
func Run(ctx context.Context, p *policy.Policy, stream string, f *Fault, o Options) (*Report, error) {
	pr, target, err := start(p, stream, f, &o)
	if err != nil {
		return nil, err
	}
	defer pr.close()
	r := &run{
		matcher: matcher{pr.subject, f.expect(pr.subject)},
		start:   time.Now(),
		changed: make(chan struct{}, 1),
		chain:   chain(p, pr.StreamType),
		ca:      pr.ca,
	}
	report := &Report{Fault: f.Name, Stream: stream, Want: r.matcher.String(), Start: r.start}
	if err := r.execute(ctx, target, &o); err != nil {
		return nil, err
	}
	report.Events, report.Elapsed = r.observed(r.snapshot()), time.Since(r.start)
	report.Got = strings.Join(names(report.Events), " ")
	report.Problem = r.problem(report.Events, f, int(pr.strikes.Load()))
	report.OK = report.Problem == ""
	return report, ctx.Err()
}

// CheckListen returns why a peer cannot listen on an address; see Options.Listen.
func CheckListen(address string) error {
	addr, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return fmt.Errorf("the address to listen on must be HOST:PORT, such as 127.0.0.1:4433: %w", err)
	}
	if addr.IP.To4() == nil || addr.IP.IsUnspecified() {
		return fmt.Errorf("the address to listen on must be a single IPv4 address, to which the stream connects, not %q", address)
	}
	return nil
}

// start starts the peer of a fault for a stream.
func start(p *policy.Policy, stream string, f *Fault, o *Options) (*peer, *Target, error) {
	st := p.StreamType(stream)
	if st == nil {
		return nil, nil, fmt.Errorf("%w %q", policy.ErrUnknownStreamType, stream)
	}
	if ok, why := f.Fits(st); !ok {
		return nil, nil, fmt.Errorf("fault %s does not apply to streamtype %q: %s", f.Name, stream, why)
	}
	args, err := f.check(o.Args)
	if err != nil {
		return nil, nil, err
	}
	if err := CheckListen(o.listen()); err != nil {
		return nil, nil, err
	}
	s := newSubject(o.hurried(st), args, o.hurry(), o.connectTimeout())
	s.tls = s.tls && !(o.Plain && f.Family != "tls")
	pr := newPeer(s, o)
	b := new(behavior)
	if !o.healthy {
		b = f.misbehave(pr)
	}
	target, err := pr.start(b)
	if err != nil {
		pr.close()
		return nil, nil, fmt.Errorf("fault %s: %w", f.Name, err)
	}
	return pr, target, nil
}

// Patient is a value of Options.Shortest for runs whose result must not depend on the load
// of the machine.
const Patient = 5 * time.Second

// shorten divides a timeout by Hurry.
func (o *Options) shorten(d time.Duration) time.Duration {
	return max(d/time.Duration(o.hurry()), min(d, cmp.Or(o.Shortest, time.Second)))
}

// hurried returns a streamtype with its times divided by Hurry.
func (o *Options) hurried(st *policy.StreamType) *policy.StreamType {
	if o.hurry() == 1 {
		return st
	}
	c := *st
	by := time.Duration(o.hurry())
	c.Timeout = o.shorten(c.Timeout)
	r := policy.Retry{}
	if st.Retry != nil {
		r = *st.Retry
	}
	r.ValidPing, r.ValidHangup = st.Validity()
	r.ValidHangup = o.shorten(r.ValidHangup)
	r.ValidPing = min(o.shorten(r.ValidPing), r.ValidHangup*3/4)
	r.Backoff = slices.Clone(r.Backoff)
	if len(r.Backoff) == 0 {
		r.Backoff = []time.Duration{r.Delay(0, 0)}
	}
	for i := range r.Backoff {
		r.Backoff[i] /= by
	}
	c.Retry = &r
	if st.MQTT != nil && st.MQTT.KeepAlive > 0 {
		m := *st.MQTT
		m.KeepAlive = max(time.Second, (m.KeepAlive / by).Truncate(time.Second))
		c.MQTT = &m
	}
	return &c
}

// chain returns the streamtypes that follow st in its requests.
func chain(p *policy.Policy, st *policy.StreamType) (all []*policy.StreamType) {
	for next := st.Rideshare; next != "" && next != st.Name && len(all) < len(p.StreamTypes); {
		other := p.StreamType(next)
		if other == nil {
			break
		}
		all = append(all, other)
		next = other.Rideshare
	}
	return all
}

// A run observes a stream.
type run struct {
	matcher
	start   time.Time
	chain   []*policy.StreamType
	ca      *testcert.Authority
	changed chan struct{} // signals an event

	mu       sync.Mutex
	events   []Event
	sent     int  // messages sent in this connection
	settling bool // timeouts are those of settle
	timeouts int  // timeouts of settle
}

// message is the message that streams send.
const message = "faulttest"

func (r *run) execute(ctx context.Context, target *Target, o *Options) error {
	changed := target.settings(r.StreamType)
	c, err := runtime.NewContext(&policy.Policy{StreamTypes: append([]*policy.StreamType{changed}, r.chain...)}, runtime.Options{
		Transports:     o.Transports(o.hurry()),
		ConnectTimeout: o.connectTimeout(),
		Credentials:    dummy.Credentials{CA: r.ca},
		Cookies:        dummy.Cookies{},
		Logger:         slog.New(slog.DiscardHandler),
		DialContext:    target.DialContext,
		Jitter:         func() uint16 { return 0 },
	})
	if err != nil {
		return err
	}
	defer c.Shutdown(context.WithoutCancel(ctx))
	h := runtime.Handlers{State: r.state, Rx: r.rx}
	if r.Sends() {
		h.Tx = r.tx
	}
	s, err := c.NewStream(r.Name, h)
	if err != nil {
		return err
	}
	if !r.NailedUp {
		if err := r.request(s); err != nil {
			return err
		}
	}
	r.wait(ctx, s, cmp.Or(o.Timeout, r.longest()), cmp.Or(o.hush, 150*time.Millisecond))
	return nil
}

// request starts an attempt, or requests to send.
func (r *run) request(s *runtime.Stream) error {
	return s.RequestTxLen(uint64(len(message) * (1 + len(r.chain))))
}

// longest returns the maximum duration of a run.
func (r *run) longest() time.Duration {
	_, hangup := r.Validity()
	d := 20*time.Second + hangup + r.Timeout + 4*3*time.Second + r.atLeast
	for i := range uint16(maxAttempts) {
		d += r.connectTimeout + max(r.Retry.Delay(i, 65535), r.retryAfter)
	}
	return d
}

// wait waits until the run is decided. hush is how long it waits for unexpected events on
// a connection that stays open.
func (r *run) wait(ctx context.Context, s *runtime.Stream, limit, hush time.Duration) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	var settled <-chan time.Time
	step := 0 // step of settling
	for {
		v, _ := r.match(names(r.snapshot()))
		switch {
		case v == wrong || v == enough:
			return
		case v == complete && step == 0:
			step = 1
			if last := s.State(); last == runtime.StateConnected || last == runtime.StateQoSAckRemote || last == runtime.StateQoSNackRemote {
				settled = time.After(hush)
			} else {
				r.settle(s)
			}
		case v == complete && step < 3 && r.settledTimes() >= step:
			// A due attempt begins between two timeouts.
			if step++; step == 3 {
				return
			}
			r.settle(s)
		}
		select {
		case <-r.changed:
		case <-settled:
			return
		case <-deadline.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (r *run) settle(s *runtime.Stream) {
	r.mu.Lock()
	r.settling = true
	r.mu.Unlock()
	s.StartTimeout(1)
}

func (r *run) settledTimes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.timeouts
}

func (r *run) snapshot() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// observed returns the events up to the last attempt that a run observes. Others may follow
// before the run stops.
func (r *run) observed(events []Event) []Event {
	for i := range events {
		if v, _ := r.match(names(events[:i+1])); v == enough {
			return events[:i+1]
		}
	}
	return events
}

// names returns the names of the significant events: without sent payload, and with
// successive received pieces merged.
func names(events []Event) (all []string) {
	for _, e := range events {
		if e.Name != "tx" && (e.Name != "rx" || len(all) == 0 || all[len(all)-1] != "rx") {
			all = append(all, e.Name)
		}
	}
	return all
}

// note records an event. Successive pieces of payload are merged.
func (r *run) note(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := Event{Name: name, At: time.Since(r.start)}
	if err != nil {
		e.Cause = strings.ReplaceAll(err.Error(), "sspolicy: ", "")
	}
	if n := len(r.events); n == 0 || name != "rx" && name != "tx" || r.events[n-1].Name != name {
		r.events = append(r.events, e)
	}
	r.wake()
}

func (r *run) wake() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *run) state(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
	if state == runtime.StateDestroying || errors.Is(s.Err(), runtime.ErrClosed) {
		return runtime.OK // at the end of the run
	}
	r.mu.Lock()
	if r.settling && state == runtime.StateTimeout {
		r.timeouts++
		r.wake()
		r.mu.Unlock()
		return runtime.OK
	}
	r.mu.Unlock()
	var cause error
	switch state {
	case runtime.StateUnreachable, runtime.StateDisconnected:
		cause = s.Err()
		s.CancelTimeout()
	case runtime.StateConnecting:
		r.mu.Lock()
		r.sent = 0
		r.mu.Unlock()
	}
	r.note(state.Short(), cause)
	switch state {
	case runtime.StateConnected:
		if r.isHTTP() {
			s.StartTimeout(0)
		} else if r.Sends() {
			r.request(s)
		}
	case runtime.StateTimeout:
		return runtime.DisconnectMe
	}
	return runtime.OK
}

func (r *run) rx(_ *runtime.Stream, _ []byte, flags runtime.Flags) runtime.Result {
	if flags&runtime.FlagPerfJSON == 0 {
		r.note("rx", nil)
	}
	return runtime.OK
}

// tx sends one message of each streamtype that shares the request.
func (r *run) tx(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
	r.mu.Lock()
	if r.sent > len(r.chain) {
		r.mu.Unlock()
		return 0, 0, runtime.TxDontSend
	}
	r.sent++
	r.mu.Unlock()
	r.note("tx", nil)
	return copy(buf, message), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
}

// noStrike is the problem of a run in which the fault did not act.
const noStrike = "the peer did not misbehave"

// problem describes how a run differs from the expectation of its fault, or returns
// "".
func (r *run) problem(events []Event, f *Fault, strikes int) string {
	v, want := r.match(names(events))
	switch {
	case v == wrong:
		return fmt.Sprintf("the states differ: expected %s", want)
	case v == incomplete:
		return fmt.Sprintf("the stream is stuck: expected %s", want)
	}
	if err := r.times(events); err != nil {
		return err.Error()
	}
	if strikes == 0 {
		return noStrike
	}
	if f.Cause == "" {
		return ""
	}
	last := ""
	for _, e := range events {
		if e.Cause == "" {
			continue
		}
		if last = e.Cause; strings.Contains(last, f.Cause) {
			return ""
		}
	}
	if last == "" {
		return "" // connections that are made before the first check, or reused
	}
	return fmt.Sprintf("the cause is %q: expected %q", last, f.Cause)
}
