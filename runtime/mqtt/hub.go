package mqtt

import (
	"context"
	"crypto/tls"
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// maxStreams is the maximum number of streams that share a connection.
const maxStreams = 256

// A hubKey identifies the connections that streams may share if their settings are
// equal.
type hubKey struct {
	env     *transport.Env
	network string
	address string
	trust   *tls.Config // nil without TLS
	proxy   *transport.Proxy
	id      string // client id; "" means that each connection has a random one
}

// A hub holds the connections of a key. With a client id there is at most one,
// since a server closes the previous one [MQTT-3.1.4-2].
type hub struct {
	t       *Transport
	key     hubKey
	users   int         // connectors; guarded by the mu of the transport
	unused  *time.Timer // forgets the hub; nil unless it had no users
	conns   []*conn     // guarded by the mu of the transport
	session *session    // handed from one connection to the next, or nil
	doubt   bool        // a CONNECT was not answered; guarded by the mu of the transport
	holder  *conn       // connection that has the session and has not ended, or nil; guarded by the mu of the transport
}

// hub returns the hub of a key, with one more connector as its user.
func (t *Transport) hub(k hubKey) *hub {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hubs[k]
	if h == nil {
		h = &hub{t: t, key: k}
		t.hubs[k] = h
	}
	if h.unused != nil {
		h.unused.Stop()
	}
	h.users++
	return h
}

// keepSession is how long a session is kept that no connector uses. The streamtype that an
// overlay changes gets another connector with its next attempt.
const keepSession = 30 * time.Second

// release ends a connector's use of a hub.
func (t *Transport) release(h *hub) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch h.users--; {
	case h.users > 0:
	case h.key.id == "": // it has no session
		delete(t.hubs, h.key)
	default:
		h.unused = time.AfterFunc(keepSession, func() { t.forget(h) })
	}
}

// forget drops a hub, and its session, unless it has users again.
func (t *Transport) forget(h *hub) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.users == 0 && t.hubs[h.key] == h {
		delete(t.hubs, h.key)
	}
}

// drop removes a connection that has ended.
func (h *hub) drop(c *conn) {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	h.removeLocked(c)
	if h.holder == c {
		h.holder = nil
	}
}

func (h *hub) removeLocked(c *conn) {
	h.conns = slices.DeleteFunc(h.conns, func(o *conn) bool { return o == c })
}

// doubtSession records that a CONNECT was not answered: the server may have begun
// another session, which it will report as present.
func (h *hub) doubtSession() {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	h.doubt = true
}

// hold makes c the connection that has the session. It returns the connection that
// had it, if that has not ended, and whether the server may have another session.
func (h *hub) hold(c *conn) (before *conn, doubt bool) {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	before, h.holder = h.holder, c
	doubt, h.doubt = h.doubt, false
	return before, doubt
}

// reserve returns a connection with the settings, and adds a stream to its users.
// The caller must connect a new one.
func (h *hub) reserve(set settings) (c *conn, isNew bool, err error) {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	for _, c := range h.conns {
		switch {
		case c.set == set && c.users < maxStreams:
			c.users++
			return c, false, nil
		case h.key.id != "" && c.set != set:
			return nil, false, ErrDisagree
		case h.key.id != "":
			return nil, false, ErrTooMany
		}
	}
	c = newConn(h, set)
	h.conns = append(h.conns, c)
	return c, true, nil
}

// leave ends a stream's use of a connection. It reports whether that was the last
// one; no other stream gets the connection then.
func (h *hub) leave(c *conn) bool {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	if c.users--; c.users > 0 {
		return false
	}
	h.removeLocked(c)
	return true
}

// join attaches a stream to a connection, and makes the connection if there is
// none.
func (h *hub) join(ctx context.Context, l transport.Link, set settings, password string, st *stream) (*conn, error) {
	for {
		c, isNew, err := h.reserve(set)
		if err != nil {
			return nil, err
		}
		if isNew {
			if err := c.connect(ctx, l, h.key.id, password, st); err != nil {
				c.connectErr, c.cancelled = err, ctx.Err() != nil
				h.drop(c)
				close(c.ready)
				return nil, err
			}
			close(c.ready)
			return c, nil
		}
		select {
		case <-c.ready:
		case <-ctx.Done():
			h.abandon(c)
			return nil, context.Cause(ctx)
		}
		if c.connectErr != nil {
			if c.cancelled {
				continue
			}
			return nil, c.connectErr
		}
		c.mu.Lock()
		good := c.err == nil
		if good {
			c.attachLocked(st)
		}
		c.mu.Unlock()
		if good {
			return c, nil
		}
		h.abandon(c)
	}
}

// abandon is like leave, for a stream that was not attached.
func (h *hub) abandon(c *conn) {
	if !h.leave(c) {
		return
	}
	<-c.ready // does not block: the connecting stream is a user until it is closed
	if c.connectErr == nil {
		c.close(time.Now())
	}
}
