package mqtt

import (
	"time"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// slowAfter is the minimum time for which a stream may block others before it is
// expelled. It may take up to twice as long, which is less than the time after
// which others' messages are given up. A stream blocks others while the reader
// waits for room in its queue, and while more than maxUnacked acknowledgements are
// pending, since these are sent in order: servers send only a few messages ahead of
// them (mosquitto 20).
const (
	slowAfter  = 4 * time.Second
	maxUnacked = 8
)

// liveness detects a dead peer and a slow stream. All fields are guarded by the mu
// of the connection.
type liveness struct {
	validity  *transport.Validity
	pings     int              // unanswered PINGREQs
	keepAlive *transport.Timer // calls keepUp
	slow      *time.Timer      // calls checkProgress

	blocked           bool // the reader waits for room in the queue of a stream
	blockedSinceWatch bool // it has waited since watchLocked
	sentSinceWatch    bool // a piece of the message of conn.uploader was written since watchLocked
	sentSinceCheck    bool // the same, since checkProgress
}

func (v *liveness) stop() {
	v.validity.Stop()
	v.keepAlive.Stop()
	v.slow.Stop()
}

// blockLocked reports that the reader has to wait.
func (v *liveness) blockLocked() { v.blocked, v.blockedSinceWatch = true, true }

// advanceLocked reports that a piece of the message of conn.uploader was written.
func (v *liveness) advanceLocked() { v.sentSinceWatch, v.sentSinceCheck = true, true }

func (c *conn) keepAlive() time.Duration { return time.Duration(c.set.keepAlive) * time.Second }

// watchLocked starts the validity timer of the connection: by svalidping and
// svalidhup, and by the keep alive, whose PINGREQ must be answered within half of
// it, the time that section 3.1.2.10 gives a server. The PINGREQ is sent even if
// messages are sent meanwhile, since those with QoS 0 are not answered.
func (c *conn) watchLocked() {
	st := c.setup.Stream
	ping, hangup := st.Validity()
	if limit := c.keepAlive() * 3 / 2; limit > 0 && (hangup == 0 || limit < hangup) {
		hangup = limit
	}
	if keep := c.keepAlive(); keep > 0 && (ping == 0 || ping > keep) {
		ping = keep
	}
	v := &c.liveness
	v.blockedSinceWatch, v.sentSinceWatch = v.blocked, false
	v.validity = c.setup.Env.Watch(ping, hangup, st.SwakeValidity, c.probe, c.invalid)
}

// probe sends a PINGREQ, unless one is unanswered, one of keepUp has just been answered, or
// keepUp is about to send one.
func (c *conn) probe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	keepUp := c.set.keepAlive > 0 && c.setup.Env.Now().Sub(c.w.lastWrite()) >= c.keepAlive()
	if c.liveness.pings == 0 && c.liveness.validity.Probing() && !keepUp {
		c.pingLocked()
	}
}

// pingLocked sends a PINGREQ.
func (c *conn) pingLocked() {
	c.liveness.pings++
	c.w.post(appendPingreq)
}

// invalid ends the connection because nothing has proved that it is valid. It
// allows another period if there was a reason for that.
func (c *conn) invalid() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
	case c.liveness.sentSinceWatch: // no PINGREQ could be sent, but the server reads the message
		c.watchLocked()
	case c.liveness.blockedSinceWatch && !c.w.busy(): // the answer may not have been read
		c.watchLocked()
	default:
		c.failLocked(transport.ErrNoValidity)
	}
}

// keepUp sends a PINGREQ when nothing has been sent for the keep alive
// [MQTT-3.1.2-23].
func (c *conn) keepUp() {
	left := c.keepAlive() - c.setup.Env.Now().Sub(c.w.lastWrite())
	c.mu.Lock()
	defer c.mu.Unlock()
	if left <= 0 {
		c.pingLocked()
		left = c.keepAlive()
	}
	if c.err == nil {
		c.liveness.keepAlive.Reset(left)
	}
}

// checkProgress expels streams that block others and have made no progress since
// the previous check. It ends the connection if a stream has not continued the
// message that it is sending.
func (c *conn) checkProgress() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || len(c.streams) < 2 {
		return
	}
	if c.w.busy() { // the server is slow
		c.liveness.slow.Reset(slowAfter)
		return
	}
	sent := c.liveness.sentSinceCheck
	c.liveness.sentSinceCheck = false
	for _, st := range c.streams {
		stuck := st.progress == st.lastProgress
		st.lastProgress = st.progress
		switch {
		case c.uploader == st && !sent: // nothing else can be sent
			c.failLocked(ErrSlow)
			return
		case !stuck:
		case st.open && (st.in.busy || st.in.queue.size() > 0) && (c.liveness.blocked || len(c.acks) > maxUnacked):
			st.expelLocked(ErrSlow)
		}
	}
	c.liveness.slow.Reset(slowAfter)
}
