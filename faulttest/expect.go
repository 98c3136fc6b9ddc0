package faulttest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A subject is a streamtype under a fault: what its states depend on.
type subject struct {
	*policy.StreamType      // with times divided by the hurry
	tls                bool // connections use TLS
	args               Args // complete
	hurry              int  // at least 1
	connectTimeout     time.Duration
}

// newSubject returns a subject. The arguments are complete.
func newSubject(st *policy.StreamType, args Args, hurry int, connectTimeout time.Duration) *subject {
	return &subject{StreamType: st, tls: usesTLS(st), args: args, hurry: hurry, connectTimeout: connectTimeout}
}

// usesTLS reports whether connections of a streamtype use TLS, which the scheme of its
// endpoint can turn off.
func usesTLS(st *policy.StreamType) bool {
	scheme, _, found := strings.Cut(strings.ToLower(st.Endpoint), "://")
	return st.TLS && (!found || scheme != "http" && scheme != "ws" && scheme != "mqtt")
}

// ms returns a time of the arguments, divided by the hurry.
func (s *subject) ms(name string) time.Duration { return s.args.ms(name) / time.Duration(s.hurry) }

// An attempt is described by the states and payloads after CNG, such as "UNR" or
// "CON rx DIS". Successive rx are one. A stream that has connected and stays so has no
// DIS at the end.
const unreachable = "UNR"

// timedOut is a part of the cause of an attempt that has no answer in time.
var timedOut = strings.TrimPrefix(runtime.ErrTimeout.Error(), "sspolicy: ")

// An expectation is what a stream must do under a fault.
type expectation struct {
	attempts   func(n int) []string // the alternatives of the n-th attempt, from 1
	retryAfter time.Duration        // the least wait before a retry
	atLeast    time.Duration        // the least time of the first attempt
	lasts      time.Duration        // how long a connection that is lost has lasted at least
}

// expect returns an expectation with the same alternatives for each attempt.
func expect(alternatives ...string) expectation {
	return expectation{attempts: always(alternatives...)}
}

// fails expects that each attempt fails.
func fails(*subject) expectation { return expect(unreachable) }

// always returns the same alternatives for each attempt.
func always(alternatives ...string) func(int) []string {
	return func(int) []string { return alternatives }
}

func (s *subject) isHTTP() bool { return s.Carrier().IsHTTP() }

// user returns the state that http_resp_map has for a status, and a space, or "".
func (s *subject) user(status int) string {
	for _, m := range s.HTTP.RespMap {
		if int(m.Status) == status {
			return m.State.Short() + " "
		}
	}
	return ""
}

// status returns the status that a healthy server answers with.
func (s *subject) status() int {
	if s.HTTP.Expect != 0 {
		return int(s.HTTP.Expect)
	}
	return 200
}

// hasBody reports whether the response with a status has a body.
func (s *subject) hasBody(status int) bool {
	return s.HTTP.Method != "HEAD" && status != 204 && status != 304 && status >= 200
}

// answered describes an attempt over HTTP that gets a complete response.
func (s *subject) answered(status int) string {
	user := s.user(status)
	if status == 503 || status == 429 {
		return user + unreachable
	}
	rx, verdict := "", "NAK"
	if s.hasBody(status) {
		rx = "rx "
	}
	if s.HTTP.Expect == 0 && status/100 == 2 || status == int(s.HTTP.Expect) {
		verdict = "ACK"
	}
	return user + "CON " + rx + verdict + " DIS"
}

// healthy describes an attempt at a healthy peer.
func (s *subject) healthy() string {
	switch {
	case s.isHTTP():
		return s.answered(s.status())
	case s.Protocol != policy.ProtocolMQTT:
		return "CON rx"
	case s.MQTT.Topic != "":
		return "CON ACK"
	case s.MQTT.Subscribe != "":
		return "CON rx"
	}
	return "CON"
}

// opens describes the states up to CONNECTED at a healthy peer.
func (s *subject) opens() string {
	if s.isHTTP() {
		return s.user(s.status()) + "CON"
	}
	return "CON"
}

// connectsFirst reports whether the stream is connected before its peer has sent
// anything.
func (s *subject) connectsFirst() bool { return s.Protocol == policy.ProtocolRaw && !s.tls }

// broken describes an attempt whose connection breaks before the peer has said anything.
func (s *subject) broken() string {
	if s.connectsFirst() {
		return "CON DIS"
	}
	return unreachable
}

// reset is broken for a connection that is reset, which a client may notice before it
// takes the connection for made.
func (s *subject) reset() []string {
	if s.connectsFirst() {
		return []string{s.broken(), unreachable}
	}
	return []string{unreachable}
}

// silent describes an attempt whose peer says nothing from the beginning.
func (s *subject) silent() string {
	if s.connectsFirst() {
		return s.stalls("CON")
	}
	return unreachable
}

// silence expects silent of each attempt.
func (s *subject) silence() expectation {
	e := expect(s.silent())
	e.lasts = s.hangup()
	return e
}

// stalled expects stalls of each attempt.
func (s *subject) stalled(reached string) expectation {
	e := expect(s.stalls(reached))
	e.lasts = s.hangup()
	return e
}

// hangup returns how long a silent connection lasts; 0 means without end.
func (s *subject) hangup() time.Duration {
	_, hangup := s.Validity()
	if s.Protocol == policy.ProtocolH1 || s.Protocol == policy.ProtocolRaw {
		hangup = 0 // nothing watches these
	}
	if s.Protocol == policy.ProtocolMQTT {
		if k := s.MQTT.KeepAlive * 3 / 2; k > 0 && (hangup == 0 || k < hangup) {
			hangup = k
		}
	}
	return hangup
}

// stalls describes an attempt that reaches the given states and then hears nothing.
func (s *subject) stalls(reached string) string {
	hangup := s.hangup()
	switch limit := s.Timeout; {
	case s.isHTTP() && limit > 0 && (hangup == 0 || limit < hangup):
		return reached + " TMO DIS"
	case hangup > 0:
		return reached + " DIS"
	}
	return reached
}

// delayed returns the possible attempts if the peer takes from least to most longer to
// answer.
func (s *subject) delayed(least, most time.Duration) expectation {
	var all []string
	if least < s.connectTimeout {
		all = append(all, s.healthy())
	}
	if most >= s.connectTimeout {
		all = append(all, s.silent())
	}
	return expectation{attempts: always(all...), atLeast: min(least, s.connectTimeout)}
}

// anywhere returns the possible attempts if the connection breaks at an unknown place,
// or falls silent there.
func (s *subject) anywhere(silent bool) expectation {
	all := []string{unreachable, s.healthy(), s.opens() + " DIS", s.opens() + " rx DIS"}
	if silent {
		all = append(all, s.stalls(s.opens()), s.stalls(s.opens()+" rx"))
	}
	if s.healthy() == "CON ACK" {
		all = append(all, "CON ACK DIS")
	}
	return expect(all...)
}

const (
	maxAttempts = 8 // that a run looks at, if there are more
	maxLosses   = 3 // the same, of connections that are lost
)

// A verdict is what the events of a run so far say.
type verdict int

const (
	wrong      verdict = iota
	incomplete         // the expected events so far; others must follow
	complete           // all expected events; no other may follow
	enough             // as many attempts as a run looks at; others follow
)

// A matcher compares events with the attempts that a fault expects.
type matcher struct {
	*subject
	expectation
}

// begin returns the events up to the first attempt.
func (m *matcher) begin() []string {
	if m.NailedUp {
		return []string{"CRE", "CNG"}
	}
	return []string{"CRE", "POL", "CNG"}
}

// next returns the events that follow an attempt, given the failures before it, and
// whether another attempt follows. tries is the new number of failures.
func (m *matcher) next(attempt string, before uint16) (events []string, again bool, tries uint16) {
	retry := []string{"(wait)", "POL", "CNG"}
	switch tries = before; {
	case strings.HasSuffix(attempt, unreachable):
		if tries++; m.Retry.Conceals(tries) {
			return retry, true, tries
		}
		return []string{"ARF"}, false, tries
	case !strings.HasSuffix(attempt, "DIS"), // it stays
		m.isHTTP() && (strings.Contains(attempt, "ACK") || strings.Contains(attempt, "NAK")),
		m.Opportunistic, strings.Contains(attempt, "TMO"): // the run gave it up
		return nil, false, 0
	}
	if m.lasts >= m.Retry.Steady() {
		tries = 0 // it ended the series of failures
	}
	if tries++; m.Retry.Conceals(tries) {
		return retry, true, tries
	}
	return []string{"UNR", "ARF"}, false, tries
}

// limit returns how many attempts a run looks at.
func limit(attempt string) int {
	if strings.HasSuffix(attempt, "DIS") {
		return maxLosses
	}
	return maxAttempts
}

// match compares the events of a run. want is what is expected at the first difference.
func (m *matcher) match(events []string) (v verdict, want string) {
	n := prefix(events, m.begin())
	switch {
	case n == len(m.begin()):
		return m.from(events[n:], 1, 0)
	case n == len(events):
		return incomplete, m.begin()[n]
	}
	return wrong, m.begin()[n]
}

// from is match from the n-th attempt on, before which there were tries failures.
func (m *matcher) from(events []string, n int, tries uint16) (best verdict, want string) {
	for _, attempt := range m.attempts(n) {
		v, w := m.attempt(events, attempt, n, tries)
		switch {
		case v > best:
			best, want = v, w
		case v == best && w != "" && !slices.Contains(strings.Split(want, " or "), w):
			want = strings.TrimPrefix(want+" or "+w, " or ")
		}
	}
	return best, want
}

func (m *matcher) attempt(events []string, attempt string, n int, tries uint16) (verdict, string) {
	follow, again, tries := m.next(attempt, tries)
	expected := append(strings.Fields(attempt), slices.DeleteFunc(follow, func(e string) bool { return e == "(wait)" })...)
	k := prefix(events, expected)
	switch {
	case k < len(expected) && k == len(events):
		return incomplete, expected[k]
	case k < len(expected):
		return wrong, expected[k]
	case !again && k == len(events):
		return complete, ""
	case !again:
		return wrong, "no more"
	case n >= limit(attempt):
		return enough, ""
	}
	return m.from(events[k:], n+1, tries)
}

// prefix returns the number of equal elements at the beginning.
func prefix(a, b []string) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// String returns the expected sequence, in the notation of docs/runtime.md. Of
// alternatives it has the attempt in brackets, and the sequence that follows the first.
func (m *matcher) String() string {
	out := m.begin()
	tries := uint16(0)
	for n := 1; ; n++ {
		all := m.attempts(n)
		attempt := all[0]
		if len(all) > 1 {
			out = append(out, "("+strings.Join(all, " | ")+")")
		} else {
			out = append(out, attempt)
		}
		var follow []string
		var again bool
		follow, again, tries = m.next(attempt, tries)
		if len(all) > 1 {
			return strings.Join(append(out, "…"), " ")
		}
		out = append(out, follow...)
		if !again {
			return strings.Join(out, " ")
		}
		if n >= limit(attempt) {
			return strings.Join(append(out[:len(out)-len(follow)], "(wait)", "…"), " ")
		}
	}
}

// times checks that no retry came earlier than the policy and the peer say, and that the
// first attempt took as long as the fault makes it.
func (m *matcher) times(events []Event) error {
	tries := uint16(0)
	var last, connected *Event
	if n := len(m.begin()); m.atLeast > 0 && len(events) > n {
		end := n
		for end+1 < len(events) && !slices.Contains([]string{"UNR", "DIS", "ACK"}, events[end].Name) {
			end++
		}
		if took := events[end].At - events[n-1].At; took < m.atLeast {
			return fmt.Errorf("the first attempt took %v, less than %v", took, m.atLeast)
		}
	}
	for i := range events {
		e := &events[i]
		switch e.Name {
		case "CON":
			connected = e
		case "UNR", "DIS":
			if connected != nil && e.At-connected.At >= m.Retry.Steady() {
				tries = 0
			}
			last, connected = e, nil
		case "POL":
			if last == nil {
				continue
			}
			least := m.Retry.Delay(tries, 0)
			if last.Name == "UNR" && !strings.Contains(last.Cause, timedOut) { // else nothing has answered
				least = max(least, m.retryAfter)
			}
			if got := e.At - last.At; got < least {
				return fmt.Errorf("the retry at %v came %v after %s, but the policy says %v", e.At, got, last.Name, least)
			}
			tries++
			last = nil
		}
	}
	return nil
}
