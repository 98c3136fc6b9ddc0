// Package smd distributes short messages within a program, like lws's System Message
// Distribution: between functions, and to and from streams of the built-in streamtype
// "_lws_smd".
package smd

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// The limits, as in lws 5.0.0 (include/libwebsockets/lws-smd.h,
// lib/core/context.c).
const (
	MaxPayload = 384             // maximum size of a payload in bytes
	MaxQueue   = 40              // maximum number of messages that wait for a listener
	Lifetime   = 2 * time.Second // maximum time that a message waits
)

// A Class is a set of kinds of messages, one bit each: usually one for a message,
// and any number for a listener.
type Class uint32

// The classes of lws (include/libwebsockets/lws-smd.h). Bits 24 to 31 are for
// programs.
const (
	ClassInteraction Class = 1 << iota // someone uses the device
	ClassSystemState                   // state of the system, such as a new policy
	ClassNetwork                       // addresses, captive portals
	ClassMetrics                       // measurements

	ClassUser  Class = 1 << 24        // the first one for programs
	ClassesAll Class = math.MaxUint32 // all kinds
)

// Errors of [SMD.Send], for use with [errors.Is].
var (
	// ErrNoListener is returned when no listener receives the class. Most senders
	// ignore it.
	ErrNoListener = errors.New("no listener for the class")
	// ErrQueueFull is returned when MaxQueue messages wait for a listener. The
	// condition lasts for at most Lifetime.
	ErrQueueFull = errors.New("too many messages wait for a listener")
	// ErrTooLong is returned when a payload is longer than MaxPayload.
	ErrTooLong = errors.New("the message is too long")
)

// A Message is a message that a listener receives.
type Message struct {
	Class   Class
	Time    time.Time // of Send
	Payload []byte    // up to MaxPayload bytes, often JSON
}

// An SMD distributes each message to all listeners for its class. A listener
// receives messages in the order of Send, at its own pace, and loses those that
// have waited longer than Lifetime.
//
// An SMD is also a transport, for StreamType; any number of contexts may use it.
//
// Methods are safe for concurrent use, also from callbacks. They do not block,
// except Close.
type SMD struct {
	log      transport.Logger
	warnings limiter

	mu        sync.Mutex
	listeners []*Listener
	queue     []*queuedMessage // messages that not all listeners have received, oldest first
	closed    bool
	running   sync.WaitGroup // goroutines of listeners
}

// A queuedMessage is a message that waits for listeners.
type queuedMessage struct {
	Message
	waiting int // number of listeners that have not received it
}

// A Listener receives messages until it is closed.
type Listener struct {
	smd  *SMD
	mask Class
	f    func(Message)
	wake chan struct{} // without f: receives a value when there is a message

	// Guarded by the mu of smd.
	pending []*queuedMessage
	running bool // a goroutine calls f
	closed  bool
}

// New returns an SMD. log receives warnings; nil discards them. The caller must
// call Close.
func New(log transport.Logger) *SMD { return &SMD{log: log} }

// Register makes f a listener for the classes in mask, and for messages sent from
// now on, including those that f sends. Calls of f do not overlap, and run on a
// goroutine of this package. f may block, and may call anything except SMD.Close.
// It may keep and modify the payload. If f is nil or the SMD is closed, the
// Listener is closed.
func (d *SMD) Register(mask Class, f func(Message)) *Listener {
	if f == nil { // its messages would fill the queue
		return &Listener{smd: d, closed: true}
	}
	return d.add(&Listener{smd: d, mask: mask, f: f})
}

// add adds and returns a listener. It closes the listener if the SMD is closed.
func (d *SMD) add(l *Listener) *Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.closed = d.closed; !l.closed {
		d.listeners = append(d.listeners, l)
	}
	return l
}

// Close removes the listener. It does not wait for a running call; no call begins
// after it. It may be called more than once.
func (l *Listener) Close() {
	d := l.smd
	d.mu.Lock()
	defer d.mu.Unlock()
	l.closed = true
	d.listeners = slices.DeleteFunc(d.listeners, func(m *Listener) bool { return m == l })
	for len(l.pending) > 0 {
		l.takeLocked()
	}
}

// Send sends a copy of payload to the listeners for a class. The error wraps
// ErrNoListener, ErrTooLong, ErrQueueFull, or runtime.ErrClosed.
func (d *SMD) Send(class Class, payload []byte) error {
	d.expire()
	if err := d.send(class, payload); err != nil {
		return fmt.Errorf("sspolicy: smd: class %#x: %w", uint32(class), err)
	}
	return nil
}

func (d *SMD) send(class Class, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("%w: %d of %d bytes", ErrTooLong, len(payload), MaxPayload)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return transport.ErrClosed
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
	case len(d.queue) >= MaxQueue:
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

// expire drops messages that have waited longer than Lifetime.
func (d *SMD) expire() {
	n := 0
	d.mu.Lock()
	for len(d.queue) > 0 && time.Since(d.queue[0].Time) > Lifetime {
		n++
		// A listener that has not received it has it first.
		m := d.queue[0]
		for _, l := range d.listeners {
			if len(l.pending) > 0 && l.pending[0] == m {
				l.takeLocked()
			}
		}
	}
	d.mu.Unlock()
	if n > 0 {
		d.warn("sspolicy: smd: a listener is too slow and loses messages", "messages", n)
	}
}

// warn logs a warning, unless there are too many.
func (d *SMD) warn(msg string, args ...any) {
	if d.log == nil {
		return
	}
	suppressed, ok := d.warnings.allow(time.Now())
	if !ok {
		return
	}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	d.log.Warn(msg, args...)
}

// takeLocked takes the first pending message.
func (l *Listener) takeLocked() *queuedMessage {
	m := l.pending[0]
	l.pending = slices.Delete(l.pending, 0, 1)
	if m.waiting--; m.waiting == 0 {
		i := slices.Index(l.smd.queue, m)
		l.smd.queue = slices.Delete(l.smd.queue, i, i+1)
	}
	return m
}

// next removes the next message, and reports whether there is one. If not, run must
// return.
func (l *Listener) next() (m Message, ok bool) {
	l.smd.expire()
	l.smd.mu.Lock()
	defer l.smd.mu.Unlock()
	if len(l.pending) == 0 {
		l.running = false
		return Message{}, false
	}
	m = l.takeLocked().Message
	m.Payload = slices.Clone(m.Payload)
	return m, true
}

// run calls f until no message is pending.
func (l *Listener) run() {
	defer l.smd.running.Done()
	for {
		m, ok := l.next()
		if !ok {
			return
		}
		l.f(m)
	}
}

// Close closes all listeners and waits for running calls. A listener must not call
// it. It may be called more than once, and returns nil. Shut down the contexts that
// use the SMD first.
func (d *SMD) Close() error {
	d.mu.Lock()
	d.closed = true
	listeners := slices.Clone(d.listeners)
	d.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	d.running.Wait()
	return nil
}
