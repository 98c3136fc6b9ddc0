package sim

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
)

// A serverTalk is the protocol-specific part of an accepted stream.
type serverTalk interface {
	// begin is called for SERVER_TXN and SERVER_UPGRADE.
	begin() runtime.Result
	rx(buf []byte, flags runtime.Flags) runtime.Result
	tx(buf []byte) (int, runtime.Flags, runtime.Result)
}

// A serverStream is a stream that a server has accepted. It checks that its callbacks do
// not overlap.
type serverStream struct {
	of       *server
	listener int
	number   int
	talk     serverTalk
	s        *runtime.Stream
	d        draws // of the current callback

	inside atomic.Int32 // running callbacks
	last   string       // state
	timer  time.Time    // when TIMEOUT is due
	ready  time.Time    // time of the next send
}

// serverTransitions has the states that may follow each state of an accepted stream, as in
// docs/servers.md.
var serverTransitions = map[string]string{
	"": "CRE", "CRE": "CNG DES", "CNG": "UPG CON DES", "UPG": "CON DES", "CON": "TXN DIS", "TXN": "TXN DIS", "DIS": "DES",
}

func (k *serverStream) find(format string, args ...any) {
	k.of.find("client %d: %s", k.number, fmt.Sprintf(format, args...))
}

// enter begins a callback.
func (k *serverStream) enter(what string) (leave func()) {
	if k.inside.Add(1) > 1 {
		k.find("%s while another callback is running", what)
	}
	// The number of callbacks may depend on the scheduler, so random numbers depend on the
	// time.
	k.d = fork(k.of.w.seed, "accepted", k.of.h.name, k.number, what, time.Since(k.of.w.tr.start))
	if k.last == "DES" {
		k.find("%s after DESTROYING", what)
	}
	return func() { k.inside.Add(-1) }
}

// active returns the current event of one of the kinds, or nil.
func (k *serverStream) active(of ...kind) *event {
	return k.of.w.plan.active(time.Now(), k.of.h.name, of...)
}

// later calls f after about d.
func (k *serverStream) later(d time.Duration, f func()) {
	now := time.Now()
	time.AfterFunc(k.d.at(now, d).Sub(now), f)
}

// delay returns the time that the peer takes to answer.
func (k *serverStream) delay() time.Duration {
	switch e := k.active(peerSlow, peerSilent); {
	case e == nil:
		return 0
	case e.kind == peerSilent:
		return time.Until(e.end()) + k.d.ms(1, 100)
	default:
		return k.d.ms(1, e.arg)
	}
}

// sendAfter requests Tx now and again after about d. Until then, sends reports false.
func (k *serverStream) sendAfter(d time.Duration) {
	k.ready = time.Time{}
	if d > 0 {
		now := time.Now()
		k.ready = k.d.at(now, d)
		time.AfterFunc(k.ready.Sub(now), func() { k.s.RequestTx() })
	}
	k.s.RequestTx()
}

// sends reports whether the time of sendAfter has come.
func (k *serverStream) sends() bool { return !time.Now().Before(k.ready) }

// slow makes a callback take time.
func (k *serverStream) slow() {
	if e := k.active(peerSlow); e != nil && k.d.oneIn(3) {
		now := time.Now()
		time.Sleep(k.d.at(now, k.d.ms(1, e.arg/4+1)).Sub(now))
	}
}

// quit returns the result of a callback, which may end the stream.
func (k *serverStream) quit(chance int) runtime.Result {
	if k.active(peerBad) != nil && k.d.oneIn(chance) {
		r := []runtime.Result{runtime.DisconnectMe, runtime.DestroyMe}[k.d.IntN(2)]
		k.of.w.tr.note(k.of.h.name, "client %d answers with %v", k.number, r)
		return r
	}
	return runtime.OK
}

// read pauses the stream for a while if a peerReads event is active.
func (k *serverStream) read() {
	if k.active(peerReads) != nil && k.d.oneIn(2) {
		k.s.PauseRx()
		k.later(k.d.ms(1, 3000), k.s.ResumeRx)
	}
}

func (k *serverStream) onState(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
	name := teststream.Name(state)
	defer k.enter(name)()
	k.of.w.tr.note(k.of.h.name, "client %d %s", k.number, name)
	k.of.w.moment(k.of.h.name, called, time.Now())
	if state == runtime.StateTimeout {
		return k.timeout()
	}
	if !slices.Contains(strings.Fields(serverTransitions[k.last]), name) {
		k.find("%s after %s", name, k.last)
	}
	k.last = name
	switch state {
	case runtime.StateCreating:
		k.s = s
		k.of.mu.Lock()
		defer k.of.mu.Unlock()
		k.of.clients = append(k.of.clients, k)
	case runtime.StateConnected:
		if k.d.oneIn(6) && !k.of.w.calm.Load() {
			d := k.d.ms(1, 10_000) + k.d.skew
			k.timer = time.Now().Add(d)
			s.StartTimeout(d)
		}
	case runtime.StateServerTxn, runtime.StateServerUpgrade:
		k.read()
		k.slow()
		return k.talk.begin()
	case runtime.StateDestroying:
		k.of.mu.Lock()
		defer k.of.mu.Unlock()
		k.of.clients = slices.DeleteFunc(k.of.clients, func(o *serverStream) bool { return o == k })
	}
	return runtime.OK
}

func (k *serverStream) timeout() runtime.Result {
	if k.timer.IsZero() || time.Now().Before(k.timer) {
		k.find("TIMEOUT that is due at %v", k.timer)
	}
	k.timer = time.Time{}
	k.slow()
	if k.of.w.calm.Load() {
		return runtime.OK
	}
	return []runtime.Result{runtime.OK, runtime.OK, runtime.DisconnectMe, runtime.DestroyMe}[k.d.IntN(4)]
}

func (k *serverStream) onRx(_ *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
	defer k.enter("Rx")()
	if flags&runtime.FlagEOM != 0 {
		k.read()
		k.slow()
	}
	return k.talk.rx(buf, flags)
}

func (k *serverStream) onTx(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
	defer k.enter("Tx")()
	if !k.sends() {
		return 0, 0, runtime.TxDontSend
	}
	return k.talk.tx(buf)
}

// A rawServerTalk echoes bytes.
type rawServerTalk struct {
	*serverStream
	pending []byte
}

func (a *rawServerTalk) begin() runtime.Result { return runtime.OK }

func (a *rawServerTalk) rx(buf []byte, _ runtime.Flags) runtime.Result {
	a.pending = append(a.pending, buf...)
	a.sendAfter(a.delay())
	return a.quit(4)
}

func (a *rawServerTalk) tx(buf []byte) (int, runtime.Flags, runtime.Result) {
	n := copy(buf, a.pending)
	if a.pending = a.pending[n:]; len(a.pending) > 0 {
		a.s.RequestTx()
	}
	return n, 0, runtime.OK
}

// metadata returns an item of the request.
func (k *serverStream) metadata(name string) string {
	value, _ := k.s.Metadata(name)
	return value
}

// program returns the program that makes the request.
func (k *serverStream) program() *program {
	name := strings.TrimPrefix(k.metadata("path"), "/")
	for _, p := range k.of.w.programs {
		if p.name == name && p.host == k.of.h.name {
			return p
		}
	}
	k.find("a request that no stream makes: %s", k.metadata("path"))
	return nil
}

// A wsServerTalk echoes messages.
type wsServerTalk struct {
	*serverStream
	in     []byte // partial message
	within bool
	queue  [][]byte
	sent   int // bytes sent of the first message
}

func (a *wsServerTalk) begin() runtime.Result {
	p := a.program()
	if p == nil {
		return runtime.DestroyMe
	}
	a.of.w.checkToken(p, a.metadata("auth"), 0)
	return a.quit(3)
}

func (a *wsServerTalk) rx(buf []byte, flags runtime.Flags) runtime.Result {
	if (flags&runtime.FlagSOM != 0) == a.within {
		a.find("flags %d within a message: %v", flags, a.within)
	}
	a.in = append(a.in, buf...)
	if a.within = flags&runtime.FlagEOM == 0; a.within {
		return runtime.OK
	}
	a.queue = append(a.queue, a.in)
	a.in = nil
	a.sendAfter(a.delay())
	return a.quit(8)
}

func (a *wsServerTalk) tx(buf []byte) (n int, flags runtime.Flags, r runtime.Result) {
	if len(a.queue) == 0 {
		return 0, 0, runtime.TxDontSend
	}
	if a.sent == 0 {
		flags |= runtime.FlagSOM
	}
	n = copy(buf, a.queue[0][a.sent:])
	if a.sent += n; a.sent == len(a.queue[0]) {
		flags |= runtime.FlagEOM
		a.queue, a.sent = a.queue[1:], 0
	}
	if len(a.queue) > 0 {
		a.s.RequestTx()
	}
	return n, flags, runtime.OK
}

// An httpServerTalk answers requests.
type httpServerTalk struct {
	*serverStream
	p        *program
	n, size  int // of the request
	received int
	sent     int
	ends     int  // size of the response, less than size if it is cut short
	pieces   bool // send the response in small pieces
}

func (a *httpServerTalk) begin() runtime.Result {
	if a.p = a.program(); a.p == nil {
		return runtime.DestroyMe
	}
	a.n, _ = strconv.Atoi(a.metadata("n"))
	a.size, _ = strconv.Atoi(a.metadata("size"))
	a.received, a.sent, a.ends = 0, 0, a.size
	a.of.w.checkToken(a.p, strings.TrimPrefix(a.metadata("auth"), "Bearer "), a.n)
	if a.metadata("method") == "GET" || a.size == 0 {
		a.countRequest()
	}
	a.s.SetMetadata("got", fmt.Sprintf("%s %d", a.p.name, a.n))
	short, bad := false, -1
	if a.active(peerBad) != nil {
		bad = a.d.IntN(6)
	}
	if bad != 1 {
		a.s.Ack(0)
	}
	switch bad {
	case 0:
		return a.quit(1)
	case 1: // 404, the default
		a.s.SetMetadata("got", "")
	case 2:
		if a.d.oneIn(2) {
			a.s.SetMetadata("retry", strconv.Itoa(int(retryAfter/time.Second)))
		}
		a.s.Ack(503)
		return runtime.OK
	case 3:
		short = a.size > 0
	case 4:
		a.s.Ack(204)
		return runtime.OK
	}
	a.pieces = a.d.oneIn(4)
	switch {
	case short:
		a.ends = a.d.IntN(a.size)
		a.s.RequestTxLen(uint64(a.size))
	case bad != 1 && a.d.oneIn(4) && a.delay() == 0:
		a.s.Respond("", time.Time{}, bytes.NewReader(payload(a.p.name, a.n, 0, a.size)))
		return runtime.OK
	case a.d.oneIn(2):
		a.s.RequestTxLen(uint64(a.size))
	}
	a.sendAfter(a.delay())
	return runtime.OK
}

// countRequest records that the whole request has been received.
func (a *httpServerTalk) countRequest() {
	t := a.p.talk.(*httpTalk)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.served[a.n]++
}

func (a *httpServerTalk) rx(buf []byte, flags runtime.Flags) runtime.Result {
	if a.p == nil {
		return runtime.OK
	}
	if mismatch(buf, a.p.name, a.n, a.received) {
		a.find("the body of request %s %d is not its own", a.p.name, a.n)
	}
	if (flags&runtime.FlagSOM != 0) != (a.received == 0 && len(buf) > 0) {
		a.find("flags %d after %d bytes of request %s %d", flags, a.received, a.p.name, a.n)
	}
	if a.received += len(buf); flags&runtime.FlagEOM == 0 {
		return runtime.OK
	}
	if a.received != a.size {
		a.find("the body of request %s %d has %d bytes, want %d", a.p.name, a.n, a.received, a.size)
	}
	a.countRequest()
	return a.quit(10)
}

func (a *httpServerTalk) tx(buf []byte) (n int, flags runtime.Flags, r runtime.Result) {
	if a.sent == 0 {
		flags |= runtime.FlagSOM
	}
	if a.pieces {
		buf = buf[:min(len(buf), 1+a.d.IntN(1+a.size/2))]
	}
	n = copy(buf, payload(a.p.name, a.n, a.sent, a.ends))
	if a.sent += n; a.sent == a.ends {
		return n, flags | runtime.FlagEOM, a.quit(20)
	}
	if a.pieces && a.d.oneIn(3) {
		a.sendAfter(a.d.ms(1, 1000))
	} else {
		a.sendAfter(0)
	}
	return n, flags, a.quit(20)
}
