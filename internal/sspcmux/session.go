package sspcmux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// pingInterval is the interval of pings while the session is up.
	pingInterval = 10 * time.Second
	// pongTimeout is the time limit for an answer, in addition to Session.lag.
	pongTimeout = 5 * time.Second
	// retryInterval is the interval of pings while the session is down, as in lws.
	retryInterval = 2 * time.Second
	// closeTimeout is the time limit for the data of a closed channel, and for the peer to
	// acknowledge its end, in addition to Session.lag.
	closeTimeout = 2 * time.Second
	// lineBuffer is the number of bytes that a driver buffers for a serial line; Linux takes
	// a page.
	lineBuffer = 4 << 10
	// roomTimeout is how long a channel without flow control may block the line.
	roomTimeout = time.Second
	// window is the maximum number of unread payload bytes of a channel.
	window = 64 << 10
	// maxControl is the maximum size of queued commands, in bytes. Beyond it, the session
	// fails because the peer does not read.
	maxControl = 8 << 10
	// flushSize is the number of RESET_TRANSPORT commands before a repeated ping. A peer
	// that waits for the rest of a data command reads them as payload.
	flushSize = 1024
	// maxLines is the maximum number of log lines per second.
	maxLines = 20
	// channels is the number of channels of a line.
	channels = 256
)

// Errors that end channels, and sessions.
var (
	ErrDown    = errors.New("sspolicy: sspcmux: the line is down")
	ErrRefused = errors.New("sspolicy: sspcmux: the peer refuses the channel")
	ErrFull    = errors.New("sspolicy: sspcmux: no channel is free")

	errUnknownCommand = errors.New("unknown command")
	errPeerReset      = errors.New("the peer has reset it")
	errNoPong         = errors.New("the peer does not answer")
	errDeaf           = errors.New("the peer does not acknowledge the end of a channel")
	errOverflow       = errors.New("sspolicy: sspcmux: the peer sends more than the channel holds")
	errNotRead        = errors.New("sspolicy: sspcmux: the peer does not read")
)

// Options configure a [Session].
type Options struct {
	// Server makes the session accept channels; otherwise it opens them.
	Server bool
	// Addr is the address of the peer of a channel. Nil means the address of the
	// line, if it has one.
	Addr net.Addr
	// Logger receives a message when the line goes up or down. Nil discards them.
	Logger *slog.Logger
}

// A Session is one end of a line. Its methods are safe for concurrent use.
type Session struct {
	rw      io.ReadWriteCloser
	o       Options
	speed   int    // of a serial line, in bits per second; 0 if rw is none
	in      parser // used by the reading goroutine
	done    chan struct{}
	wake    chan struct{} // receives a value when there may be commands to write
	rearm   chan struct{} // receives a value when deadline may have changed
	next    chan *Channel // for Accept
	refused chan struct{} // closed by Refuse

	writing chan struct{} // a lock, acquired before mu; a mutex would stop the clock of synctest
	packet  []byte        // guarded by writing

	mu         sync.Mutex
	err        error
	up         bool
	ready      chan struct{} // closed when the session is up
	own        bool          // the peer is an end of this package
	ping       uint64        // time of the unanswered ping; 0 if there is none
	deadline   time.Time     // for that answer, or for the next ping
	retries    int           // pings since the last answer
	answer     bool          // send a ping with the next PONG
	pongQueued bool          // PONG is in queue
	pongSent   bool          // PONG has been sent since the line is down
	refusing   bool          // refused is closed
	queue      []byte        // commands to write
	channels   [channels]*Channel
	second     time.Time // start of the second that lines counts
	lines      int       // lines logged in that second
}

// NewSession returns a session over rw, which the session closes.
func NewSession(rw io.ReadWriteCloser, o Options) *Session {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if conn, ok := rw.(net.Conn); ok && o.Addr == nil {
		o.Addr = conn.RemoteAddr()
	}
	if o.Addr == nil {
		o.Addr = Addr("line")
	}
	s := &Session{
		rw: rw, o: o, done: make(chan struct{}), wake: make(chan struct{}, 1), rearm: make(chan struct{}, 1),
		next: make(chan *Channel, channels), refused: make(chan struct{}), writing: make(chan struct{}, 1), ready: make(chan struct{}),
	}
	if line, ok := rw.(interface{ Speed() int }); ok {
		s.speed = line.Speed()
	}
	s.in.s = s
	s.pingLocked(true)
	go s.read()
	go s.run()
	return s
}

// Close ends the session, and notifies the peer if that is possible without delay.
// It returns nil.
func (s *Session) Close() error {
	s.fail(net.ErrClosed)
	return nil
}

// Refuse makes the session accept no more channels, and ends it after the last one.
func (s *Session) Refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusing {
		return
	}
	s.refusing = true
	close(s.refused)
	for n, c := range s.channels {
		if c != nil && c.requested {
			s.channels[n] = nil
			s.queueLocked(cmdNack, c.n)
			c.endLocked(ErrRefused)
		}
	}
	s.endUnusedLocked()
}

// endUnusedLocked ends a refusing session without channels.
func (s *Session) endUnusedLocked() {
	if !s.refusing || slices.ContainsFunc(s.channels[:], func(c *Channel) bool { return c != nil && c.err == nil }) {
		return
	}
	go s.fail(net.ErrClosed)
}

// Done returns a channel that is closed at the end of the session.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err returns why the session has ended.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Accept returns the next channel that the peer opens. The first Read or Write
// accepts it; if Close comes first, the channel is refused.
func (s *Session) Accept() (net.Conn, error) {
	select {
	case c := <-s.next:
		return c, nil
	case <-s.refused:
		return nil, net.ErrClosed
	case <-s.done:
		return nil, fmt.Errorf("%w: %w", net.ErrClosed, s.Err())
	}
}

// Addr returns the address of the line.
func (s *Session) Addr() net.Addr { return s.o.Addr }

// Open opens a channel.
func (s *Session) Open(ctx context.Context) (net.Conn, error) {
	if err := s.awaitUp(ctx); err != nil {
		return nil, err
	}
	c, err := s.request()
	if err != nil {
		return nil, err
	}
	select {
	case <-c.opened:
		if err := c.failure(); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	case <-ctx.Done():
		c.Close()
		return nil, context.Cause(ctx)
	}
}

// awaitUp waits until the session is up.
func (s *Session) awaitUp(ctx context.Context) error {
	s.mu.Lock()
	ready := s.ready
	s.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-s.done:
		return s.Err()
	case <-ctx.Done():
		return errors.Join(ErrDown, context.Cause(ctx))
	}
}

// request requests a channel with a free number, from 255 down as in lws.
func (s *Session) request() (*Channel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up {
		return nil, ErrDown
	}
	deaf := false
	for n := channels - 1; n >= 0; n-- {
		if c := s.channels[n]; c != nil {
			deaf = deaf || c.deaf
			continue
		}
		c := s.newChannelLocked(byte(n))
		s.queueLocked(cmdRequest, c.n)
		if s.own {
			c.windowed = true
			s.queueLocked(windowCommand(c.n, window)...)
		}
		return c, nil
	}
	if deaf {
		s.downLocked(errDeaf)
		return nil, ErrDown
	}
	return nil, ErrFull
}

// newChannelLocked returns a channel with the number n.
func (s *Session) newChannelLocked(n byte) *Channel {
	c := newChannel(s, n)
	s.channels[n] = c
	return c
}

// read reads the line until the end.
func (s *Session) read() {
	b := make([]byte, 4096)
	for {
		n, err := s.rw.Read(b)
		s.in.feed(b[:n])
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// fail ends the session.
func (s *Session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	wasUp := s.up
	s.dropLocked()
	s.err = err
	close(s.done)
	if !wasUp {
		go s.rw.Close()
		return
	}
	select {
	case s.writing <- struct{}{}:
	default:
		go s.rw.Close()
		return
	}
	go func() { // RESET_TRANSPORT frees the channels of a peer that keeps them
		defer func() { <-s.writing }()
		t := time.AfterFunc(time.Second, func() { s.rw.Close() })
		s.rw.Write([]byte{cmdReset})
		if t.Stop() {
			s.rw.Close()
		}
	}()
}

// run sends pings and enforces their time limits.
func (s *Session) run() {
	go s.writeCommands()
	for {
		s.mu.Lock()
		wait := time.Until(s.deadline)
		s.mu.Unlock()
		select {
		case <-s.done:
			return
		case <-s.rearm:
		case <-time.After(wait):
			s.tick()
		}
	}
}

// writeCommands writes queued commands. It blocks while the peer does not read.
func (s *Session) writeCommands() {
	for {
		select {
		case <-s.done:
			return
		case <-s.wake:
			if err := s.write(nil, nil); err != nil {
				s.fail(err)
				return
			}
		}
	}
}

// tick sends a ping, or detects a missing answer.
func (s *Session) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case time.Now().Before(s.deadline):
	case s.up && s.ping != 0:
		s.in.lost.Store(true)
		s.downLocked(errNoPong)
	case s.up:
		s.pingLocked(false)
	default:
		s.in.lost.Store(true)
		s.pingLocked(true)
	}
}

// pingLocked sends a ping.
func (s *Session) pingLocked(reset bool) {
	if reset {
		s.clearLocked()
		n := 1
		if s.retries > 0 {
			n = flushSize
		}
		s.retries++
		for range n {
			s.queueLocked(cmdReset)
		}
	}
	wait := retryInterval
	if s.up {
		wait = pongTimeout + s.lag(1)
	}
	s.ping, s.deadline = uint64(time.Now().UnixMicro()), time.Now().Add(wait)
	s.queueLocked(binary.BigEndian.AppendUint64([]byte{cmdPing}, s.ping)...)
}

// lag returns how long the data before a command and before its answer takes on a serial
// line: what the drivers buffer, and a data command of each of n channels. It is 0 on
// other lines.
func (s *Session) lag(n int) time.Duration {
	if s.speed == 0 {
		return 0
	}
	bits := 10 * 2 * (lineBuffer + n*(dataHeader+maxPayload)) // 8 bits with start and stop
	return time.Duration(bits) * time.Second / time.Duration(s.speed)
}

// closeTimeLocked returns closeTimeout with the lag of all channels.
func (s *Session) closeTimeLocked() time.Duration {
	n := 0
	for _, c := range s.channels {
		if c != nil {
			n++
		}
	}
	return closeTimeout + s.lag(n)
}

// clearLocked drops the queued commands.
func (s *Session) clearLocked() { s.queue, s.pongQueued = s.queue[:0], false }

// queueLocked queues a command.
func (s *Session) queueLocked(command ...byte) {
	if len(s.queue) > maxControl {
		go s.fail(errNotRead)
		return
	}
	s.queue = append(s.queue, command...)
	for _, c := range []chan struct{}{s.wake, s.rearm} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// write writes the queued commands, and payload of c unless c has ended.
func (s *Session) write(c *Channel, payload []byte) error {
	s.writing <- struct{}{}
	defer func() { <-s.writing }()
	s.mu.Lock()
	b := append(s.packet[:0], s.queue...)
	s.pongSent = s.pongSent || s.pongQueued
	s.clearLocked()
	var err error
	if c != nil {
		if err = c.err; err == nil {
			b = append(b, cmdData, c.n, byte(len(payload)>>8), byte(len(payload)))
			b = append(b, payload...)
		}
	}
	s.packet = b
	s.mu.Unlock()
	if len(b) == 0 {
		return err
	}
	if _, werr := s.rw.Write(b); werr != nil {
		return werr
	}
	return err
}

// isUp reports whether the session is up.
func (s *Session) isUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up
}

// awaits reports whether a ping with this time is unanswered.
func (s *Session) awaits(ping uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ping != 0 && s.ping == ping
}

// pinged handles PING.
func (s *Session) pinged(at uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := binary.BigEndian.AppendUint64([]byte{cmdPong}, at)
	s.queueLocked(binary.BigEndian.AppendUint64(b, mark)...)
	s.pongQueued = true
	if s.answer { // after PONG, which the peer needs to synchronize
		s.answer = false
		s.pingLocked(false)
	}
}

// answered handles PONG.
func (s *Session) answered(at uint64, own bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ping == 0 || s.ping != at {
		return
	}
	s.ping, s.deadline = 0, time.Now().Add(pingInterval)
	s.own = own
	s.queueLocked(binary.BigEndian.AppendUint64([]byte{cmdPongAck}, uint64(time.Now().UnixMicro()))...)
	s.upLocked()
}

// acked handles PONGACK: the peer has seen an answer and regards the line as up. lws
// takes any PONGACK; here one before a PONG is noise.
func (s *Session) acked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pongSent {
		s.upLocked()
	}
}

func (s *Session) upLocked() {
	if s.up || s.err != nil {
		return
	}
	s.up, s.retries = true, 0
	s.logLocked(slog.LevelInfo, "mux: line is up")
	close(s.ready)
}

// logLocked logs a change of the line, at most maxLines times per second, because the peer
// can cause it.
func (s *Session) logLocked(level slog.Level, msg string, args ...any) {
	if now := time.Now(); now.Sub(s.second) >= time.Second {
		s.second, s.lines = now, 0
	}
	if s.lines++; s.lines <= maxLines {
		s.o.Logger.With("peer", s.o.Addr).Log(context.Background(), level, msg, args...)
	}
}

// down handles the loss of the line.
func (s *Session) down(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.downLocked(why)
}

func (s *Session) downLocked(why error) {
	if s.err != nil {
		return
	}
	if s.up {
		level := slog.LevelWarn
		if why == errPeerReset {
			level = slog.LevelInfo
		}
		s.logLocked(level, "mux: line is down", "err", why)
	}
	wasUp := s.up
	s.dropLocked()
	switch {
	case why == errPeerReset:
		s.retries, s.ping, s.answer = 0, 0, true
		s.deadline = time.Now().Add(retryInterval)
	case wasUp:
		s.pingLocked(true)
	}
}

// dropLocked ends all channels.
func (s *Session) dropLocked() {
	if s.up {
		s.up, s.own, s.ready = false, false, make(chan struct{})
	}
	s.clearLocked()
	s.pongSent = false
	for n, c := range s.channels {
		if c != nil {
			c.endLocked(ErrDown)
			s.channels[n] = nil
		}
	}
}

// control handles the commands that consist of a channel number.
func (s *Session) control(cmd, n byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up {
		return
	}
	c := s.channels[n]
	switch cmd {
	case cmdRequest:
		if c != nil || !s.o.Server || s.refusing {
			s.queueLocked(cmdNack, n)
			return
		}
		c = s.newChannelLocked(n)
		c.requested = true
		select {
		case s.next <- c:
		default:
			s.channels[n] = nil
			s.queueLocked(cmdNack, n)
			c.endLocked(ErrFull)
		}
	case cmdAck:
		if c != nil {
			c.openLocked()
		}
	case cmdNack:
		if c != nil {
			s.channels[n] = nil
			c.endLocked(ErrRefused)
		}
	case cmdClose:
		s.queueLocked(cmdCloseAck, n)
		if c != nil {
			s.channels[n] = nil
			c.endLocked(io.EOF)
		}
	case cmdCloseAck:
		if c != nil && c.closing {
			s.channels[n] = nil
		}
	}
}

// grant handles WINDOW.
func (s *Session) grant(n byte, bytes uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[n]
	if c == nil {
		return
	}
	if !c.windowed {
		c.windowed = true
		s.queueLocked(windowCommand(n, window)...)
	}
	c.credit = min(c.credit+int(min(bytes, window)), window)
	c.changed.Broadcast()
}
