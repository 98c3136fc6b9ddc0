package proxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcmux"
	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

const (
	// readSize is the size of a read: a full frame of lws's client.
	readSize = 4096
	// ownReadSize is the size of a read for clients of this module.
	ownReadSize = 8 << 10
)

// defaultBuflen is the default of proxy_buflen, as in lws.
const defaultBuflen = 32 << 10

// ownBuflen is the same for clients of this module, whose frames are larger.
const ownBuflen = 128 << 10

// A link is a connection to a client, and the stream that it uses.
type link struct {
	p     *Proxy
	conn  net.Conn
	peer  Peer
	named bool // has a stream; guarded by the mu of the proxy
	log   *slog.Logger

	reader *sspcwire.Reader // used only by serve

	// The callbacks of the stream, and the reader and the writer of the link, share
	// all fields below. Methods of the stream may be called with mu held: they do
	// not call back.
	mu        sync.Mutex
	stream    *runtime.Stream    // nil until the streamtype is known, and while the policy is replaced
	st        *policy.StreamType // nil until the first CREATING
	name      string             // of the streamtype
	options   []runtime.StreamOption
	sent      policy.State      // the latest state below StateUserBase sent to the client
	online    bool              // the client has CONNECTED, and sends
	attempt   bool              // the onward stream is connecting or connected
	set       map[string]string // metadata that the client set, for a stream of another policy
	setSize   int               // size of set, or more
	reading   int               // buffer of the reader beyond readSize; written only by the reader
	failed    time.Time         // the latest failed attempt
	received  map[string]string // metadata sent to the client in this connection
	starting  bool              // an attempt caused by the client is about to begin
	opening   bool              // the reader is in NewStream
	connect   bool              // connect the next stream at once
	draining  bool              // the link ends when the stream is idle
	budget    *budget           // nil before STREAMTYPE and after the end
	accounted int64             // amount added to budget
	throttle  *time.Timer       // ends the pause of the stream due to the rate; nil if there is none
	closed    bool
	err       error // why the link is closed; nil if the client closed it
	in        inbox
	out       outbox
}

func newLink(p *Proxy, conn net.Conn) *link {
	l := &link{p: p, conn: conn, peer: peerOf(conn)}
	l.log = p.log.With("link", p.next.Add(1))
	l.out.pacer = newPacer(conn)
	return l
}

// serve reads the link until it ends.
func (l *link) serve() error {
	defer l.p.remove(l)
	l.conn.SetDeadline(time.Now().Add(HandshakeTimeout))
	if err := l.peer.authenticate(l.conn); err != nil {
		return l.end(err)
	}
	l.log.Debug("proxy: link opened", "peer", l.peer)
	r := sspcwire.NewReader(countingReader{l}, sspcwire.ToProxy, readSize)
	l.reader = r
	var err error
	for err == nil {
		var f sspcwire.Frame
		if f, err = r.Next(); err == nil {
			l.p.stats.framesIn.Add(1)
			err = l.handle(f)
		}
	}
	return l.end(err)
}

// A countingReader reads from the connection of a link, and records how much the
// reader buffers: a client may never send the rest of a large frame.
type countingReader struct{ l *link }

func (c countingReader) Read(b []byte) (int, error) {
	size := c.l.reader.Buffered() + len(b)
	if reading := max(0, size-readSize); reading != c.l.reading {
		c.l.mu.Lock()
		c.l.reading = reading
		c.l.accountLocked()
		c.l.mu.Unlock()
	}
	return c.l.conn.Read(b)
}

// end closes the link after an error of the reader. It returns the reason of the
// close, or nil if the client closed the link.
func (l *link) end(err error) error {
	l.mu.Lock()
	if l.closed { // by the writer or from outside: that is the reason
		err = l.err
	}
	opened := l.st != nil
	l.mu.Unlock()
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, sspcwire.ErrTruncated):
		err = nil
	case errors.As(err, &timeout) && timeout.Timeout() && !opened:
		err = errHandshake
	}
	l.close(err)
	switch {
	case err == nil, err == errShutdown:
		l.log.Debug("proxy: link closed", "err", err)
	default:
		l.p.stats.failed.Add(1)
		l.p.warn(l.log, "proxy: link closed", "peer", l.peer, "err", err)
	}
	return err
}

var errHandshake = fmt.Errorf("no streamtype within %v", HandshakeTimeout)

// close ends the link and its stream. Only the first reason is kept.
func (l *link) close(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeLocked(err)
}

func (l *link) closeLocked(err error) {
	if l.closed {
		return
	}
	l.closed, l.err = true, err
	go transport.Close(l.conn)
	l.in.dropLocked()
	for _, t := range []*time.Timer{l.throttle, l.out.hold} {
		if t != nil {
			t.Stop()
		}
	}
	l.leaveLocked()
	if l.stream != nil {
		l.stream.Destroy()
	}
}

// drain closes the link when its stream is idle and all frames have been written.
func (l *link) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draining = true
	if !l.attempt {
		l.finishLocked()
	}
}

// finishLocked closes the link when all frames have been written.
func (l *link) finishLocked() {
	l.out.ending = true
	l.flushLocked()
}

// handle processes a frame. An error closes the link.
func (l *link) handle(f sspcwire.Frame) error {
	switch f.Type {
	case sspcwire.TypeStreamType:
		return l.open(f)
	case sspcwire.TypePerf: // the proxy of lws ignores it too
		if f.IsHello() && l.name == "" {
			l.reader.SetSize(ownReadSize)
			l.out.own = true
		}
		return nil
	case sspcwire.TypeTx:
		return l.take(f)
	case sspcwire.TypeConnect, sspcwire.TypeLengthHint:
		if err := l.pauseRetry(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stream
	switch {
	case l.closed:
		return l.err
	case l.name == "":
		return nil // such as TIMEOUT_UPDATE before STREAMTYPE
	case f.Type == sspcwire.TypeTxMetadata:
		return l.setLocked(f)
	case s == nil:
		// The policy is being replaced. Requests of the client are lost, as they
		// are with a connection that is lost at this moment, except a request to
		// connect.
		l.connect = l.connect || f.Type == sspcwire.TypeConnect || f.Type == sspcwire.TypeLengthHint
		return nil
	}
	switch f.Type {
	case sspcwire.TypeConnect, sspcwire.TypeLengthHint:
		l.connect = l.connect || !l.attempt // for the next stream if this one is being destroyed
	}
	switch f.Type {
	case sspcwire.TypeConnect:
		if !l.starting {
			s.Connect()
		}
	case sspcwire.TypeLengthHint:
		// The client of lws also sends ONWARD_CONNECT. The proxy of lws has sent
		// POLL by then.
		l.starting = l.starting || l.idleLocked()
		s.RequestTxLen(uint64(f.LengthHint()))
	case sspcwire.TypeTxCredit:
		if n := f.Credit(); n > 0 {
			s.AddPeerTxCredit(uint32(n))
		}
	case sspcwire.TypeTimeout:
		switch ms := f.Timeout(); ms {
		case sspcwire.TimeoutCancel:
			s.CancelTimeout()
		default: // 0 is the policy's timeout_ms for the stream too
			s.StartTimeout(time.Duration(ms) * time.Millisecond)
		}
	}
	return nil
}

// open makes the stream of the link.
func (l *link) open(f sspcwire.Frame) error {
	t, err := f.StreamType()
	if err != nil {
		return err
	}
	l.conn.SetDeadline(time.Time{})
	l.name = t.Name
	l.log = l.log.With("streamtype", t.Name, "pid", t.PID)
	l.options = nil
	switch {
	case t.Name == smd.StreamType:
		// METRICS are for the proxy only.
		l.options = append(l.options, smd.WithClasses(smd.Class(t.Credit)&^smd.ClassMetrics))
	case t.Credit != 0 && t.Credit != sspcwire.DefaultCredit:
		l.options = append(l.options, runtime.WithPeerTxCredit(t.Credit))
	}
	l.opening = true // no other goroutine knows the stream yet
	b, err := l.p.enter(l.peer, t.Name)
	if err == nil {
		l.mu.Lock()
		if l.budget = b; l.closed {
			l.leaveLocked()
		}
		l.mu.Unlock()
		err = l.newStream()
	}
	l.mu.Lock()
	l.opening = false
	answered := l.st != nil
	l.mu.Unlock()
	if err != nil {
		l.p.stats.streamsRefused.Add(1)
		if !answered {
			l.refuse(err)
		}
		return fmt.Errorf("refused: %w", err)
	}
	l.p.setNamed(l)
	l.p.stats.streams.Add(1)
	return nil
}

// retryPause is the minimum time from a failed attempt to one that a client
// requests. As in lws, ONWARD_CONNECT does not wait for the backoff of the policy.
const retryPause = 100 * time.Millisecond

// pauseRetry waits for the rest of retryPause.
func (l *link) pauseRetry() error {
	l.mu.Lock()
	at := l.failed.Add(retryPause)
	l.mu.Unlock()
	if !time.Now().Before(at) {
		return nil
	}
	return l.await(at, func() bool { return true })
}

var errServer = errors.New("the streamtype is a server")

// refuse answers that there is no stream, and waits for the client to close the
// link, so that data that it sends meanwhile does not discard the answer.
func (l *link) refuse(why error) {
	if _, ok := l.conn.(*sspcmux.Channel); ok && !l.out.own {
		// The answer would make the client of lws drop all streams of the line.
		l.p.warn(l.log, "proxy: stream refused without an answer", "peer", l.peer, "err", why)
		io.Copy(io.Discard, l.conn)
		return
	}
	l.conn.SetDeadline(time.Now().Add(refusalTimeout))
	l.conn.Write(sspcwire.AppendCreateResult(nil, sspcwire.CreateResult{Failure: 1}))
	if half, ok := l.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		io.Copy(io.Discard, io.LimitReader(l.conn, sspcwire.MaxFrame))
	}
}

const refusalTimeout = time.Second

// newStream makes a stream for the link.
func (l *link) newStream() error {
	if st := l.p.ctx.Policy().StreamType(l.name); st != nil && st.Server {
		return errServer
	}
	_, err := l.p.ctx.NewStream(l.name, runtime.Handlers{State: l.state, Rx: l.rx, Tx: l.tx}, l.options...)
	return err
}

// renew makes a stream of the current policy in place of one that a change of the
// policy has destroyed. The client of lws does not survive the end of its link.
func (l *link) renew() {
	defer l.p.running.Done()
	if err := l.newStream(); err != nil {
		l.close(fmt.Errorf("the policy has changed: %w", err))
	}
}

// idleLocked reports whether a request to send would start the first attempt of a
// series.
func (l *link) idleLocked() bool {
	switch l.stream.State() {
	case policy.StateCreating:
		return true
	case policy.StateDisconnected:
		return l.st.Opportunistic
	}
	return false
}

// maxMetadata is the maximum size in bytes of the metadata of a client: twice what
// one frame can carry.
const maxMetadata = 128 << 10

var errMetadata = fmt.Errorf("more than %d bytes of metadata", maxMetadata)

// setLocked sets metadata.
func (l *link) setLocked(f sspcwire.Frame) error {
	name, b, err := f.Metadata()
	if err != nil {
		return err
	}
	value := string(b)
	old, again := l.set[name]
	more := len(value) - len(old)
	if !again {
		more += len(name)
	}
	l.setSize += more
	switch {
	case l.setSize > maxMetadata:
		return errMetadata
	case more > 0 && l.setSize > readSize && l.budget.full():
		return errRoleMetadata
	}
	l.accountLocked()
	if l.stream != nil {
		if err := l.stream.SetMetadata(name, value); err != nil && !errors.Is(err, runtime.ErrClosed) {
			return err
		}
	}
	if l.set == nil {
		l.set = map[string]string{}
	}
	l.set[name] = value
	return nil
}

// take queues payload for the stream. It blocks while the queue is full.
func (l *link) take(f sspcwire.Frame) error {
	m, err := f.Payload()
	if err != nil {
		return err
	}
	l.p.stats.bytesIn.Add(uint64(len(m.Data)))
	if err := l.pauseRetry(); err != nil {
		return err
	}
	if err := l.awaitRoom(len(m.Data)); err != nil {
		return err
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return l.err
	}
	messages := l.st != nil && l.st.Carrier() != policy.ProtocolRaw
	wait := l.budget.spend(len(m.Data))
	more := l.in.put(m.Data, m.Flags, messages)
	if t, _, ok := l.reader.Peek(); ok && t == sspcwire.TypeTx && wait <= 0 {
		more = false // requested with the frame that follows
	}
	if more && l.stream != nil {
		l.stream.RequestTx()
	}
	l.accountLocked()
	l.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	return l.await(time.Now().Add(wait), func() bool { return true })
}

// state is the State callback.
func (l *link) state(s *runtime.Stream, state policy.State, arg uint32) runtime.Result {
	r := l.report(s, state, arg)
	if state == policy.StateConnecting && r == runtime.OK {
		l.awaitHeaders()
	}
	return r
}

// headerGrace is how long an attempt waits for metadata that becomes a header.
// Programs set it in CONNECTING, which would be in time within the process.
const headerGrace = 2 * time.Millisecond

// awaitHeaders waits for headerGrace if the client may still set headers.
func (l *link) awaitHeaders() {
	l.mu.Lock()
	wait := !l.opening && l.st.DirectProtoStr || slices.ContainsFunc(l.st.Metadata, func(m policy.Metadata) bool {
		_, set := l.set[m.Name]
		return !l.opening && m.Header != "" && !set
	})
	l.mu.Unlock()
	if wait {
		time.Sleep(headerGrace)
	}
}

// report passes a state to the client.
func (l *link) report(s *runtime.Stream, state policy.State, arg uint32) runtime.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.flushLocked()
	if l.closed {
		return runtime.DestroyMe
	}
	switch state {
	case policy.StateCreating:
		return l.createdLocked(s)
	case policy.StatePoll, policy.StateConnecting:
		l.attempt, l.connect, l.starting, l.received = true, false, false, nil
		if state == policy.StateConnecting && l.st.IsHTTP() && l.st.Sends() {
			s.RequestTx() // the client sends after CONNECTED, see tx
		}
	case policy.StateDestroying:
		l.destroyedLocked(s)
		return runtime.OK
	}
	if state >= policy.StateUserBase || state == policy.StateConnected ||
		state == policy.StateQoSAckRemote || state == policy.StateQoSNackRemote {
		l.metadataLocked()
	}
	if state == policy.StateConnected && len(l.in.pieces) > 0 {
		s.RequestTx() // the end of the previous connection has cleared the request
	}
	wasOnline := l.online
	l.explainLocked(s, state)
	l.reportLocked(state, arg)
	switch state {
	case policy.StateDisconnected, policy.StateUnreachable, policy.StateAllRetriesFailed:
		l.attempt = false
		if state != policy.StateDisconnected || s.Retries() {
			l.failed = time.Now()
		}
		if wasOnline {
			l.lostLocked()
		}
		if l.draining {
			l.finishLocked()
		}
	}
	return runtime.OK
}

// explainLocked reports to a client of this module the details for which lws has no
// frame.
func (l *link) explainLocked(s *runtime.Stream, state policy.State) {
	if !l.out.own {
		return
	}
	switch state {
	case policy.StateConnected:
		if status := s.Status(); status != 0 {
			l.sendLocked(sspcwire.AppendReport(nil, sspcwire.ReportStatus, strconv.Itoa(status)), false)
		}
	case policy.StateDisconnected, policy.StateUnreachable, policy.StateAuthFailed:
		if err := s.Err(); err != nil && l.budget.errors() {
			l.sendLocked(sspcwire.AppendReport(nil, sspcwire.ReportCause, err.Error()), false)
		}
	}
}

// createdLocked handles the first state of a stream.
func (l *link) createdLocked(s *runtime.Stream) runtime.Result {
	first := l.st == nil
	l.stream, l.st, l.starting = s, s.StreamType(), false
	l.limitsLocked()
	if l.out.own {
		l.sendLocked(sspcwire.AppendReport(nil, sspcwire.ReportStreamType, sspcwire.Describe(l.st)), false)
	}
	if !first {
		for name, value := range l.set {
			// Ignore errors: the new policy may not declare the item.
			if err := s.SetMetadata(name, value); err != nil {
				l.log.Warn("proxy: metadata is lost with a new policy", "err", err)
				delete(l.set, name)
			}
		}
		if l.connect {
			l.connect = false
			s.Connect()
		}
		if len(l.in.pieces) > 0 {
			s.RequestTx()
		}
		return runtime.OK
	}
	var rides []string
	for _, t := range s.Rideshares() {
		rides = append(rides, t.Name)
	}
	l.sendLocked(sspcwire.AppendCreateResult(nil, sspcwire.CreateResult{Buffer: l.st.ClientBuflen, Rideshares: rides}), false)
	l.reportLocked(policy.StateCreating, 0)
	return runtime.OK
}

// limitsLocked sets the limits of the buffers.
func (l *link) limitsLocked() {
	size := int(l.st.ProxyBuflen)
	switch {
	case size == 0 && l.out.own:
		size = ownBuflen
	case size == 0:
		size = defaultBuflen
	}
	l.in.limit = size
	l.out.limit(size, int(l.st.ProxyBuflenRxflowOnAbove), int(l.st.ProxyBuflenRxflowOffBelow))
}

// destroyedLocked handles the last state of a stream.
func (l *link) destroyedLocked(s *runtime.Stream) {
	l.stream = nil
	if s.Err() != runtime.ErrPolicyChanged || l.draining {
		l.closeLocked(errShutdown)
		return
	}
	// Reconnect as after a lost connection.
	l.connect = l.connect || l.attempt && !l.st.Opportunistic
	if l.attempt && l.sent != policy.StateDisconnected {
		l.reportLocked(policy.StateDisconnected, 0)
	}
	l.attempt = false
	l.lostLocked()
	l.p.running.Add(1) // the reader has not ended
	go l.renew()
}

// lostLocked drops the payload of a connection that has ended.
func (l *link) lostLocked() {
	if l.st.Carrier() == policy.ProtocolRaw {
		l.in.dropLocked()
		return
	}
	l.in.resetLocked(l.st.IsHTTP())
}

// tx is the Tx callback.
func (l *link) tx(s *runtime.Stream, _ uint32, buf []byte) (n int, flags runtime.Flags, r runtime.Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, 0, runtime.DestroyMe
	}
	if !l.online {
		// The body of a request precedes the response, which brings CONNECTED to
		// the stream. The client waits for CONNECTED.
		l.reportLocked(policy.StateConnected, 0)
		l.flushLocked()
	}
	if l.in.broken { // only the end of the connection cancels what the peer has received
		return 0, 0, runtime.DisconnectMe
	}
	n, flags, ok := l.in.get(buf)
	l.accountLocked()
	if !ok {
		return 0, 0, runtime.TxDontSend
	}
	if len(l.in.pieces) > 0 {
		s.RequestTx()
	}
	if l.creditsLocked() && l.in.open && n > 0 {
		l.sendLocked(sspcwire.AppendCredit(nil, toClient, int32(n)), false)
		l.flushLocked()
	}
	return n, flags, runtime.OK
}

// creditsLocked reports whether the client receives credit for the data that it
// sends: like from lws, over HTTP/2 and later. The credit is the room in the queue;
// the proxy does not rely on it.
func (l *link) creditsLocked() bool {
	p := l.st.Carrier()
	return (p == policy.ProtocolH2 || p == policy.ProtocolH3) && l.st.Sends()
}

// rx is the Rx callback.
func (l *link) rx(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.flushLocked()
	if l.closed {
		return runtime.DestroyMe
	}
	if flags&policy.FlagPerfJSON != 0 {
		if b, err := sspcwire.AppendPerf(nil, buf); err == nil {
			l.sendLocked(b, true)
		}
		return runtime.OK
	}
	if flags&policy.FlagSOM != 0 {
		l.metadataLocked()
	}
	if l.name == smd.StreamType {
		// A pause would fill the queue for all. A slow client loses messages, like
		// a listener of package smd.
		if len(l.out.buf) > l.out.onAbove || l.budget.full() {
			l.log.Debug("proxy: message lost, the client is late")
			return runtime.OK
		}
		l.p.stats.bytesOut.Add(uint64(len(buf)))
		l.payloadLocked(buf, flags, "")
		return runtime.OK
	}
	l.p.stats.bytesOut.Add(uint64(len(buf)))
	var ride string
	if len(l.st.Rideshare) > 0 {
		if t := s.Rideshare(); t.Name != l.st.Name && len(t.Name) <= sspcwire.MaxRideshare {
			ride = t.Name
		}
	}
	l.payloadLocked(buf, flags, ride)
	if flags&(policy.FlagEOM|policy.FlagPerfJSON) == 0 && len(buf) > 0 {
		l.holdLocked()
	}
	if l.out.full(l.budget.full()) {
		s.PauseRx()
	}
	if wait := l.budget.spend(len(buf)); wait > 0 && l.throttle == nil {
		s.PauseRx()
		l.throttle = time.AfterFunc(wait, l.unthrottle)
	}
	return runtime.OK
}

// unthrottle ends the pause after the rate limit of the role was reached.
func (l *link) unthrottle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.throttle = nil
	l.resumeLocked()
}

// resumeLocked resumes the stream, unless it has another reason to wait.
func (l *link) resumeLocked() {
	if l.throttle == nil && !l.out.paused && l.stream != nil {
		l.stream.ResumeRx()
	}
}

// metadataLocked sends the metadata of the peer that has changed.
func (l *link) metadataLocked() {
	if l.stream == nil {
		return
	}
	for name, value := range l.stream.Received() {
		if last, ok := l.received[name]; ok && last == value {
			continue
		}
		b, err := sspcwire.AppendMetadata(nil, toClient, name, value)
		if err != nil {
			l.log.Debug("proxy: metadata cannot be sent", "name", name, "err", err)
			continue
		}
		if l.received == nil {
			l.received = map[string]string{}
		}
		l.received[name] = value
		l.sendLocked(b, false)
	}
}

// reportLocked sends a state, preceded by those that the client of lws requires
// before it.
func (l *link) reportLocked(state policy.State, arg uint32) {
	if state == policy.StateConnected && l.online {
		return // see tx
	}
	if l.online && state == policy.StateUnreachable { // after TIMEOUT the client of lws accepts it
		l.sendStateLocked(policy.StateDisconnected, 0)
	}
	for _, between := range sspcwire.Path(l.sent, state) {
		l.sendStateLocked(between, 0)
	}
	if l.sent != 0 && !sspcwire.Accepts(l.sent, state) {
		l.log.Debug("proxy: state withheld", "from", l.sent, "to", state)
		return
	}
	l.sendStateLocked(state, arg)
}

// sendStateLocked sends a state that the client accepts.
func (l *link) sendStateLocked(state policy.State, arg uint32) {
	l.sendLocked(sspcwire.AppendConnState(nil, state, arg), false)
	if state >= policy.StateUserBase {
		return
	}
	l.sent = state
	switch state { // like the client of lws
	case policy.StateConnected:
		l.online = true
		if l.creditsLocked() {
			l.sendLocked(sspcwire.AppendCredit(nil, toClient, int32(min(l.in.limit, math.MaxInt32))), false)
		}
	case policy.StateDisconnected, policy.StateUnreachable, policy.StateAuthFailed:
		l.online = false
	}
}
