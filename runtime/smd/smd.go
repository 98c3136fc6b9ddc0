// Package smd distributes short messages within a program, as lws's System Message
// Distribution does: between functions, and by streams of the built-in streamtype
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

// The limits of lws 5.0.0 (include/libwebsockets/lws-smd.h, lib/core/context.c).
const (
	MaxPayload = 384             // bytes of the payload of a message
	MaxQueue   = 40              // messages that wait for any listener
	Lifetime   = 2 * time.Second // how long a message waits
)

// A Class is a set of kinds of messages: mostly one for a message, and any number
// for those that a listener wants. Those who use a kind give it its meaning,
// except for the lowest ones.
type Class uint32

// The classes of lws (include/libwebsockets/lws-smd.h). Bits 24 to 31 are for
// programs.
const (
	ClassInteraction Class = 1 << iota // someone uses the device
	ClassSystemState                   // the state of the system, such as a new policy
	ClassNetwork                       // the network: addresses, captive portals
	ClassMetrics                       // figures

	ClassUser  Class = 1 << 24
	ClassesAll Class = math.MaxUint32
)

// Errors of [SMD.Send], to compare with [errors.Is].
var (
	// ErrNoListener is returned when nobody listens to messages of that class,
	// which is no fault.
	ErrNoListener = errors.New("nobody listens to the class")
	// ErrQueueFull is returned when MaxQueue messages are waiting for some
	// listener. That ends after Lifetime at the latest.
	ErrQueueFull = errors.New("too many messages are waiting")
	// ErrTooLong is returned when a payload exceeds MaxPayload.
	ErrTooLong = errors.New("the message is too long")
)

// A Message is what an [SMD] distributes.
type Message struct {
	Class   Class
	Time    time.Time // when it was sent
	Payload []byte
}

// An SMD distributes messages to all who listen to their class. Each listener gets
// them in the order in which they were sent, at its own pace, and loses those that
// it has not taken after Lifetime. An SMD is also the transport of StreamType, for
// the contexts that it is given to. Its methods may be called from any goroutine,
// including from callbacks, and do not block, except Close.
type SMD struct {
	log transport.Logger

	mu        sync.Mutex
	listeners []*Listener
	queue     []*queued // that someone has not taken yet, oldest first
	closed    bool
	running   sync.WaitGroup // goroutines of listeners
}

// A queued message is one that some listener has not taken.
type queued struct {
	Message
	waiting int // number of such listeners
}

// A Listener gets messages until it is closed.
type Listener struct {
	smd  *SMD
	mask Class
	f    func(Message)
	wake chan struct{} // without f: receives a value when there is a message

	// Guarded by the mu of smd.
	pending []*queued
	running bool // there is a goroutine that calls f
	closed  bool
}

// New returns an SMD. log gets warnings; nil means that nobody does.
func New(log transport.Logger) *SMD { return &SMD{log: log} }

// Register makes f a listener of the classes in mask, for messages sent from now
// on, including those that f sends. f is called on goroutines of this package; its
// calls do not overlap, and it may block and call anything except Close. The
// payload belongs to it. If f is nil the listener is closed from the start.
func (d *SMD) Register(mask Class, f func(Message)) *Listener {
	if f == nil { // messages that nobody takes would delay others
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

// Close ends the listening. A call that is running continues; none begins after
// it. It may be called more than once.
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

// Send sends a message, whose payload it copies. The error is ErrNoListener,
// ErrTooLong, ErrQueueFull, or runtime.ErrClosed.
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
	m := &queued{Message: Message{class, time.Now(), slices.Clone(payload)}}
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

// expire drops the messages that have waited for too long.
func (d *SMD) expire() {
	n := 0
	d.mu.Lock()
	for len(d.queue) > 0 && time.Since(d.queue[0].Time) > Lifetime {
		n++
		// It is the first message of each listener that has not taken it.
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

func (d *SMD) warn(msg string, args ...any) {
	if d.log != nil {
		d.log.Warn(msg, args...)
	}
}

// takeLocked takes the first message that waits for the listener.
func (l *Listener) takeLocked() *queued {
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
	m = l.takeLocked().Message
	m.Payload = slices.Clone(m.Payload)
	return m, true
}

// run calls the listener until it has taken all messages.
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

// Close closes all listeners, and waits until none is running. It must not be
// called by a listener. It may be called more than once, and returns nil.
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
