package sspc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// openTimeout is the time limit for the proxy to answer a new link, as in lws.
const openTimeout = 3 * time.Second

const (
	// readSize is the size of a read from a link, in bytes.
	readSize = 8 << 10
	// txSize is the maximum payload of a frame to the proxy.
	txSize = sspcwire.MaxOwnPayload
)

// The errors that end a link.
var (
	errClosed    = errors.New("the proxy has closed it")
	errNoAnswer  = errors.New("the proxy does not answer")
	errDestroyed = errors.New("the proxy has destroyed the stream")
)

// A remote makes the links of one streamtype.
type remote struct {
	proxy  *Proxy
	setup  *transport.Setup
	dialer transport.Dialer
}

// Close implements transport.Remote.
func (r *remote) Close() error {
	if r.proxy.line != nil {
		r.proxy.line.release()
	}
	return nil
}

// CheckMetadata implements transport.Remote.
func (r *remote) CheckMetadata(name, value string) error {
	_, err := sspcwire.AppendMetadata(nil, sspcwire.ToProxy, name, value)
	switch {
	case errors.Is(err, sspcwire.ErrName):
		return fmt.Errorf("%w: a proxy accepts names of 1 to %d bytes", policy.ErrUnknownMetadata, sspcwire.MaxMetadataName)
	case err != nil:
		return fmt.Errorf("%w: a proxy accepts values of 1 to about 65500 bytes", policy.ErrMetadataValue)
	}
	return nil
}

// dial connects to the proxy.
func (r *remote) dial(ctx context.Context) (net.Conn, error) {
	if r.proxy.line != nil {
		return r.proxy.line.dial(ctx)
	}
	conn, err := r.dialer.Dial(ctx, r.proxy.address.Network, r.proxy.address.Host)
	if err != nil || r.proxy.tls == nil {
		return conn, err
	}
	secure := tls.Client(conn, r.proxy.tls)
	limit, cancel := context.WithTimeoutCause(ctx, openTimeout, errNoAnswer)
	defer cancel()
	if err := secure.HandshakeContext(limit); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// A session holds what the links of a stream share.
type session struct {
	// wanted is set if the stream has a connection, or attempts to make one. A new
	// link must request it again.
	wanted bool
	// opportunistic is the setting that the proxy reports for the streamtype.
	opportunistic bool
}

// A phase is the phase of the proxy's stream.
type phase uint8

const (
	opening    phase = iota // the proxy has not answered
	idle                    // no connection
	attempting              // making one
	waiting                 // for the next attempt
	connected
)

// A link is a connection to the proxy.
type link struct {
	transport.RemoteLink
	conn    net.Conn
	start   time.Time
	name    string // of the streamtype
	session *session

	// Used by the reading goroutine.
	r       *sspcwire.Reader
	message bool  // a message has begun and not ended
	verdict bool  // the peer has accepted or refused on this connection
	reason  error // for the next state, from the proxy; nil if unknown

	mu      sync.Mutex // acquired while the mu of the stream may be held, never vice versa
	phase   phase
	wants   bool // request the connection of the previous link
	sending bool // a goroutine is in send
	over    bool // Run is about to return
	sender  sync.WaitGroup
	again   bool     // there may be new requests
	names   []string // names of metadata sent since the last state of the proxy
	sendErr error
}

// Run implements transport.Remote.
func (r *remote) Run(ctx context.Context, rl transport.RemoteLink) error {
	conn, err := r.dial(ctx)
	if err != nil {
		return err
	}
	defer transport.Close(conn)
	defer context.AfterFunc(ctx, func() { transport.Close(conn) })()
	l := &link{RemoteLink: rl, conn: conn, start: time.Now(), name: r.setup.Stream.Name}
	l.session = rl.Data(func() any { return new(session) }).(*session)
	l.wants = l.session.wanted && !r.setup.Stream.Opportunistic && !l.session.opportunistic
	conn.SetDeadline(l.start.Add(openTimeout))
	if err := l.open(); err != nil {
		return l.cause(err)
	}
	err = l.read()
	transport.Close(conn)
	l.endSending()
	if ctx.Err() != nil { // the program has ended the connection
		l.setPhase(idle)
	}
	return l.cause(err)
}

// cause returns why the link has ended. err is the error of the reader.
func (l *link) cause(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.sendErr != nil:
		return l.sendErr
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errNoAnswer
	case err == io.EOF && len(l.names) > 0:
		return fmt.Errorf("%w after metadata %q: does its policy declare that?", errClosed, l.names)
	case err == io.EOF:
		return errClosed
	}
	return err
}

// open sends STREAMTYPE.
func (l *link) open() error {
	hello := sspcwire.StreamType{PID: uint32(os.Getpid()), Credit: sspcwire.DefaultCredit, Name: l.name}
	if credit, set := l.Credit(); set {
		hello.Credit = credit
	}
	b, err := sspcwire.AppendStreamType(sspcwire.AppendHello(nil), hello)
	if err != nil {
		return err
	}
	_, err = l.conn.Write(b)
	return err
}

// read reads frames until the link ends.
func (l *link) read() error {
	l.r = sspcwire.NewReader(l.conn, sspcwire.FromProxy, readSize)
	step := l.step
	for {
		if err := l.Lend(step); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
}

// step receives a frame, or the payload of several frames that arrived together.
func (l *link) step() error {
	f, err := l.r.Next()
	if err != nil {
		return err
	}
	if f.Type != sspcwire.TypeRx {
		return l.receive(f)
	}
	p, err := l.payload(f)
	var merged *[]byte
	for err == nil && p.Flags&^policy.FlagSOM == 0 && l.more() {
		if merged == nil {
			merged = merges.Get().(*[]byte)
			*merged = (*merged)[:0]
		}
		*merged = append(*merged, p.Data...)
		flags := p.Flags
		if f, err = l.r.Next(); err == nil {
			p, err = l.payload(f)
			p.Flags |= flags
		}
	}
	if err != nil {
		return err
	}
	if merged == nil {
		return l.Rx(p.Data, p.Flags)
	}
	defer merges.Put(merged)
	*merged = append(*merged, p.Data...)
	return l.Rx(*merged, p.Flags)
}

// merges holds buffers for the payload of several frames.
var merges = sync.Pool{New: func() any { return new([]byte) }}

// more reports whether the next frame has arrived and continues the payload before
// it.
func (l *link) more() bool {
	t, flags, ok := l.r.Peek()
	return ok && t == sspcwire.TypeRx && flags&^policy.FlagEOM == 0
}

// payload returns the payload of a frame.
func (l *link) payload(f sspcwire.Frame) (sspcwire.Payload, error) {
	p, err := f.Payload()
	p.Flags &= policy.FlagSOM | policy.FlagEOM | policy.FlagPoll | policy.FlagRelatedStart | policy.FlagRelatedEnd
	l.message = (l.message || p.Flags&policy.FlagSOM != 0) && p.Flags&policy.FlagEOM == 0
	return p, err
}

// receive processes a frame other than payload.
func (l *link) receive(f sspcwire.Frame) error {
	switch f.Type {
	case sspcwire.TypeCreateResult:
		return l.created(f)
	case sspcwire.TypeConnState:
		state, arg, err := f.ConnState()
		if err != nil {
			return err
		}
		return l.report(state, arg)
	case sspcwire.TypeRxMetadata:
		name, value, err := f.Metadata()
		if err != nil {
			return err
		}
		l.Receive(name, string(value))
	case sspcwire.TypePerf:
		return l.Perf(f.Body)
	case sspcwire.TypeReport:
		l.explain(f)
	}
	return nil // credit, which does not limit clients of lws either
}

// explain processes the additional reports of a proxy of this module.
func (l *link) explain(f sspcwire.Frame) {
	switch kind, value := f.Report(); kind {
	case sspcwire.ReportStreamType:
		if st, ok := sspcwire.ParseDescription(l.name, value); ok {
			l.session.opportunistic = st.Opportunistic
			l.Describe(st)
		}
	case sspcwire.ReportStatus:
		if status, err := strconv.Atoi(value); err == nil && status >= 100 && status <= 999 {
			l.SetStatus(status)
		}
	case sspcwire.ReportCause:
		l.reason = transport.Printable(errors.New(value))
	}
}

// created processes CREATE_RESULT.
func (l *link) created(f sspcwire.Frame) error {
	r, err := f.CreateResult()
	switch {
	case err != nil:
		return err
	case r.Failure != 0:
		return l.refused(r.Failure)
	}
	l.conn.SetDeadline(time.Time{})
	l.SetRideshares(r.Rideshares)
	l.setPhase(idle)
	l.Notify(l.wake)
	l.ServeTx(l.send)
	return nil
}

// refused ends a link whose streamtype the proxy refuses.
func (l *link) refused(code uint8) error {
	err := fmt.Errorf("%w: the proxy refuses the streamtype (result %d)", policy.ErrUnknownStreamType, code)
	r := l.Requests()
	if !l.wants && !r.Connect && !r.Send {
		return err
	}
	for _, state := range []policy.State{policy.StateConnecting, policy.StateUnreachable, policy.StateAllRetriesFailed} {
		if err := l.Report(state, 0, err); err != nil {
			return err
		}
	}
	l.session.wanted = false
	return err
}

// report processes a state of the proxy's stream.
func (l *link) report(state policy.State, arg uint32) error {
	var cause error
	next := l.currentPhase()
	switch state {
	case policy.StateCreating:
		return nil // NewStream has delivered it
	case policy.StateDestroying:
		return errDestroyed
	case policy.StateEventWaitCancelled, policy.StateUpstreamLinkRetry:
		return fmt.Errorf("sspolicy: the proxy reports %v, which only a client can report", state)
	case policy.StatePoll, policy.StateConnecting:
		next, l.message, l.verdict = attempting, false, false
	case policy.StateConnected:
		if next == connected {
			return nil
		}
		next = connected
	case policy.StateQoSAckRemote, policy.StateQoSNackRemote:
		l.verdict = true
	case policy.StateUnreachable, policy.StateAuthFailed:
		next, cause = waiting, errUnreachable
	case policy.StateAllRetriesFailed:
		next = idle
	case policy.StateDisconnected:
		next, cause = idle, io.EOF
		switch {
		case l.verdict && !l.message:
			cause = nil
		case l.message:
			cause = io.ErrUnexpectedEOF
		}
	}
	if cause != nil && l.reason != nil {
		cause = fmt.Errorf("%w: %w", cause, l.reason)
		l.reason = nil
	}
	l.setPhase(next)
	err := l.Report(state, arg, cause)
	if state == policy.StateConnected {
		l.wake() // the program may have requested to send before
	}
	return err
}

// errUnreachable is the cause of UNREACHABLE when the proxy does not report the
// reason.
var errUnreachable = errors.New("the proxy could not reach the peer")

func (l *link) currentPhase() phase {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.phase
}

func (l *link) setPhase(p phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase, l.names = p, nil
	l.session.wanted = p > idle || l.wants
}

// begin reports whether the caller must send, since no other goroutine does.
func (l *link) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.again = true
	if l.sending || l.over || l.phase == opening {
		return false
	}
	l.sending = true
	l.sender.Add(1)
	return true
}

// next reports whether there may be new requests; otherwise sending has ended.
func (l *link) next() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending = l.again && !l.over
	l.again = false
	return l.sending
}

// endSending waits for the end of sending on a closed connection: the next link uses the
// same session, and serves the requests that are left.
func (l *link) endSending() {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	l.sender.Wait()
}

// wake starts sending. It does not block.
func (l *link) wake() {
	if l.begin() {
		go l.sendAll()
	}
}

// send sends what the program requests, unless another goroutine does.
func (l *link) send() {
	if l.begin() {
		l.sendAll()
	}
}

// buffers holds buffers for frames to the proxy.
var buffers = sync.Pool{New: func() any { return new([sspcwire.OwnBatch]byte) }}

// sendAll sends until no request is left. Only one goroutine at a time may run it.
func (l *link) sendAll() {
	defer l.sender.Done()
	buf := buffers.Get().(*[sspcwire.OwnBatch]byte)
	defer buffers.Put(buf)
	for l.next() {
		err := l.sendRequests()
		for err == nil && l.currentPhase() == connected && l.WantsTx() {
			err = l.sendPayload(buf[:])
		}
		if err != nil {
			l.mu.Lock() // and keep sending set
			l.sendErr = err
			l.mu.Unlock()
			transport.Close(l.conn)
			return
		}
	}
}

// sendRequests sends all requests except payload.
func (l *link) sendRequests() (err error) {
	r := l.Requests()
	connect := l.connects(r)
	if r.Empty() && !connect {
		return nil
	}
	var b []byte
	if r.TimeoutChanged {
		b = sspcwire.AppendTimeout(b, timeoutMs(r.Timeout))
	}
	for _, f := range r.Metadata {
		l.note(f.Name)
		if b, err = sspcwire.AppendMetadata(b, sspcwire.ToProxy, f.Name, f.Value); err != nil {
			return err
		}
	}
	if r.Credit > 0 {
		b = sspcwire.AppendCredit(b, sspcwire.ToProxy, int32(min(r.Credit, math.MaxInt32)))
	}
	if r.Announced && r.Length <= math.MaxUint32 {
		b = sspcwire.AppendLengthHint(b, uint32(r.Length))
	}
	if connect {
		b = sspcwire.AppendConnect(b)
	}
	if len(b) == 0 {
		return nil
	}
	_, err = l.conn.Write(b)
	return err
}

// maxNames is the maximum number of metadata names in an error.
const maxNames = 8

// note records a name of metadata that is sent, for the error if the proxy hangs
// up.
func (l *link) note(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.names) < maxNames {
		l.names = append(l.names, name)
	}
}

// connects reports whether to request the proxy to connect. As in a stream without
// a proxy, a request to send does not cut short the wait for the next attempt.
func (l *link) connects(r transport.Requests) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	wants := l.wants
	l.wants = false
	switch {
	case l.phase == idle && (r.Connect || r.Send || wants), l.phase == waiting && r.Connect:
		l.phase, l.session.wanted = attempting, true
		return true
	}
	return false
}

// timeoutMs converts a timeout to the form of the protocol.
func timeoutMs(d time.Duration) uint32 {
	switch {
	case d < 0:
		return sspcwire.TimeoutCancel
	case d == 0:
		return sspcwire.TimeoutPolicy
	}
	return uint32(min((d + time.Millisecond - 1).Milliseconds(), sspcwire.TimeoutCancel-1))
}

// sendPayload sends a piece of payload, if the program has one. Full pieces that follow
// each other are sent together.
func (l *link) sendPayload(buf []byte) error {
	batch, full := 0, true
	for full && len(buf)-batch >= sspcwire.PayloadOverhead+txSize && l.WantsTx() {
		n, err := l.appendPayload(buf[batch:])
		if err != nil {
			l.conn.Write(buf[:batch]) // the link ends; what the program sent before does not
			return err
		}
		batch += n
		full = n == sspcwire.PayloadOverhead+txSize
	}
	if batch == 0 {
		return nil
	}
	_, err := l.conn.Write(buf[:batch])
	return err
}

// appendPayload puts a frame with a piece of payload at the beginning of buf, and returns
// its size, or 0 if the program has none.
func (l *link) appendPayload(buf []byte) (int, error) {
	p, err := l.Tx(buf[sspcwire.PayloadOverhead:][:txSize])
	if err != nil || p.Empty() {
		return 0, err
	}
	if p.Next {
		p.Flags |= policy.FlagEOM
	}
	// The payload is already at its position in the frame.
	frame, err := sspcwire.AppendPayload(buf[:0], sspcwire.ToProxy, sspcwire.Payload{
		Flags: p.Flags,
		Time:  uint64(time.Since(l.start).Microseconds()),
		Data:  buf[sspcwire.PayloadOverhead:][:p.N],
	})
	return len(frame), err
}
