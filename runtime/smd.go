package runtime

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// SMDStreamType is the streamtype whose streams send and receive the messages of
// SMD. It is built in: no policy has it. A stream of it is connected when
// NewStream returns. What it receives, and what its Tx is to send, is a message
// in one piece: the class and the time in microseconds since 1970, each as 8
// bytes in big-endian order, and then the payload. The time that Tx puts there is
// passed over, and so is a piece that is shorter than 16 bytes.
const SMDStreamType = "_lws_smd"

// The limits of SMD are those of lws 5.0.0 (include/libwebsockets/lws-smd.h,
// lib/core/context.c).
const (
	MaxSMDPayload = 384             // bytes of the payload of a message
	MaxSMDQueue   = 40              // messages that wait for a listener, of all listeners
	SMDLifetime   = 2 * time.Second // how long a message waits
)

const smdHeader = 16

// A Class is a set of kinds of messages: mostly one for a message, and any
// number for those that a listener wants. What a kind is for is up to those who
// use it, but for the lowest ones.
type Class uint32

// The classes of lws (include/libwebsockets/lws-smd.h). Bits 24 to 31 are for
// programs.
const (
	ClassInteraction Class = 1 << iota // someone uses the device
	ClassSystemState                   // the state of the system: a new policy, say
	ClassNetwork                       // the network: addresses, captive portals
	ClassMetrics                       // figures

	ClassUser  Class = 1 << 24
	ClassesAll Class = math.MaxUint32
)

// Errors of [SMD.Send], beside ErrClosed and ErrTooLong.
var (
	// ErrNoListener: nobody listens to messages of that class, which is no fault.
	ErrNoListener = errors.New("nobody listens to the class")
	// ErrQueueFull: MaxSMDQueue messages are waiting for some listener. That ends
	// after SMDLifetime at the latest.
	ErrQueueFull = errors.New("too many messages are waiting")
)

// A Message is what [SMD] distributes.
type Message struct {
	Class   Class
	Time    time.Time // when it was sent
	Payload []byte
}

// SMD distributes short messages within a context, to all who listen to their
// class. Each listener gets them in the order in which they were sent, at its own
// pace; what it has not taken after SMDLifetime is lost to it. Its methods may be
// called from any goroutine, also from inside callbacks, and do not wait.
type SMD struct {
	log Logger

	mu        sync.Mutex
	listeners []*Listener
	queue     []*queuedMessage // that someone has not taken yet, oldest first
	closed    bool
	running   sync.WaitGroup // goroutines of listeners
}

type queuedMessage struct {
	Message
	waiting int // how many listeners have not taken it
}

// A Listener gets messages, until it is closed.
type Listener struct {
	smd  *SMD
	mask Class
	f    func(Message)
	wake chan struct{} // if there is no f: gets a value when there is a message

	// Guarded by the mu of smd.
	pending []*queuedMessage
	running bool // there is a goroutine that calls f
	closed  bool
}

// Register makes f a listener of the classes in mask, for what is sent from now
// on, also by f itself. f is called on goroutines of this package, never twice at
// a time, and may call whatever it likes. The payload belongs to it. If f is nil
// the listener is closed from the start.
func (d *SMD) Register(mask Class, f func(Message)) *Listener {
	if f == nil { // what nobody takes would be in the way of others
		return &Listener{smd: d, closed: true}
	}
	return d.add(&Listener{smd: d, mask: mask, f: f})
}

func (d *SMD) add(l *Listener) *Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.closed = d.closed; !l.closed {
		d.listeners = append(d.listeners, l)
	}
	return l
}

// Close ends the listening. A call that is under way goes on; none begins any
// more. It may be called more than once.
func (l *Listener) Close() {
	d := l.smd
	d.mu.Lock()
	defer d.mu.Unlock()
	l.closed = true
	d.listeners = slices.DeleteFunc(d.listeners, func(m *Listener) bool { return m == l })
	for len(l.pending) > 0 {
		l.take()
	}
}

// Send sends a message, whose payload it copies. A message whose class nobody
// listens to is refused with ErrNoListener. Other errors are ErrTooLong,
// ErrQueueFull and ErrClosed.
func (d *SMD) Send(class Class, payload []byte) error {
	d.expire()
	if err := d.send(class, payload); err != nil {
		return fmt.Errorf("sspolicy: smd: class %#x: %w", uint32(class), err)
	}
	return nil
}

func (d *SMD) send(class Class, payload []byte) error {
	if len(payload) > MaxSMDPayload {
		return fmt.Errorf("%w: %d of %d bytes", ErrTooLong, len(payload), MaxSMDPayload)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	m := &queuedMessage{Message: Message{class, time.Now(), slices.Clone(payload)}}
	for _, l := range d.listeners {
		if l.mask&class != 0 {
			m.waiting++
		}
	}
	switch {
	case m.waiting == 0:
		return ErrNoListener
	case len(d.queue) >= MaxSMDQueue:
		return ErrQueueFull
	}
	d.queue = append(d.queue, m)
	for _, l := range d.listeners {
		if l.mask&class == 0 {
			continue
		}
		l.pending = append(l.pending, m)
		switch {
		case l.f == nil:
			select {
			case l.wake <- struct{}{}:
			default:
			}
		case !l.running:
			l.running = true
			d.running.Add(1)
			go l.run()
		}
	}
	return nil
}

// expire gives up the messages that have waited for too long.
func (d *SMD) expire() {
	n := 0
	d.mu.Lock()
	for len(d.queue) > 0 && time.Since(d.queue[0].Time) > SMDLifetime {
		n++
		// It is the first for each listener that has not taken it.
		m := d.queue[0]
		for _, l := range d.listeners {
			if len(l.pending) > 0 && l.pending[0] == m {
				l.take()
			}
		}
	}
	d.mu.Unlock()
	if n > 0 {
		d.log.Warn("sspolicy: smd: a listener is too slow; messages are lost to it", "messages", n)
	}
}

// take takes the first message that waits for the listener. mu of smd is held.
func (l *Listener) take() *queuedMessage {
	m := l.pending[0]
	l.pending = slices.Delete(l.pending, 0, 1)
	if m.waiting--; m.waiting == 0 {
		i := slices.Index(l.smd.queue, m)
		l.smd.queue = slices.Delete(l.smd.queue, i, i+1)
	}
	return m
}

// next takes a message, if there is one.
func (l *Listener) next() (m Message, ok bool) {
	l.smd.expire()
	l.smd.mu.Lock()
	defer l.smd.mu.Unlock()
	if len(l.pending) == 0 {
		l.running = false
		return Message{}, false
	}
	m = l.take().Message
	m.Payload = slices.Clone(m.Payload)
	return m, true
}

// run calls the listener until it has taken all.
func (l *Listener) run() {
	defer l.smd.running.Done()
	for {
		m, ok := l.next()
		if !ok {
			return
		}
		l.call(m)
	}
}

// call calls the listener. insideCallback looks for its name.
func (l *Listener) call(m Message) { l.f(m) }

// close ends all listening, and waits until no listener is running.
func (d *SMD) close() {
	d.mu.Lock()
	d.closed = true
	listeners := slices.Clone(d.listeners)
	d.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	d.running.Wait()
}

// WithClasses says which messages a stream of SMDStreamType, which can not be made
// without it, is to receive; 0 is none.
func WithClasses(mask Class) StreamOption { return classesOption(mask) }

type classesOption Class

func (o classesOption) apply(c *call) { c.options = append(c.options, o) }

// enable is called before anything is done to make the stream.
func (o classesOption) enable(c *Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.smdConnector = smdConnector{&c.smd}
}

func (o classesOption) fill(s *Stream) error {
	if s.t.of != nil {
		return fmt.Errorf("%w: classes are for streamtype %q", ErrUnsupported, SMDStreamType)
	}
	s.classes = Class(o)
	return nil
}

// smdStream is what a policy would say of SMDStreamType.
var smdStream = &StreamType{Name: SMDStreamType, Protocol: ProtocolRaw, NailedUp: true, Opportunistic: true}

// smdType returns SMDStreamType, ready to be executed.
func (c *Context) smdType() *streamType {
	t := &streamType{c: c, policy: smdStream, connector: c.smdConnector, url: new(Template), chain: []*StreamType{smdStream}}
	t.idle.owner = t
	t.endpoint.target = &Target{Network: "smd"}
	return t
}

// A smdConnector executes SMDStreamType.
type smdConnector struct{ d *SMD }

// open connects the stream. NewStream calls it, so that the stream is connected
// when that returns.
func (c smdConnector) open(l *Link) error {
	l.s.mu.Lock()
	mask := l.s.classes
	listener := c.d.add(&Listener{smd: c.d, mask: mask, wake: make(chan struct{}, 1)})
	l.smd = listener
	l.s.mu.Unlock()
	err := l.Connected()
	if err != nil {
		listener.Close()
	}
	return err
}

// Run hands messages to and from the stream.
func (c smdConnector) Run(ctx context.Context, l *Link) error {
	if l.smd == nil {
		if err := c.open(l); err != nil {
			return err
		}
	}
	listener, ready := l.smd, l.TxReady()
	defer listener.Close()
	buf := make([]byte, smdHeader+MaxSMDPayload)
	for {
		if m, ok := listener.next(); ok {
			binary.BigEndian.PutUint64(buf, uint64(m.Class))
			binary.BigEndian.PutUint64(buf[8:], uint64(m.Time.UnixMicro()))
			n := copy(buf[smdHeader:], m.Payload)
			if err := l.Rx(buf[:smdHeader+n], FlagSOM|FlagEOM); err != nil {
				return err
			}
			select {
			case <-ready:
			default:
				continue
			}
		} else {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-listener.wake:
				continue
			case <-ready:
			}
		}
		n, _, err := l.Tx(buf)
		if err != nil {
			return err
		}
		c.transmit(buf[:n])
	}
}

// transmit sends what a stream has sent.
func (c smdConnector) transmit(frame []byte) {
	if len(frame) == 0 {
		return
	}
	if len(frame) < smdHeader {
		c.d.log.Warn("sspolicy: smd: a piece without a whole header is not sent", "bytes", len(frame))
		return
	}
	class := binary.BigEndian.Uint64(frame)
	if class > math.MaxUint32 {
		c.d.log.Warn("sspolicy: smd: a message of an unknown class is not sent", "class", class)
		return
	}
	if err := c.d.Send(Class(class), frame[smdHeader:]); err != nil && !errors.Is(err, ErrNoListener) {
		c.d.log.Warn("sspolicy: smd: a message is not sent", "err", err)
	}
}

// Close does nothing: what a stream has is closed with it.
func (smdConnector) Close() error { return nil }
