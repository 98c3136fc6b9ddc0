package sim

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A talk is the protocol-specific part of a program: what it sends, and checks of what it
// receives. The mu of the program is locked during its methods.
type talk interface {
	// create is called for CREATING, begin for CONNECTING, connected for CONNECTED.
	create(s *runtime.Stream)
	begin(s *runtime.Stream)
	connected()

	// announce prepares the next message and returns its length.
	announce() int

	// tx is the Tx callback.
	tx(buf []byte) (n int, flags runtime.Flags, r runtime.Result)

	// rx checks a piece of payload. It reports whether the stream has succeeded.
	rx(buf []byte, flags runtime.Flags) (success bool, wrong string)

	// verdict is called for ACK and NAK. It reports whether the stream has succeeded.
	verdict(ack bool) (success bool, wrong string)

	// check returns what is wrong at the end of the run.
	check() string
}

// A program has one stream at a time of a streamtype, calls its methods, implements its
// callbacks, and checks that they obey the laws.
type program struct {
	w     *world
	i     int
	name  string
	host  string
	many  bool // a connection carries messages until it is lost
	talk  talk
	skews map[string]draws

	mu      sync.Mutex
	s       *runtime.Stream
	born    int // number of streams created
	inside  int // running callbacks
	answers []*event

	speaking bool // a call of soonLocked is pending
	spoken   int  // number of calls of soonLocked
	pushes   int

	// Of the stream.
	ended     bool
	state     runtime.State // latest state, except TIMEOUT and user states
	before    string        // name of the latest state, including TIMEOUT
	result    runtime.Result
	stateAt   time.Time
	connectAt time.Time
	failures  int  // failures in this series, as counted by the policy
	unknown   bool // failures is not known
	due       time.Time
	waits     bool // a wait is in progress until due
	slowUntil time.Time
	timer     time.Time // when TIMEOUT is due
	timing    bool
	attempt   int       // number of CONNECTING states
	limit     time.Time // time limit of the attempt
	verdict   bool      // ACK or NAK since CONNECTED
	rotation  int       // of the credentials when the attempt began
	succeeded time.Time
	declining bool      // DisconnectMe was returned since CONNECTING
	declined  time.Time // first CONNECTING after such an attempt

	// For PauseRx.
	pausedAt     time.Time
	pausedStream *runtime.Stream
}

func newProgram(w *world, i int) *program {
	p := &program{w: w, i: i, name: fmt.Sprint("s", i), host: w.protocol.hostOf(i), skews: map[string]draws{}}
	p.talk = w.protocol.talk(p)
	st := w.protocol.streamType(w, i)
	p.many = st.HTTP == nil || st.Protocol == policy.ProtocolWS
	return p
}

// involved returns the names in the trace that concern the program.
func (p *program) involved() []string { return []string{p.name, p.host, proxyHost} }

func (p *program) find(format string, args ...any) { p.w.find(p.involved(), format, args...) }

// later calls f after about d. Calls for different purposes never coincide.
func (p *program) later(purpose string, d time.Duration, f func()) {
	now := time.Now()
	time.AfterFunc(instant(fork(p.w.seed, "later", p.name, purpose), now, d).Sub(now), f)
}

// create creates a stream. If that fails, it tries again later.
func (p *program) create() {
	if p.w.ending.Load() {
		return
	}
	p.mu.Lock()
	p.born++
	p.ended, p.state, p.before, p.failures, p.unknown, p.waits, p.timing = false, 0, "", 0, false, false, false
	p.succeeded = time.Time{}
	p.mu.Unlock()
	_, err := p.w.current().NewStream(p.name, p.handlers())
	if err != nil {
		p.w.tr.note(p.name, "NewStream: %v", err)
		if !errors.Is(err, runtime.ErrClosed) && !errors.Is(err, runtime.ErrRefused) && !errors.Is(err, runtime.ErrPolicyChanged) {
			p.find("NewStream: %v", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.state == 0 { // otherwise DESTROYING has come or will come
			p.later("create", time.Second, p.create)
		}
		return
	}
	if p.w.calm.Load() {
		p.calmDown()
	}
}

func (p *program) handlers() runtime.Handlers {
	return runtime.Handlers{State: p.onState, Rx: p.onRx, Tx: p.onTx}
}

func (p *program) owns(s *runtime.Stream) bool { return s.StreamType().Name == p.name }

// stream returns the current stream, or nil.
func (p *program) stream() *runtime.Stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.s
}

// do executes an event of the plan.
func (p *program) do(e *event) {
	if e.kind >= answerDisconnect {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.answers = append(p.answers, e)
		return
	}
	s := p.stream()
	if s == nil {
		return
	}
	switch e.kind {
	case callConnect:
		s.Connect()
	case callTx:
		s.RequestTx()
	case callTxLen:
		p.mu.Lock()
		n := p.talk.announce()
		p.mu.Unlock()
		s.RequestTxLen(uint64(n))
	case callDestroy:
		s.Destroy()
	case callTimeout:
		d := time.Duration(e.arg) * time.Millisecond
		if e.on != nil && e.arg%2 == 0 {
			d = 1 // it expires before the moment, or just after it
		}
		p.startTimeout(s, d)
	case callCancel:
		p.mu.Lock()
		p.timing = false
		p.mu.Unlock()
		s.CancelTimeout()
	case callPause:
		s.PauseRx()
		p.mu.Lock()
		p.pausedAt, p.pausedStream = time.Now(), s
		p.mu.Unlock()
		time.AfterFunc(time.Until(e.end()), func() {
			p.mu.Lock()
			p.pausedStream = nil
			p.mu.Unlock()
			s.ResumeRx()
		})
	case callHandle:
		s.SetHandlers(p.handlers())
	case callMetadata:
		s.Metadata("got")
		s.Err()
	}
}

// startTimeout starts the timer of the stream.
func (p *program) startTimeout(s *runtime.Stream, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.startTimeoutLocked(s, d)
}

func (p *program) startTimeoutLocked(s *runtime.Stream, d time.Duration) {
	if p.ended {
		return
	}
	p.timer, p.timing = time.Now().Add(d), true
	due := p.timer
	s.StartTimeout(d)
	if p.w.protocol.proxied { // the timer is that of the proxy
		return
	}
	p.later("timeout", d+10*time.Millisecond, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.timing && p.timer.Equal(due) && !p.ended && !p.busySinceLocked(due) && s.RequestTx() == nil { // otherwise the stream is being destroyed
			p.find("TIMEOUT has not come")
		}
	})
}

// busySinceLocked reports whether a callback has been running at t or later.
func (p *program) busySinceLocked(t time.Time) bool { return p.inside > 0 || !p.slowUntil.Before(t) }

// enterLocked begins a callback.
func (p *program) enterLocked(what string) {
	if p.inside++; p.inside > 1 {
		p.find("%s while another callback is running", what)
	}
	if p.ended {
		p.find("%s after DESTROYING", what)
	}
}

// answerLocked returns the result of a callback, which may take time, and ends the
// callback. The plan determines the result if may is set.
func (p *program) answerLocked(may bool) runtime.Result {
	r := runtime.OK
	if may && len(p.answers) > 0 && !p.w.calm.Load() {
		e := p.answers[0]
		p.answers = p.answers[1:]
		switch e.kind {
		case answerDisconnect:
			r = runtime.DisconnectMe
		case answerDestroy:
			r = runtime.DestroyMe
		case answerSlow:
			d := time.Duration(e.arg) * time.Millisecond
			now := time.Now()
			at := instant(fork(p.w.seed, "slow", e.number), now, d)
			p.sleepLocked(at.Sub(now))
		}
	}
	p.inside--
	return r
}

// noteLocked records the result of a callback.
func (p *program) noteLocked(r runtime.Result) {
	if r == runtime.DisconnectMe {
		p.declining = true
	}
}

// sleepLocked makes a callback take d.
func (p *program) sleepLocked(d time.Duration) {
	p.w.tr.note(p.name, "slow callback")
	p.mu.Unlock()
	time.Sleep(d)
	p.mu.Lock()
	p.slowUntil = time.Now()
}

// transitions has the states that may follow each state of a client, as in docs/runtime.md.
var transitions = map[string]string{
	"": "CRE", "CRE": "CNG TMO POL DES", "DIS": "CNG TMO POL DES UNR", "UNR": "ARF TMO POL CNG DES",
	"CON": "ACK NAK DIS TMO", "CNG": "UNR CON TMO POL ARF CNG DES", "DES": "", "POL": "CNG TMO DES POL",
	"ARF": "CNG POL TMO DES", "ACK": "DIS TMO", "NAK": "DIS TMO",
}

func (p *program) onState(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := teststream.Name(state)
	p.w.tr.mu.Lock()
	p.w.tr.states++
	p.w.tr.mu.Unlock()
	p.enterLocked(name)
	now := time.Now()
	p.w.tr.note(p.name, "%s", p.stateText(s, state, name))
	p.w.moment(p.host, called, now)
	if state < runtime.StateUserBase && state != runtime.StateTimeout {
		last := teststream.Name(p.state)
		if p.state == 0 {
			last = ""
		}
		next := transitions
		if p.w.protocol.proxied {
			next = proxiedTransitions
		}
		allowed := strings.Fields(next[last])
		if p.many && (last == "ACK" || last == "NAK") {
			allowed = append(allowed, "ACK", "NAK")
		}
		if !slices.Contains(allowed, name) {
			p.find("%s after %s", name, last)
		}
	}
	p.checkTimesLocked(s, state, now)
	was, wasResult := p.state, p.result
	if state != runtime.StateTimeout && state < runtime.StateUserBase {
		p.state, p.stateAt = state, now
	}
	p.before = name
	wrong, success := "", false
	switch state {
	case runtime.StateCreating:
		p.s = s
		p.talk.create(s)
	case runtime.StateConnecting:
		if p.declining {
			p.declining, p.declined = false, now
		}
		p.attempt++
		p.rotation = p.w.rotations()
		if d := fork(p.w.seed, "limit", p.name, p.attempt); d.oneIn(5) && !p.w.calm.Load() {
			p.startTimeoutLocked(s, d.ms(20, 4000)+d.skew)
		}
		p.beginAttemptLocked(s, was, wasResult)
		p.talk.begin(s)
	case runtime.StateConnected:
		p.connectAt, p.verdict = now, false
		p.talk.connected()
		if p.many {
			p.speakSoonLocked(s)
		}
	case runtime.StateQoSAckRemote, runtime.StateQoSNackRemote:
		p.verdict = true
		success, wrong = p.talk.verdict(state == runtime.StateQoSAckRemote)
		if p.many {
			p.speakSoonLocked(s)
		}
	case runtime.StateDisconnected, runtime.StateUnreachable, runtime.StateUpstreamLinkRetry:
		if p.many && now.After(p.w.tr.start.Add(p.w.faultTime+settleTime)) && !p.w.ending.Load() {
			p.find("%s without a fault", name)
		}
		if !p.many && state == runtime.StateDisconnected && s.Err() == nil && !p.verdict {
			p.find("the request is complete without a verdict")
		}
		p.againLocked(s)
	case runtime.StateAllRetriesFailed:
		p.againLocked(s)
	case runtime.StateTimeout:
		if d := fork(p.w.seed, "timeout", p.name, p.attempt); d.oneIn(2) && !p.w.calm.Load() {
			p.sleepLocked(instant(d, now, d.ms(1, 2000)).Sub(now))
		}
	case runtime.StateDestroying:
		p.timing, p.waits = false, false
		p.answers = nil
		p.inside--
		p.ended = true
		p.later(fmt.Sprint("born", p.born), fork(p.w.seed, "born", p.name, p.born).ms(100, 3000), p.create)
		return runtime.OK
	}
	if wrong != "" {
		p.find("%s", wrong)
	}
	if success {
		p.succeeded = now
	}
	r := p.answerLocked(state != runtime.StateCreating)
	if r == runtime.OK && state == runtime.StateTimeout && !p.w.calm.Load() {
		r = runtime.DisconnectMe
	}
	if state != runtime.StateTimeout && state < runtime.StateUserBase {
		p.result = r
	}
	p.noteLocked(r)
	if r != runtime.OK {
		p.w.tr.note(p.name, "%s answered with %v", name, r)
	}
	return r
}

// stateText describes a state for the trace.
func (p *program) stateText(s *runtime.Stream, state runtime.State, name string) string {
	if state == runtime.StateUnreachable || state == runtime.StateDisconnected {
		if err := s.Err(); err != nil {
			return fmt.Sprintf("%s %s", name, p.w.clean(err.Error()))
		}
	}
	return name
}

// wording matches what readers and writers of connections add to an error.
var wording = regexp.MustCompile(`failed to [a-z ]+: |(read|write) (tcp)`)

// clean shortens the text of an error. Either a reader or a writer may report the end of a
// connection first.
func (w *world) clean(text string) string {
	text = wording.ReplaceAllString(text, "$2")
	if len(text) > 200 {
		text = text[:200]
	}
	return text
}

// beginAttemptLocked counts failures: an attempt by Connect begins a new series.
func (p *program) beginAttemptLocked(s *runtime.Stream, was runtime.State, answer runtime.Result) {
	switch {
	case p.w.protocol.proxied:
		return
	case was != runtime.StatePoll:
		p.failures, p.unknown = 0, false
	case answer != runtime.OK:
		p.unknown = true // after a declined POLL, RequestTx and Connect are indistinguishable
	}
	attempt, born := p.attempt, p.born
	began := time.Now()
	p.limit = began.Add(connectTimeout)
	var check func()
	check = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.born != born || p.attempt != attempt || p.state != runtime.StateConnecting || p.result != runtime.OK {
			return
		}
		if p.slowUntil.After(began) {
			p.limit = later(p.limit, p.slowUntil.Add(connectTimeout))
		}
		if over := time.Since(p.limit); over < 0 || p.busySinceLocked(p.limit) { // Tx may have restarted the limit
			p.later(fmt.Sprint("attempt", attempt), 6*time.Second-min(over, 0), check)
			return
		}
		p.find("an attempt takes longer than %v", connectTimeout)
	}
	p.later(fmt.Sprint("attempt", attempt), connectTimeout+6*time.Second, check)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// checkTimesLocked checks the times of POLL and TIMEOUT.
func (p *program) checkTimesLocked(s *runtime.Stream, state runtime.State, now time.Time) {
	if p.w.protocol.proxied { // the times are those of the proxy
		return
	}
	switch state {
	case runtime.StatePoll:
		if p.waits && now.Before(p.due) {
			p.find("POLL %v before the end of the wait", p.due.Sub(now))
		}
		if p.waits && now.After(p.due) && !p.busySinceLocked(p.due) {
			p.find("POLL %v after the end of the wait", now.Sub(p.due))
		}
		p.waits = false
	case runtime.StateConnecting:
		p.waits = false
	case runtime.StateTimeout:
		switch {
		case !p.timing:
			p.find("TIMEOUT without a timer")
		case now.Before(p.timer):
			p.find("TIMEOUT %v early", p.timer.Sub(now))
		case now.After(p.timer) && !p.busySinceLocked(p.timer):
			p.find("TIMEOUT %v late", now.Sub(p.timer))
		}
		p.timing = false
	case runtime.StateDisconnected:
		if !s.StreamType().IsHTTP() || !s.Retries() {
			p.timing = false
		}
		if s.Err() == nil || now.Sub(p.connectAt) >= steady(s.StreamType().Retry) {
			p.failures, p.unknown = 0, false
		}
	case runtime.StateQoSAckRemote:
		if s.StreamType().Protocol == policy.ProtocolMQTT {
			p.timing = false
		}
	case runtime.StateAllRetriesFailed:
		p.failures++
	}
}

// steady returns how long a connection must last to end a series of failures.
func steady(r *policy.Retry) time.Duration {
	longest := 10 * time.Second
	n := 1
	if r != nil {
		n = max(n, len(r.Backoff))
	}
	for i := range n {
		longest = max(longest, delay(r, i, 65535))
	}
	return longest
}

// onWait checks a wait that begins.
func (p *program) onWait(s *runtime.Stream, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.w.tr.note(p.name, "wait %v", d)
	now := time.Now()
	want := delay(s.StreamType().Retry, p.failures, p.w.jitterAt(now))
	if d != want && !p.unknown && d != retryAfter {
		p.find("a wait of %v, want %v after %d failures", d, want, p.failures)
	}
	p.failures++
	p.due, p.waits = now.Add(d), true
	due := p.due
	p.later("wait", d+10*time.Millisecond, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.waits && p.due.Equal(due) && !p.ended && !p.busySinceLocked(due) && s.RequestTx() == nil {
			p.find("no attempt at the end of the wait")
		}
	})
}

// retryAfter is the Retry-After of peers.
const retryAfter = 20 * time.Second

// againLocked may make an idle stream retry.
func (p *program) againLocked(s *runtime.Stream) {
	d := fork(p.w.seed, "again", p.name, p.attempt)
	switch {
	case p.w.calm.Load():
		p.soonLocked(d.ms(5000, 15_000), func() { p.push(s) })
	case d.oneIn(4):
	case d.oneIn(3):
		p.soonLocked(d.ms(100, 60_000), func() { s.Connect() })
	default:
		p.soonLocked(d.ms(100, 20_000), func() { s.RequestTx() })
	}
}

// speakSoonLocked makes a connected stream send again soon.
func (p *program) speakSoonLocked(s *runtime.Stream) {
	d := fork(p.w.seed, "speak", p.name, p.spoken)
	after := d.ms(1, 8000)
	if p.w.calm.Load() {
		after = d.ms(5000, 20_000)
	}
	p.soonLocked(after, func() { s.RequestTx() })
}

// soonLocked calls f after about d, unless another call is pending.
func (p *program) soonLocked(d time.Duration, f func()) {
	if p.speaking {
		return
	}
	p.speaking = true
	p.spoken++
	p.later(fmt.Sprint("soon", p.spoken), d, func() {
		p.mu.Lock()
		p.speaking = false
		p.mu.Unlock()
		f()
	})
}

// push makes a stream connect or send, whatever its state.
func (p *program) push(s *runtime.Stream) {
	p.mu.Lock()
	p.pushes++
	connect := p.pushes%2 == 0
	p.mu.Unlock()
	if connect {
		s.Connect()
	} else {
		s.RequestTx()
	}
}

// calmDown makes the stream retry repeatedly without disturbing it.
func (p *program) calmDown() {
	p.later("calm", 10*time.Millisecond, func() {
		s := p.stream()
		if s == nil || p.w.ending.Load() {
			return
		}
		p.push(s)
		p.later("calm again", 15*time.Second, p.calmDown)
	})
}

// checkSettled checks that the stream has succeeded since the faults.
func (p *program) checkSettled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.succeeded.Before(p.w.tr.start.Add(p.w.faultTime)) {
		p.find("no success within %v after the last fault; the stream is in %v, born %d, ended %v", settleTime, p.state, p.born, p.ended)
	}
}

// checkPrompt checks that the stream has succeeded again recently.
func (p *program) checkPrompt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.succeeded) > promptTime {
		p.find("no success for %v without faults", time.Since(p.succeeded))
	}
}

// checkEnd checks the stream after the end of its context.
func (p *program) checkEnd() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.find("no DESTROYING; the stream is in %v", p.state)
	}
	if wrong := p.talk.check(); wrong != "" {
		p.find("%s", wrong)
	}
}

func (p *program) onRx(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enterLocked("Rx")
	if s == p.pausedStream && len(buf) > 0 && time.Now().After(p.pausedAt) {
		p.find("Rx of a stream that has been paused")
	}
	p.w.tr.note(p.name, "rx %d flags %d", len(buf), flags)
	success, wrong := p.talk.rx(buf, flags)
	if wrong != "" {
		p.find("%s", wrong)
	}
	if success {
		p.succeeded = time.Now()
		if p.many {
			p.speakSoonLocked(s)
		}
	}
	r := p.answerLocked(len(buf) > 0)
	p.noteLocked(r)
	return r
}

func (p *program) onTx(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enterLocked("Tx")
	if r := p.answerLocked(true); r != runtime.OK {
		p.noteLocked(r)
		p.w.tr.note(p.name, "tx %v", r)
		return 0, 0, r
	}
	n, flags, r := p.talk.tx(buf)
	p.limit = time.Now().Add(connectTimeout)
	p.w.tr.note(p.name, "tx %d flags %d %v", n, flags, r)
	return n, flags, r
}
