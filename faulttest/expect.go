package faulttest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A subject is a streamtype under a fault, with the settings that its states depend
// on.
type subject struct {
	*policy.StreamType      // with times divided by hurry
	tls                bool // connections use TLS
	args               Args // with all defaults
	hurry              int  // at least 1
	connectTimeout     time.Duration
}

// newSubject returns a subject. args has all defaults.
func newSubject(st *policy.StreamType, args Args, hurry int, connectTimeout time.Duration) *subject {
	return &subject{StreamType: st, tls: usesTLS(st), args: args, hurry: hurry, connectTimeout: connectTimeout}
}

// usesTLS reports whether connections of a streamtype use TLS. The scheme of its
// endpoint can turn it off.
func usesTLS(st *policy.StreamType) bool {
	scheme, _, found := strings.Cut(strings.ToLower(st.Endpoint), "://")
	return st.TLS && (!found || scheme != "http" && scheme != "ws" && scheme != "mqtt")
}

// ms returns a duration from the arguments, divided by hurry.
func (s *subject) ms(name string) time.Duration { return s.args.ms(name) / time.Duration(s.hurry) }

// An attempt is described by the states and payloads after CNG, such as "UNR" or
// "CON rx DIS". Successive rx are one. A stream that stays connected has no DIS at
// the end.
const unreachable = "UNR"

// timedOut is part of the cause of an attempt that is not answered in time.
var timedOut = strings.TrimPrefix(runtime.ErrTimeout.Error(), "sspolicy: ")

// An expectation is the required behaviour of a stream under a fault.
type expectation struct {
	attempts   func(n int) []string // the alternatives of attempt n, counted from 1
	retryAfter time.Duration        // minimum wait before a retry
	atLeast    time.Duration        // minimum duration of the first attempt
	lasts      time.Duration        // minimum duration of a lost connection
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

// user returns the state in http_resp_map for a status, followed by a space, or "".
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

// answered describes an attempt over HTTP that receives a complete response.
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

// healthy describes an attempt with a healthy peer.
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

// opens describes the states up to CONNECTED with a healthy peer.
func (s *subject) opens() string {
	if s.isHTTP() {
		return s.user(s.status()) + "CON"
	}
	return "CON"
}

// connectsFirst reports whether the stream is connected before its peer has sent
// anything.
func (s *subject) connectsFirst() bool { return s.Protocol == policy.ProtocolRaw && !s.tls }

// broken describes an attempt whose connection breaks before the peer has sent
// anything.
func (s *subject) broken() string {
	if s.connectsFirst() {
		return "CON DIS"
	}
	return unreachable
}

// reset is like broken for a connection that is reset, which a client may notice
// before the connection counts as established.
func (s *subject) reset() []string {
	if s.connectsFirst() {
		return []string{s.broken(), unreachable}
	}
	return []string{unreachable}
}

// silent describes an attempt whose peer sends nothing.
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

// hangup returns how long a silent connection lasts; 0 means forever.
func (s *subject) hangup() time.Duration {
	_, hangup := s.Validity()
	if s.Protocol == policy.ProtocolH1 || s.Protocol == policy.ProtocolRaw {
		hangup = 0 // no validity checks
	}
	if s.Protocol == policy.ProtocolMQTT {
		if k := s.MQTT.KeepAlive * 3 / 2; k > 0 && (hangup == 0 || k < hangup) {
			hangup = k
		}
	}
	return hangup
}

// stalls describes an attempt that reaches the given states and then receives
// nothing.
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

// delayed returns the possible attempts if the peer answers late, by least to most.
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

// anywhere returns the possible attempts if the connection breaks or falls silent
// at an unknown point.
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
	maxAttempts = 8 // that a run observes
	maxLosses   = 3 // lost connections that a run observes
)

// A verdict is the result of comparing the events of a run so far.
type verdict int

const (
	wrong      verdict = iota
	incomplete         // as expected; more events must follow
	complete           // all expected events; no others may follow
	enough             // as many attempts as a run observes; others follow
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

// next returns the events that follow an attempt, given the number of failures
// before it. It also returns whether another attempt follows, and the new number of
// failures.
func (m *matcher) next(attempt string, before uint16) (events []string, again bool, tries uint16) {
	retry := []string{"(wait)", "POL", "CNG"}
	switch tries = before; {
	case strings.HasSuffix(attempt, unreachable):
		if tries++; m.Retry.Conceals(tries) {
			return retry, true, tries
		}
		return []string{"ARF"}, false, tries
	case !strings.HasSuffix(attempt, "DIS"), // it stays connected
		m.isHTTP() && (strings.Contains(attempt, "ACK") || strings.Contains(attempt, "NAK")),
		m.Opportunistic, strings.Contains(attempt, "TMO"): // the run ended the connection
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

// limit returns the number of attempts that a run observes.
func limit(attempt string) int {
	if strings.HasSuffix(attempt, "DIS") {
		return maxLosses
	}
	return maxAttempts
}

// match compares the events of a run. want is the expected event at the first
// difference.
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

// from is like match, starting with attempt n after tries failures.
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

// prefix returns the length of the common prefix of a and b.
func prefix(a, b []string) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// String returns the expected sequence, in the notation of docs/runtime.md. If
// there are alternatives, the attempt is in brackets, followed by the sequence of
// the first one.
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

// times checks that no retry came earlier than the policy and the peer allow, and
// that the first attempt took as long as the fault requires.
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
			if last.Name == "UNR" && !strings.Contains(last.Cause, timedOut) { // on a timeout the peer has not answered
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
