package mqtt

import (
	"context"
	"errors"
	"time"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// unsubscribeLimit is how long a leaving stream waits for the UNSUBACK, as in
// lws.
const unsubscribeLimit = 3 * time.Second

// leaveLimit is when a stream that leaves stops to write. Over TLS, closing the connection
// then takes up to a second, and a transport is abandoned after 5 s.
const leaveLimit = 3500 * time.Millisecond

var (
	errUnfinished = errors.New("sspolicy: a stream left in the middle of its message")
	errHandOver   = errors.New("sspolicy: the server holds messages for the next connection")
)

// A stream is one attempt of a program's stream, with its share of a connection.
// Its goroutine is that of Run.
type stream struct {
	ctx    context.Context // of the attempt
	n      *connector
	l      transport.Link
	c      *conn
	filter string // mqtt_subscribe; "" means none
	birth  will
	wake   chan struct{} // receives a value when fields under mu change

	// Guarded by the mu of the connection.
	sub          *subscription
	open         bool   // CONNECTED has been or is being delivered; the stream's goroutine sets it
	gone         bool   // the stream has left or has been expelled
	err          error  // why it was expelled
	progress     uint64 // counts the steps of deliver
	lastProgress uint64 // progress when checkProgress last ran

	in     inbox
	out    outbox
	shadow shadow
}

func newStream(ctx context.Context, n *connector, l transport.Link) *stream {
	st := &stream{ctx: ctx, n: n, l: l, wake: make(chan struct{}, 1)}
	st.birth.qos, st.birth.retain = n.st.MQTT.BirthQoS, n.st.MQTT.BirthRetain
	st.in.bytes = l.Delivered()
	st.out.appendPacket = st.out.packet.append
	return st
}

// wakeUp makes the stream's goroutine check the fields under mu.
func (st *stream) wakeUp() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// run connects the stream and serves it until it or the connection ends.
func (st *stream) run() error {
	if err := st.subscribe(); err != nil {
		return err
	}
	if err := st.sendBirth(); err != nil {
		return err
	}
	st.c.mu.Lock()
	st.open = true
	st.c.mu.Unlock()
	if err := st.l.Connected(); err != nil {
		return err
	}
	var ready <-chan struct{}
	if _, hasTx := st.l.Outgoing(); hasTx && st.n.topic != nil {
		ready, st.out.wantsTx = st.l.Ready(), true
	}
	resumed := st.l.Resumed()
	defer st.endShadow()
	for {
		if err := st.deliver(); err != nil {
			return err
		}
		if st.mayTransmit() {
			if err := st.transmit(); err != nil {
				return err
			}
		}
		select {
		case <-ready:
			st.out.wantsTx = true
		default:
		}
		switch {
		case st.mayTransmit(): // after the next deliver
		case st.out.backlog > 0:
			if err := st.push(); err != nil {
				return err
			}
		default:
			select {
			case <-st.ctx.Done():
				return context.Cause(st.ctx)
			case <-ready:
				st.out.wantsTx = true
			case <-resumed:
			case <-st.wake:
			case <-st.dead():
			case <-st.shadow.expiry():
				st.endShadow()
			}
		}
	}
}

// dead returns a channel that is closed when the connection has ended, or nil if
// deliver has already reported that.
func (st *stream) dead() <-chan struct{} {
	if st.out.failed {
		return nil
	}
	return st.c.dead
}

// await waits until done, which it calls with the mu of the connection held,
// returns true. An error means that the stream or the connection has ended.
func (st *stream) await(done func() bool) error {
	for {
		st.c.mu.Lock()
		ok, err := done(), st.errLocked()
		st.c.mu.Unlock()
		if ok {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-st.wake:
		case <-st.c.dead:
		case <-st.ctx.Done():
			return context.Cause(st.ctx)
		}
	}
}

// errLocked returns why the stream or its connection has ended, or nil.
func (st *stream) errLocked() error {
	if st.err != nil {
		return st.err
	}
	return st.c.err
}

// expelLocked ends the stream, but not its connection.
func (st *stream) expelLocked(err error) {
	st.err = err
	st.dropLocked(false)
	st.wakeUp()
}

// leave detaches the stream from its connection. It closes the connection if this
// was its last stream.
func (st *stream) leave() {
	c := st.c
	if st.out.current != nil {
		c.fail(errUnfinished)
		c.w.end()
	}
	if st.out.backlog > 0 {
		c.w.post(func(b []byte) []byte { return b }) // the connection's writer pushes it
	}
	disconnect := errors.Is(context.Cause(st.ctx), transport.ErrDisconnected)
	c.mu.Lock()
	st.putBackLocked()
	unsubscribe, handOver := c.detachLocked(st, disconnect)
	c.mu.Unlock()
	start := time.Now()
	if unsubscribe != nil && disconnect {
		limit := time.NewTimer(unsubscribeLimit)
		select {
		case <-unsubscribe.answer:
		case <-c.dead:
		case <-limit.C:
		}
		limit.Stop()
	}
	if c.hub.leave(c) {
		c.close(start)
	} else if handOver { // a stream has joined since and would not receive these messages
		c.fail(errHandOver)
	}
}
