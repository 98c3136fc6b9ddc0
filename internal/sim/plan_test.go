package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A plan is the list of external events of a run: faults of the network and of peers, and
// calls and answers of the program. Programs and peers also react to what happens; see
// program.
type plan struct {
	events []*event // by time
}

// An event is an entry of a plan.
type event struct {
	number int // index in the complete plan of the seed
	after  time.Duration
	lasts  time.Duration // 0 for an instant
	kind   kind
	target string // host, stream, or "" for the context
	arg    int    // depends on kind
	on     *cue   // moment to wait for from after on; nil if none

	start time.Time // of the run
	skew  time.Duration
}

// begin returns the time when the event begins or is armed.
func (e *event) begin() time.Time { return e.start.Add(e.after + e.skew) }

// period returns the time in which the event has an effect. It is empty before the moment
// of a cue.
func (e *event) period() (begin, end time.Time) {
	if e.on == nil {
		return e.begin(), e.begin().Add(e.lasts)
	}
	began := time.Duration(e.on.began.Load())
	if began == 0 {
		return e.start, e.start
	}
	return e.start.Add(began), e.start.Add(max(began, min(began+e.lasts, e.on.limit)))
}

func (e *event) end() time.Time {
	_, end := e.period()
	return end
}

func (e *event) String() string {
	s := fmt.Sprintf("%d: at %v, %v of %s", e.number, e.after, e.kind, cmp.Or(e.target, "the context"))
	if e.arg != 0 {
		s += fmt.Sprintf(" (%d)", e.arg)
	}
	if e.lasts > 0 {
		s += fmt.Sprintf(" for %v", e.lasts)
	}
	if e.on != nil {
		s += fmt.Sprintf(", %v", e.on)
	}
	return s
}

// A kind is a kind of event.
type kind int

const (
	// Faults of the network, those of dialing first.
	dialSlow    kind = iota // dialing takes up to arg ms longer
	dnsSlow                 // name resolution takes up to arg ms longer
	dnsFail                 // the resolver fails
	dnsNone                 // the name does not exist
	refuse                  // connections are refused
	blackHole               // dialing gets no answer
	slow                    // packets take up to arg ms longer
	cut                     // half of the new connections are reset within arg bytes
	partition               // packets arrive after the end of the event
	reset                   // all connections are reset
	hangUp                  // the server ends all connections
	vanish                  // the server silently forgets all connections, and is down
	restart                 // all connections are reset, and refused for a while
	restartLost             // a restart in which a broker loses its sessions
	lose                    // arg of 1000 datagrams are lost
	reorder                 // datagrams overtake each other, and some arrive twice
	rebind                  // clients get new addresses

	// Faults of the peer.
	peerBad    // it answers with failures, or cuts its responses short
	peerSlow   // its responses take up to arg ms
	peerSilent // it does not respond
	peerReads  // it reads slowly
	peerLate   // its certificate has expired or is not yet valid

	// Calls of a peer that is a server of the runtime.
	destroyClient   // Destroy of an accepted stream
	destroyListener // a new one follows
	drainListener   // Shutdown, for up to arg ms
	serverPolicy    // SetPolicy with a changed or the same streamtype

	// Calls of the program.
	callConnect
	callTx
	callTxLen
	callDestroy
	callTimeout // of arg ms
	callCancel
	callPause  // and ResumeRx after lasts
	callHandle // SetHandlers
	callMetadata

	// The result of the next callback of the stream.
	answerDisconnect
	answerDestroy
	answerSlow // the callback takes arg ms

	// For the context.
	setPolicy // another one
	overlay
	rotate // credentials
	closeContext
	shutdown
	kinds
)

var kindNames = [kinds]string{
	dialSlow: "slow dials", dnsSlow: "slow DNS", dnsFail: "DNS failure", dnsNone: "no such name", refuse: "refused connections",
	blackHole: "black hole", slow: "latency", cut: "cut connections", partition: "partition", reset: "reset", hangUp: "hang-up",
	vanish: "half-open connections", restart: "restart", restartLost: "restart without sessions",
	lose: "lost datagrams", reorder: "reordered datagrams", rebind: "new addresses of clients",
	peerBad: "bad answers", peerSlow: "slow answers", peerSilent: "no answers", peerReads: "slow reads", peerLate: "wrong clock",
	destroyClient: "Destroy of a client", destroyListener: "Destroy of the listener", drainListener: "Shutdown of the listener",
	serverPolicy: "SetPolicy of the server",
	callConnect:  "Connect", callTx: "RequestTx", callTxLen: "RequestTxLen", callDestroy: "Destroy", callTimeout: "StartTimeout",
	callCancel: "CancelTimeout", callPause: "PauseRx", callHandle: "SetHandlers", callMetadata: "SetMetadata",
	answerDisconnect: "answer DisconnectMe", answerDestroy: "answer DestroyMe", answerSlow: "slow callback",
	setPolicy: "SetPolicy", overlay: "Overlay", rotate: "new credentials", closeContext: "Close", shutdown: "Shutdown",
}

func (k kind) String() string { return kindNames[k] }

// A chance is the frequency of a kind of event, with its parameters.
type chance struct {
	kind   kind
	weight int
	lasts  [2]int // ms
	arg    [2]int
}

// ofHost, ofConnections, ofServer, ofStream and ofContext are the events of plans.
var (
	ofHost = []chance{
		{dialSlow, 2, [2]int{5000, 60_000}, [2]int{100, 20_000}},
		{dnsSlow, 1, [2]int{5000, 60_000}, [2]int{100, 5000}},
		{dnsFail, 1, [2]int{1000, 30_000}, [2]int{}},
		{dnsNone, 1, [2]int{1000, 30_000}, [2]int{}},
		{refuse, 2, [2]int{1000, 60_000}, [2]int{}},
		{blackHole, 2, [2]int{1000, 60_000}, [2]int{}},
		{slow, 3, [2]int{5000, 60_000}, [2]int{50, 4000}},
		{cut, 5, [2]int{5000, 90_000}, [2]int{1, 6000}},
		{partition, 3, [2]int{1000, 90_000}, [2]int{}},
		{reset, 3, [2]int{}, [2]int{}},
		{hangUp, 3, [2]int{}, [2]int{}},
		{vanish, 2, [2]int{100, 20_000}, [2]int{}},
		{restart, 2, [2]int{100, 20_000}, [2]int{}},
		{restartLost, 1, [2]int{100, 20_000}, [2]int{}},
		{peerBad, 4, [2]int{5000, 60_000}, [2]int{}},
		{peerSlow, 3, [2]int{5000, 60_000}, [2]int{50, 20_000}},
		{peerSilent, 2, [2]int{1000, 40_000}, [2]int{}},
		{peerReads, 2, [2]int{5000, 60_000}, [2]int{}},
		{peerLate, 1, [2]int{5000, 60_000}, [2]int{}},
	}
	ofConnections = []chance{
		{reset, 3, [2]int{}, [2]int{}},
		{hangUp, 3, [2]int{}, [2]int{}},
		{vanish, 1, [2]int{100, 20_000}, [2]int{}},
		{restart, 1, [2]int{100, 20_000}, [2]int{}},
		{restartLost, 1, [2]int{100, 20_000}, [2]int{}},
		{partition, 1, [2]int{1000, 20_000}, [2]int{}},
	}
	ofServer = []chance{
		{destroyClient, 4, [2]int{}, [2]int{0, 100}},
		{destroyListener, 1, [2]int{}, [2]int{}},
		{drainListener, 2, [2]int{}, [2]int{10, 10_000}},
		{serverPolicy, 2, [2]int{}, [2]int{0, 100}},
	}
	ofStream = []chance{
		{callConnect, 6, [2]int{}, [2]int{}},
		{callTx, 8, [2]int{}, [2]int{}},
		{callTxLen, 2, [2]int{}, [2]int{}},
		{callDestroy, 3, [2]int{}, [2]int{}},
		{callTimeout, 4, [2]int{}, [2]int{1, 30_000}},
		{callCancel, 1, [2]int{}, [2]int{}},
		{callPause, 2, [2]int{10, 20_000}, [2]int{}},
		{callHandle, 1, [2]int{}, [2]int{}},
		{callMetadata, 1, [2]int{}, [2]int{}},
		{answerDisconnect, 5, [2]int{}, [2]int{}},
		{answerDestroy, 3, [2]int{}, [2]int{}},
		{answerSlow, 4, [2]int{}, [2]int{1, 8000}},
	}
	ofContext = []chance{
		{setPolicy, 4, [2]int{}, [2]int{1, 1 << 16}},
		{overlay, 3, [2]int{}, [2]int{1, 1 << 16}},
		{rotate, 3, [2]int{}, [2]int{}},
		{closeContext, 1, [2]int{}, [2]int{}},
		{shutdown, 1, [2]int{}, [2]int{}},
	}
)

// newPlan returns the plan of a seed with the given number of minutes of faults.
func newPlan(seed uint64, minutes int, pr *protocol) *plan {
	p := &plan{}
	d := fork(seed, "plan")
	faultTime := time.Duration(minutes) * time.Minute
	hosts, streams := pr.allHosts(), names("s", pr.streams)
	draw := func(of []chance, targets []string) *event {
		total := 0
		for _, c := range of {
			total += c.weight
		}
		x := d.IntN(total)
		i := slices.IndexFunc(of, func(c chance) bool { x -= c.weight; return x < 0 })
		c := of[i]
		e := &event{kind: c.kind, target: targets[d.IntN(len(targets))], lasts: d.ms(c.lasts[0], c.lasts[1])}
		if c.arg[1] > 0 {
			e.arg = c.arg[0] + d.IntN(c.arg[1]-c.arg[0]+1)
		}
		e.lasts = min(e.lasts, faultTime/2)
		e.after = d.ms(0, int((faultTime-e.lasts)/time.Millisecond))
		p.events = append(p.events, e)
		return e
	}
	faults := pr.faults
	if faults == nil {
		faults = ofHost
	}
	for range minutes * len(hosts) * 6 / 5 {
		draw(faults, hosts)
	}
	for range minutes * len(streams) * 12 / 5 {
		draw(ofStream, streams)
	}
	for range minutes * 8 / 5 {
		draw(ofContext, []string{""})
	}
	if pr.servers {
		for range minutes * len(hosts) / 2 {
			draw(ofServer, hosts)
			e := draw(ofServer, hosts)
			e.on = randomCue(d, e.target, faultTime)
		}
	}
	// Events that wait for a moment.
	for range minutes * len(streams) * 2 {
		e := draw(ofStream, streams)
		host := pr.hostOf(streamNumber(e.target))
		if pr.proxied && d.oneIn(2) {
			host = proxyHost
		}
		e.on = randomCue(d, host, faultTime)
	}
	for range minutes * len(hosts) {
		e := draw(ofConnections, hosts)
		e.on = randomCue(d, e.target, faultTime)
	}
	for range minutes * 2 {
		draw(ofContext, []string{""}).on = randomCue(d, hosts[d.IntN(len(hosts))], faultTime)
	}
	slices.SortStableFunc(p.events, func(a, b *event) int { return cmp.Compare(a.after, b.after) })
	for i, e := range p.events {
		e.number = i
		e.skew = fork(seed, "event", i).skew
		if e.on != nil { // no two events have the same cue
			e.on.offset = time.Duration(2*i+2) * []time.Duration{-1, 1}[d.IntN(2)]
		}
	}
	return p
}

// streamNumber returns the number of a stream.
func streamNumber(name string) (i int) {
	fmt.Sscanf(name, "s%d", &i)
	return i
}

// only returns the plan with the events that keep selects.
func (p *plan) only(keep func(*event) bool) *plan {
	q := &plan{}
	for _, e := range p.events {
		if keep(e) {
			copied := *e
			copied.on = e.on.again()
			q.events = append(q.events, &copied)
		}
	}
	return q
}

// begin sets the start of the run.
func (p *plan) begin(start time.Time) {
	for _, e := range p.events {
		e.start = start
	}
}

// active returns the latest event of one of the kinds that is active at the time for a
// host, or nil.
func (p *plan) active(now time.Time, host string, of ...kind) *event {
	for _, e := range slices.Backward(p.events) {
		if e.target != host || !slices.Contains(of, e.kind) {
			continue
		}
		if begin, end := e.period(); !now.Before(begin) && now.Before(end) {
			return e
		}
	}
	return nil
}

// String lists the events.
func (p *plan) String() string {
	var b strings.Builder
	for _, e := range p.events {
		fmt.Fprintln(&b, e)
	}
	return b.String()
}
