package http

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

const (
	// streamWindow is the number of unread bytes of a body that the server may
	// send.
	streamWindow = 4 << 20

	// creditWindow is streamWindow for a stream with a credit.
	creditWindow = 4 << 10

	// connWindow is the number of unread bytes that the server may send on all
	// streams. The windows of the streams limit the memory.
	connWindow = 1 << 30

	maxWindow = math.MaxInt32

	// frameSize is the maximum size of a frame that is sent or accepted: the
	// minimum that each side must accept.
	frameSize = 16 << 10

	// maxStreams is the maximum number of streams of a connection if the server
	// sets none.
	maxStreams = 1000

	// maxUnsent is the amount of unsent payload at which reading of a body pauses.
	maxUnsent = 64 << 10

	// maxUnsentControl limits the unsent data for a server that does not read.
	maxUnsentControl = 1 << 20

	// writeTimeout is how long a server may accept no data.
	writeTimeout = 15 * time.Second
)

// An h2Conn is a connection of HTTP/2 (RFC 9113). One goroutine reads from it. A sender
// appends frames to out, and writes out unless another sender is writing.
type h2Conn struct {
	conn
	p        *h2Pool
	host     *h2Host
	validity *transport.Validity
	used     atomic.Bool  // by a request
	settled  atomic.Bool  // the server has sent SETTINGS
	lastRead atomic.Int64 // as clock
	caused   atomic.Int64 // frames that the server may send due to requests, see budget

	// Used only by the reading goroutine.
	br      *bufio.Reader
	in      *http2.Framer
	decoder headerDecoder
	budget  budget

	mu       sync.Mutex
	out      []byte // not sent yet
	spare    []byte // the other buffer
	writing  bool   // a sender writes out
	deadline int64  // of the write, as from clock
	framer   *http2.Framer
	encoder  headerEncoder

	streams   map[uint32]*h2Stream
	count     int // number of streams, including reserved ones
	limit     int // of count
	nextID    uint32
	window    int64 // bytes that may be sent on all streams
	initial   int64 // the window of a new stream
	maxFrame  int
	unacked   int64 // bytes received since the latest WINDOW_UPDATE
	retired   bool  // no more requests
	goAway    bool  // the server accepts no more streams
	suspected bool  // a PING is in progress, see suspect
	senders   int   // streams with a body to send
	timer     idleTimer
	err       error // why the connection has ended
}

// epoch is the origin of clock.
var epoch = time.Now()

// clock returns the time since epoch in nanoseconds.
func clock() int64 { return int64(time.Since(epoch)) }

// newH2Conn returns a connection with a stream reserved for one request.
func newH2Conn(p *h2Pool, h *h2Host, nc conn) *h2Conn {
	c := &h2Conn{
		conn: nc, p: p, host: h,
		streams: make(map[uint32]*h2Stream), limit: 1, nextID: 1,
		window: 65535, initial: 65535, maxFrame: frameSize,
	}
	c.br = bufio.NewReader(h2Reader{c})
	c.in = http2.NewFramer(nil, c.br)
	c.in.SetReuseFrames()
	c.in.SetMaxReadFrameSize(frameSize)
	c.decoder.init()
	c.encoder.init()
	c.framer = http2.NewFramer(h2Writer{c}, nil)
	c.timer.call = c.expire
	c.lastRead.Store(clock())
	c.budget.since, c.deadline = clock(), clock()
	c.out = append(c.out, http2.ClientPreface...)
	window := uint32(streamWindow)
	if p.key.credit {
		window = creditWindow
	}
	_ = c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: frameSize},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList},
	)
	_ = c.framer.WriteWindowUpdate(0, connWindow-65535)
	return c
}

// start begins to use the connection.
func (c *h2Conn) start() {
	c.validity = c.p.key.env.Watch(c.p.key.ping, c.p.key.hangup, c.p.key.wakes, c.ping, func() { c.fail(errSilent) })
	go c.read()
}

// An h2Writer appends frames to the data to be sent. The mu of the connection must
// be held.
type h2Writer struct{ c *h2Conn }

func (w h2Writer) Write(p []byte) (int, error) {
	w.c.out = append(w.c.out, p...)
	return len(p), nil
}

// An h2Reader reads from the network, and records the time.
type h2Reader struct{ c *h2Conn }

func (r h2Reader) Read(p []byte) (int, error) {
	n, err := r.c.Conn.Read(p)
	if n > 0 {
		r.c.lastRead.Store(clock())
		r.c.validity.Confirm()
	}
	return n, err
}

// flushLocked writes out, unless another sender is writing. It releases mu while it
// writes.
func (c *h2Conn) flushLocked() {
	if c.writing {
		return
	}
	c.writing = true
	for len(c.out) > 0 && c.err == nil {
		c.writeOutLocked()
	}
	c.writing = false
}

// writeOutLocked writes out. It releases mu while it writes; writing must be set.
func (c *h2Conn) writeOutLocked() {
	b := c.out
	c.out = c.spare[:0]
	c.mu.Unlock()
	// Setting a deadline is slow, so one is used for several writes.
	if now := clock(); c.deadline-now < int64(writeTimeout-time.Second) {
		c.deadline = now + int64(writeTimeout)
		c.network.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	_, err := c.Conn.Write(b)
	c.mu.Lock()
	c.spare = b
	if cap(b) > 2*maxUnsent {
		c.spare = nil
	}
	if err != nil {
		c.failLocked(fmt.Errorf("sspolicy: h2: sending: %w", tlsError(err)))
	}
	c.signalRoomLocked()
}

// flushOnceLocked is like flushLocked, for a request without a body, which waits
// for its response and must not send the bodies of others. It blocks only if the
// network does not accept a header.
func (c *h2Conn) flushOnceLocked() {
	if c.senders > 0 {
		c.flushAsyncLocked() // a body may fill the buffers of the network
		return
	}
	if c.writing || c.err != nil {
		return
	}
	c.writing = true
	c.writeOutLocked()
	c.writing = false
	c.flushAsyncLocked()
}

// signalRoomLocked wakes the streams that wait to send a body.
func (c *h2Conn) signalRoomLocked() {
	if c.senders == 0 {
		return
	}
	for _, st := range c.streams {
		st.signalRoom()
	}
}

// flushAsyncLocked is like flushLocked, for callers that must not block: the
// reading goroutine, and callers that can be canceled.
func (c *h2Conn) flushAsyncLocked() {
	switch {
	case c.writing || len(c.out) == 0:
		if len(c.out) > maxUnsentControl {
			c.failLocked(errNotReading)
		}
	default:
		go func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.flushLocked()
		}()
	}
}

var errNotReading = errors.New("sspolicy: h2: the server does not read what it asks for")

// reserve reserves a stream. It returns false if none is left.
func (c *h2Conn) reserve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired || c.err != nil || c.count >= c.limit || c.nextID > math.MaxInt32-2 {
		return false
	}
	c.count++
	return true
}

// ended returns why the connection has ended, or nil.
func (c *h2Conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// unreserve releases an unused reserved stream.
func (c *h2Conn) unreserve() {
	c.mu.Lock()
	c.releaseLocked()
	c.mu.Unlock()
	c.p.released(c.host)
}

// releaseLocked decrements the number of streams.
func (c *h2Conn) releaseLocked() {
	c.count--
	switch {
	case c.count > 0 || c.err != nil:
	case c.retired:
		c.failLocked(errRetired)
	default:
		c.timer.start(idleTimeout)
	}
}

var errRetired = errors.New("sspolicy: h2: the connection is closed")

// retire closes the connection when it has no requests.
func (c *h2Conn) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
	if c.count == 0 {
		c.failLocked(errRetired)
	}
}

// expire closes the connection if it has been idle for idleTimeout.
func (c *h2Conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.count > 0 || c.err != nil:
		c.timer.at = time.Time{}
	case c.timer.expired(idleTimeout):
		c.failLocked(errRetired)
	}
}

// fail ends the connection and all of its streams.
func (c *h2Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *h2Conn) failLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.timer.stop()
	for _, st := range c.streams {
		st.failLocked(err)
	}
	polite := err == errRetired && !c.writing
	if polite {
		c.leave()
	}
	// abort may wait for the network, and all acquire other locks.
	go func() {
		c.validity.Stop()
		c.p.remove(c)
		if !polite {
			c.abort()
		}
	}()
}

// ping sends a PING.
func (c *h2Conn) ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.framer.WritePing(false, [8]byte{'s', 's'})
	c.flushLocked()
}

// suspect is called when a request, sent at the time sent, had no answer within the
// time limit of an attempt. If nothing else has arrived since, the connection is
// closed unless the server answers a PING.
func (c *h2Conn) suspect(sent int64) {
	last := c.lastRead.Load()
	c.mu.Lock()
	if c.err != nil || c.suspected || last > sent {
		c.mu.Unlock()
		return
	}
	c.suspected = true
	c.mu.Unlock()
	time.AfterFunc(c.p.limit/4, func() {
		silent := c.lastRead.Load() == last
		c.mu.Lock()
		defer c.mu.Unlock()
		c.suspected = false
		if silent {
			c.failLocked(errSilent)
		}
	})
	c.ping()
}

// An h2Error is an error of the connection caused by the server.
type h2Error struct {
	code http2.ErrCode
	why  string
}

func (e *h2Error) Error() string {
	return fmt.Sprintf("sspolicy: h2 connection closed: the server has sent %s (%v)", e.why, e.code)
}

// read is the goroutine that reads from the connection.
func (c *h2Conn) read() {
	c.mu.Lock()
	c.flushLocked()
	c.mu.Unlock()
	err := c.readFrames()
	var code http2.ErrCode
	if e, ok := errors.AsType[*h2Error](err); ok {
		code = e.code
	}
	c.mu.Lock()
	if code != 0 && c.err == nil && !c.writing {
		_ = c.framer.WriteGoAway(0, code, nil)
		// Best effort: the server may not read.
		c.network.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		b := c.out
		c.out, c.writing = nil, true
		c.mu.Unlock()
		_, _ = c.Conn.Write(b)
		c.mu.Lock()
	}
	c.failLocked(err)
	c.mu.Unlock()
}

func (c *h2Conn) readFrames() error {
	for first := true; ; first = false {
		f, err := c.in.ReadFrame()
		if e, ok := err.(http2.StreamError); ok {
			c.mu.Lock()
			if st := c.streams[e.StreamID]; st != nil {
				st.resetLocked(e.Code, &streamError{e.Code, "the server has sent an invalid frame"})
				c.flushAsyncLocked()
			}
			c.mu.Unlock()
			if err := c.budget.spend(c, 1); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return c.frameError(err, first)
		}
		if _, ok := f.(*http2.SettingsFrame); first && !ok {
			return errNoH2
		}
		if err := c.handle(f); err != nil {
			return err
		}
	}
}

// frameError returns why no frame could be read. first means that none has been
// read so far.
func (c *h2Conn) frameError(err error, first bool) error {
	code, isCode := err.(http2.ConnectionError)
	switch {
	case first && (errors.Is(err, http2.ErrFrameTooLarge) || errors.Is(err, io.ErrUnexpectedEOF)):
		return errNoH2
	case errors.Is(err, http2.ErrFrameTooLarge):
		return &h2Error{http2.ErrCodeFrameSize, "a frame that is too large"}
	case isCode:
		why := "an invalid frame"
		if detail := c.in.ErrorDetail(); detail != nil {
			why += ": " + detail.Error()
		}
		return &h2Error{http2.ErrCode(code), why}
	case err == io.EOF:
		return errClosed
	}
	return tlsError(err)
}

// errClosed is returned when the server closes a connection.
var errClosed = fmt.Errorf("sspolicy: the server closed the connection: %w", io.ErrUnexpectedEOF)

// handle acts on a frame from the server.
func (c *h2Conn) handle(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		return c.handleHeaders(f)
	case *http2.DataFrame:
		return c.handleData(f)
	case *http2.SettingsFrame:
		return c.handleSettings(f)
	case *http2.WindowUpdateFrame:
		return c.handleWindowUpdate(f)
	case *http2.RSTStreamFrame:
		return c.handleReset(f)
	case *http2.PingFrame:
		return c.handlePing(f)
	case *http2.GoAwayFrame:
		return c.handleGoAway(f)
	case *http2.PushPromiseFrame:
		return &h2Error{http2.ErrCodeProtocol, "PUSH_PROMISE, which was forbidden"}
	case *http2.ContinuationFrame:
		return &h2Error{http2.ErrCodeProtocol, "CONTINUATION without HEADERS"}
	}
	return c.budget.spend(c, 1) // PRIORITY, and frames of extensions
}

// streamLocked returns an open stream. The error is one of the connection: the
// stream was never opened.
func (c *h2Conn) streamLocked(id uint32) (*h2Stream, error) {
	if st := c.streams[id]; st != nil {
		return st, nil
	}
	if id%2 == 0 || id >= c.nextID {
		return nil, &h2Error{http2.ErrCodeProtocol, fmt.Sprintf("a frame for stream %d, which is not open", id)}
	}
	return nil, nil
}

func (c *h2Conn) handleHeaders(f *http2.HeadersFrame) error {
	id, ended := f.StreamID, f.StreamEnded() // f is not valid after the next frame
	h, err := c.decoder.read(c, f)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st, err := c.streamLocked(id)
	switch {
	case err != nil:
		return err
	case st == nil || st.err != nil:
		return c.budget.spend(c, h.cost())
	case h.err != nil:
		st.resetLocked(http2.ErrCodeProtocol, h.err)
		c.flushAsyncLocked()
		return nil
	}
	interim := st.headersLocked(h, ended)
	c.flushAsyncLocked()
	if interim {
		return c.budget.spend(c, h.cost())
	}
	return nil
}

func (c *h2Conn) handleData(f *http2.DataFrame) error {
	data, size := f.Data(), int64(f.Length)
	c.mu.Lock()
	defer c.mu.Unlock()
	// Reopen the connection's window at once; the windows of the streams limit the
	// memory.
	if c.unacked += size; c.unacked >= connWindow/2 {
		_ = c.framer.WriteWindowUpdate(0, uint32(c.unacked))
		c.unacked = 0
	}
	st, err := c.streamLocked(f.StreamID)
	if err != nil {
		return err
	}
	switch {
	case st == nil, st.err != nil: // the request has ended
		err = c.budget.spend(c, 1+int(size>>10))
	case len(data) == 0 && !f.StreamEnded():
		err = c.budget.spend(c, 1)
	default:
		c.caused.Add(size >> 10)
	}
	if err == nil && st != nil && st.err == nil {
		err = st.dataLocked(data, size, f.StreamEnded())
	}
	c.flushAsyncLocked()
	return err
}

func (c *h2Conn) handleSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return c.budget.spend(c, 1)
	}
	c.mu.Lock()
	first := !c.settled.Load()
	if first {
		c.limit = maxStreams
	}
	err := f.ForeachSetting(c.settingLocked)
	limit := c.limit
	if err == nil {
		_ = c.framer.WriteSettingsAck()
		c.flushAsyncLocked()
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.settled.Store(true)
	c.p.ready(c.host, limit)
	if first {
		return nil
	}
	return c.budget.spend(c, 1+f.NumSettings())
}

// settingLocked applies a setting of the server.
func (c *h2Conn) settingLocked(s http2.Setting) error {
	if err := s.Valid(); err != nil {
		code := http2.ErrCodeProtocol
		if e, ok := err.(http2.ConnectionError); ok {
			code = http2.ErrCode(e)
		}
		return &h2Error{code, fmt.Sprintf("an invalid setting: %v", s)}
	}
	switch s.ID {
	case http2.SettingMaxConcurrentStreams:
		c.limit = int(min(s.Val, maxStreams))
	case http2.SettingMaxFrameSize:
		c.maxFrame = int(min(s.Val, maxUnsent))
	case http2.SettingHeaderTableSize:
		c.encoder.resize(s.Val)
	case http2.SettingInitialWindowSize:
		more := int64(s.Val) - c.initial
		c.initial = int64(s.Val)
		for _, st := range c.streams {
			if !c.widen(&st.window, more) {
				return &h2Error{http2.ErrCodeFlowControl, "SETTINGS that make a window too large"}
			}
			st.signalRoom()
		}
	}
	return nil
}

// widen adds to a window. It returns false if the window exceeds the limit of the
// protocol, unless the policy says that the server does that (h2q_oflow_txcr).
func (c *h2Conn) widen(window *int64, more int64) bool {
	*window += more
	if *window <= maxWindow {
		return true
	}
	*window = maxWindow
	return c.p.key.overflows
}

func (c *h2Conn) handleWindowUpdate(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		if !c.widen(&c.window, int64(f.Increment)) {
			return &h2Error{http2.ErrCodeFlowControl, "WINDOW_UPDATE beyond 2147483647, see h2q_oflow_txcr"}
		}
		c.signalRoomLocked()
		return c.budget.spend(c, 1)
	}
	st, err := c.streamLocked(f.StreamID)
	if err != nil {
		return err
	}
	if st != nil {
		if !c.widen(&st.window, int64(f.Increment)) {
			st.resetLocked(http2.ErrCodeFlowControl, errOverflow)
			c.flushAsyncLocked()
		}
		st.signalRoom()
	}
	return c.budget.spend(c, 1)
}

var errOverflow = errors.New("sspolicy: h2: the server has sent WINDOW_UPDATE beyond 2147483647 for the stream, see h2q_oflow_txcr")

func (c *h2Conn) handleReset(f *http2.RSTStreamFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, err := c.streamLocked(f.StreamID)
	switch {
	case err != nil:
		return err
	case st == nil, st.reset:
		return c.budget.spend(c, 1)
	case st.err == nil:
		var err error = &streamError{f.ErrCode, "the server has reset the request"}
		if f.ErrCode == http2.ErrCodeRefusedStream {
			err = fmt.Errorf("%w: %w", errUnprocessed, err)
		}
		st.failLocked(err)
	}
	st.reset = true // no more may be sent
	return nil
}

func (c *h2Conn) handlePing(f *http2.PingFrame) error {
	if !f.IsAck() {
		c.mu.Lock()
		_ = c.framer.WritePing(true, f.Data)
		c.flushAsyncLocked()
		c.mu.Unlock()
	}
	return c.budget.spend(c, 1)
}

func (c *h2Conn) handleGoAway(f *http2.GoAwayFrame) error {
	c.mu.Lock()
	c.retired, c.goAway = true, true
	for id, st := range c.streams {
		if id > f.LastStreamID && st.err == nil {
			st.failLocked(fmt.Errorf("%w: the server is closing the connection (%v)", errUnprocessed, f.ErrCode))
		}
	}
	if c.count == 0 {
		c.failLocked(errRetired)
	}
	c.mu.Unlock()
	c.p.remove(c) // waiting requests need another connection
	return c.budget.spend(c, 1)
}

// errUnprocessed is returned when the server has not processed a request, which may
// then be resent.
var errUnprocessed = errors.New("sspolicy: h2: the server has not processed the request")

// A streamError ends one request.
type streamError struct {
	code http2.ErrCode
	what string
}

func (e *streamError) Error() string { return fmt.Sprintf("sspolicy: h2: %s: %v", e.what, e.code) }

// Unwrap returns io.ErrUnexpectedEOF, as for a truncated response.
func (e *streamError) Unwrap() error { return io.ErrUnexpectedEOF }

// A budget limits the number of frames that no request needs. Requests of the
// program and the passing of time add to it.
type budget struct {
	spent int64
	since int64 // as clock
}

const (
	maxSpent        = 10_000 // frames
	budgetPerSecond = 1_000
)

// spend counts n such frames.
func (b *budget) spend(c *h2Conn, n int) error {
	if n == 0 {
		return nil
	}
	if b.spent += int64(n); b.spent < maxSpent {
		return nil
	}
	now := clock()
	b.spent -= (now-b.since)/int64(time.Second/budgetPerSecond) + c.caused.Swap(0)
	b.since = now
	if b.spent = max(b.spent, 0); b.spent < maxSpent {
		return nil
	}
	return &h2Error{http2.ErrCodeEnhanceYourCalm, "a flood of frames that carry nothing"}
}
