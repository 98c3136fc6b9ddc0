// Package mqtt is the transport for streamtypes whose protocol is mqtt: a client
// of MQTT 3.1.1 over TCP, TLS and unix sockets.
//
// Streams of a context that go to the same host and port, by the same proxy,
// with the same trust, client certificate and client id, and that agree on what
// a connection begins with (user name, keep alive, clean start, will), share one
// connection. Each has its own goroutine, that of Run; a connection has one that
// reads and one that writes what the reader has to say.
//
// The packets are read and written by code of this package. The libraries there
// are (paho.mqtt.golang 1.5, mqtt-go 0.19) hold every payload in memory as a
// whole, publish and received, know one user of a connection, call handlers
// under locks of their own that keep the rest of the connection waiting, and
// send a message again only on another connection, so that on top of them
// neither payload in pieces, nor the sharing of connections, nor the times after
// which lws sends again and gives up could be had. What is needed of MQTT 3.1.1
// to do without is the fourteen packets of packet.go.
package mqtt

import (
	"context"
	"crypto/tls"
	"slices"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// alpn is what a TLS handshake asks for, as in lws 5.0.0
// (lib/secure-streams/protocols/ss-mqtt.c). A server that knows no ALPN does not
// mind.
const alpn = "x-amzn-mqtt-ca"

// maxStreams is how many streams share a connection.
const maxStreams = 256

// Transport is a [transport.Transport] for mqtt. It may be given to any number of
// contexts.
type Transport struct {
	mu   sync.Mutex
	hubs map[hubKey]*hub
}

// New returns a transport.
func New() *Transport { return &Transport{hubs: make(map[hubKey]*hub)} }

// Protocols returns mqtt.
func (t *Transport) Protocols() []policy.Protocol {
	return []policy.Protocol{policy.ProtocolMQTT}
}

// A hubKey says which connections may be shared, if their settings agree.
type hubKey struct {
	env     *transport.Env
	network string
	address string
	trust   *tls.Config // nil: without TLS
	proxy   *transport.Proxy
	id      string // client id; "": each connection makes one up
}

// A hub is the connections of a key. With a client id of its own there is one
// at most, since a server closes the one before [MQTT-3.1.4-2].
type hub struct {
	t       *Transport
	key     hubKey
	users   int // connectors; guarded by the mu of the transport, as is conns
	conns   []*conn
	session *session // handed from one connection to the next; nil if there is none
	holder  *conn    // that has it, and has not ended; guarded by the mu of the transport
}

// hub returns the hub of a key, for one more connector to use.
func (t *Transport) hub(k hubKey) *hub {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hubs[k]
	if h == nil {
		h = &hub{t: t, key: k}
		t.hubs[k] = h
	}
	h.users++
	return h
}

// release ends a connector's use of a hub.
func (t *Transport) release(h *hub) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.users--; h.users == 0 {
		delete(t.hubs, h.key)
	}
}

// drop takes a connection off that has ended, or is about to.
func (h *hub) drop(c *conn) {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	h.conns = slices.DeleteFunc(h.conns, func(o *conn) bool { return o == c })
	if h.holder == c {
		h.holder = nil
	}
}

// hold says that a connection has the session, and returns the one that had it,
// if that has not ended.
func (h *hub) hold(c *conn) (was *conn) {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	was, h.holder = h.holder, c
	return was
}

// reserve returns a connection with the settings, for one more stream. If it is
// new the caller has to connect it.
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
	c = &conn{
		hub: h, set: set, users: 1, ready: make(chan struct{}), dead: make(chan struct{}),
		subs: map[string]*subscription{}, births: map[will]bool{},
	}
	c.room.L = &c.mu
	h.conns = append(h.conns, c)
	return c, true, nil
}

// leave ends a stream's use of a connection. It reports whether that was the
// last; nobody else gets the connection then.
func (h *hub) leave(c *conn) bool {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	c.users--
	if c.users > 0 {
		return false
	}
	h.conns = slices.DeleteFunc(h.conns, func(o *conn) bool { return o == c })
	return true
}

// join puts a stream on a connection.
func (h *hub) join(ctx context.Context, l transport.Link, set settings, password string, st *stream) (*conn, error) {
	for {
		c, isNew, err := h.reserve(set)
		if err != nil {
			return nil, err
		}
		if isNew {
			if err := c.connect(ctx, l, h.key.id, password, st); err != nil {
				c.err0, c.again = err, ctx.Err() != nil
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
		if c.err0 != nil {
			if c.again {
				continue
			}
			return nil, c.err0
		}
		c.mu.Lock()
		good := c.err == nil
		if good {
			c.attach(st)
		}
		c.mu.Unlock()
		if good {
			return c, nil
		}
		h.abandon(c)
	}
}

// abandon is leave for a stream that was never attached.
func (h *hub) abandon(c *conn) {
	if !h.leave(c) {
		return
	}
	<-c.ready // at once: the one who makes it counts as a stream
	if c.err0 == nil {
		c.close()
	}
}
