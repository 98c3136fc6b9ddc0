package runtime

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/machine"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A remote is the part of a stream that only streams of a driver have. It is
// guarded by the mu of the stream.
type remote struct {
	created time.Time
	began   time.Time // of the current link

	set      []transport.Field // metadata of the program, in the order of the latest calls
	unsent   int               // the last of them that the current link does not have
	received map[string]string // metadata of the peer

	requests transport.Requests // except for Metadata
	deadline time.Time          // of StartTimeout; zero if it does not run, or the limit is the policy's
	limited  bool               // StartTimeout is in force

	data      any                  // of the driver
	described *policy.StreamType   // by the proxy; nil if the program's policy describes it
	chain     []*policy.StreamType // nil before the proxy has reported it
}

// proxied returns a streamtype of which the program knows only the name.
func proxied(name string) *policy.StreamType {
	return &policy.StreamType{Name: name, Protocol: policy.ProtocolProxied}
}

// drive returns the named streamtype, for streams that the driver executes.
func (r *registry) drive(p *policy.Index, name string) (*streamType, error) {
	st := p.StreamType(name)
	switch {
	case st == nil:
		st = proxied(name)
	case st.Protocol.IsHTTP() && st.HTTP == nil:
		known := *st // without compiled parts
		known.Protocol = policy.ProtocolProxied
		st = &known
	}
	t := &streamType{r: r, stream: st, carrier: st.Carrier(), chain: []*policy.StreamType{st}}
	if chain, err := p.Chain(st); err == nil && st.Rideshare != "" {
		t.chain = chain
	}
	t.idle.Owner = t
	setup, err := r.host.Setup(&policy.StreamType{Name: name}, t.chain)
	if err != nil {
		return nil, err
	}
	setup.Stream = st
	t.setup = setup
	if t.remote, err = r.driver.Drive(setup); err != nil {
		return nil, err
	}
	return t, nil
}

// Proxied reports whether a proxy executes the stream.
func (s *Stream) Proxied() bool { return s.remote != nil }

// chainLocked returns the streamtypes whose messages make up one request.
func (s *Stream) chainLocked() []*policy.StreamType {
	if s.remote != nil && s.remote.chain != nil {
		return s.remote.chain
	}
	return s.t.chain
}

// restart marks all settings in force as unsent, for a new link.
func (r *remote) restart(length uint64) {
	r.began = time.Now()
	r.unsent = len(r.set)
	r.requests.Announced = length > 0
	r.requests.TimeoutChanged = r.limited
	r.requests.Credit = 0
}

// setMetadata sets an item. An empty value is not sent, since proxies hang up at
// one: an item that has never been set is empty anyway.
func (r *remote) setMetadata(t *streamType, name, value string) error {
	if !mayHave(t.stream, name) {
		return fmt.Errorf("%w: the policy does not declare it", ErrUnknownMetadata)
	}
	if value != "" {
		if err := t.remote.CheckMetadata(name, value); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(r.set, func(f transport.Field) bool { return f.Name == name })
	switch {
	case value == "" && i >= 0:
		return fmt.Errorf("%w: a proxy accepts no empty value, and it has one", ErrMetadataValue)
	case value == "":
		return nil
	case i < 0:
		r.unsent++
	default:
		if i < len(r.set)-r.unsent {
			r.unsent++
		}
		r.set = slices.Delete(r.set, i, i+1)
	}
	r.set = append(r.set, transport.Field{Name: name, Value: value})
	return nil
}

// mayHave reports whether a streamtype may have a metadata item.
func mayHave(st *policy.StreamType, name string) bool {
	return st.Protocol == policy.ProtocolProxied && len(st.Metadata) == 0 || st.DirectProtoStr ||
		policy.ItemIndex(st.Metadata, name) >= 0
}

// metadata returns the value from the peer, else the one that the program set, else
// "".
func (r *remote) metadata(st *policy.StreamType, name string) (string, error) {
	if !mayHave(st, name) {
		return "", fmt.Errorf("%w: the policy does not declare it", ErrUnknownMetadata)
	}
	if value, ok := r.received[name]; ok {
		return value, nil
	}
	for _, f := range r.set {
		if f.Name == name {
			return f.Value, nil
		}
	}
	return "", nil
}

// startTimeoutLocked implements StartTimeout. The proxy has the timer or, without a
// link, the stream.
func (s *Stream) startTimeoutLocked(d time.Duration) {
	r := s.remote
	s.stopTimeoutLocked()
	r.limited, r.deadline = true, time.Time{}
	r.requests.TimeoutChanged = true
	if d > 0 {
		r.deadline = time.Now().Add(d)
	}
	if s.runningLocked() {
		s.link.signalLocked()
	} else {
		s.waitTimeoutLocked()
	}
}

// waitTimeoutLocked runs the timer of StartTimeout while there is no link.
func (s *Stream) waitTimeoutLocked() {
	if r := s.remote; r.limited && !r.deadline.IsZero() && s.timeout == nil {
		s.startTimerLocked(time.Until(r.deadline))
	}
}

// cancelTimeoutLocked implements CancelTimeout.
func (s *Stream) cancelTimeoutLocked() {
	r := s.remote
	s.stopTimeoutLocked()
	if r.limited {
		r.limited = false
		r.requests.TimeoutChanged = true
		if s.runningLocked() {
			s.link.signalLocked()
		}
	}
}

// A remoteLink is the link of a stream that a driver executes.
type remoteLink struct{ *link }

func (l remoteLink) Data(newData func() any) any {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if r := l.s.remote; r.data == nil {
		r.data = newData()
	}
	return l.s.remote.data
}

func (l remoteLink) Credit() (n uint32, set bool) {
	c := l.s.credit
	return uint32(min(c.Initial(), math.MaxUint32)), c != nil
}

func (l remoteLink) Notify(f func()) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.spent, l.notify = true, f
	f()
}

func (l remoteLink) Requests() transport.Requests {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.phase != attempting {
		return transport.Requests{}
	}
	r := s.remote
	requests := r.requests
	r.requests = transport.Requests{}
	requests.Metadata = slices.Clone(r.set[len(r.set)-r.unsent:])
	slices.Reverse(requests.Metadata)
	r.unsent = 0
	requests.Length = s.txLen
	if requests.TimeoutChanged {
		s.stopTimeoutLocked() // the proxy has the timer now
		requests.Timeout = -1
		if r.limited {
			requests.Timeout = 0
		}
		if r.limited && !r.deadline.IsZero() {
			requests.Timeout = max(time.Until(r.deadline), time.Millisecond)
		}
	}
	return requests
}

func (l remoteLink) SetRideshares(names []string) {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(names) == 0 || names[0] != s.t.stream.Name {
		return
	}
	chain := []*policy.StreamType{s.t.stream}
	for i, name := range names[1:] {
		if known := s.t.chain; i+1 < len(known) && known[i+1].Name == name {
			chain = append(chain, known[i+1])
		} else {
			chain = append(chain, proxied(name))
		}
	}
	s.remote.chain = chain
}

func (l remoteLink) Describe(st *policy.StreamType) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.t.stream.Protocol == policy.ProtocolProxied {
		l.s.remote.described = st
	}
}

func (l remoteLink) SetStatus(status int) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.status = int32(status)
}

func (l remoteLink) Receive(name, value string) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	r := l.s.remote
	if r.received == nil {
		r.received = make(map[string]string)
	}
	if _, known := r.received[name]; known || len(r.received) < maxReceived {
		r.received[name] = value
	}
}

// maxReceived is the maximum number of metadata items that a proxy may send.
const maxReceived = 256

func (l remoteLink) Report(state State, arg uint32, cause error) error {
	if err := l.acquire(notPayload); err != nil {
		return err
	}
	s := l.s
	r := s.remote
	if !s.machine.MayReport(state) {
		from := s.machine.State()
		_ = l.release(OK)
		return fmt.Errorf("sspolicy: the proxy reports %v after %v", state, from)
	}
	switch state {
	case StateTimeout:
		if !r.limited {
			return l.release(OK) // it has been cancelled
		}
		r.limited = false
	case StateConnecting:
		clear(r.received)
		l.ride, l.status = 0, 0
	case StateConnected:
		s.err = nil
		l.unacked = 0
	case StateQoSAckRemote, StateQoSNackRemote:
		l.unacked = max(l.unacked-1, 0)
	case StateDisconnected, StateUnreachable, policy.StateAuthFailed:
		s.err = cause
		l.unacked = 0
	}
	if state == StateDisconnected {
		r.limited, s.wantsTx, r.requests.Send = false, false, false
		if was := s.machine.State(); was == StateQoSAckRemote || was == StateQoSNackRemote {
			s.txLen = 0
		}
		r.requests.Announced = s.txLen > 0
	}
	e := s.machine.Report(state, arg)
	s.machine.Answer(e, s.deliverLocked(e))
	l.signalQuietLocked()
	return l.release(OK)
}

func (l remoteLink) Rx(buf []byte, flags Flags) error {
	size := len(buf)
	if size == 0 {
		size = notPayload
	}
	if err := l.acquire(size); err != nil {
		return err
	}
	_, err := l.rxAndUnlock(buf, flags, false)
	return err
}

func (l remoteLink) Perf(figures []byte) error {
	if err := l.acquire(notPayload); err != nil {
		return err
	}
	_, err := l.rxAndUnlock(figures, FlagPerfJSON|FlagSOM|FlagEOM, false)
	return err
}

// signalLocked signals new requests.
func (l *link) signalLocked() {
	if l.notify != nil {
		l.notify()
	}
}

// linkLostLocked returns the Failure of a link to the proxy, and its error.
func (s *Stream) linkLostLocked(l *link, err error) (machine.Failure, error) {
	r := s.remote
	f := machine.Failure{
		Failed: true,
		Arg:    uint32(min(time.Since(r.created).Milliseconds(), math.MaxUint32)),
		Least:  transport.LinkRetry,
	}
	switch {
	case l.cause == nil:
		err = fmt.Errorf("%w: %w", ErrLink, err)
	case l.cause == ErrDisconnected: // by the program, which need not wait
		f.Least = max(f.Least-time.Since(r.began), 0)
	}
	s.waitTimeoutLocked()
	return f, err
}

var _ transport.RemoteLink = remoteLink{}
