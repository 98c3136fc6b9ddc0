package http

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// errSilent ends the streams of an h2 connection that a monitor has closed.
var errSilent = fmt.Errorf("sspolicy: h2 connection closed: %w", transport.ErrNoValidity)

// A monitor is a connection of h2 that closes itself if nothing arrives from the
// peer for the time of svalidhup, or if a request was not answered and neither is
// the PING after it.
type monitor struct {
	net.Conn
	validity *transport.Validity
	silent   atomic.Bool  // closed by the monitor
	last     atomic.Int64 // time of the latest read, as clock

	mu         sync.Mutex
	closed     bool
	suspicion  *time.Timer // nil if there is none
	falseAlarm int64       // last, at the end of a suspicion that was unfounded
}

// epoch is the zero of clock.
var epoch = time.Now()

// clock returns the time since epoch in nanoseconds.
func clock() int64 { return int64(time.Since(epoch)) }

// newMonitor monitors a new connection.
func newMonitor(k poolKey, conn net.Conn) *monitor {
	m := &monitor{Conn: conn}
	m.last.Store(clock())
	m.validity = k.env.Watch(0, k.hangup, k.wakes, nil, m.hangUp)
	return m
}

// hangUp closes the connection because its peer is silent.
func (m *monitor) hangUp() {
	m.silent.Store(true)
	m.Close()
}

// Read reads from the connection.
func (m *monitor) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if n > 0 {
		m.last.Store(clock())
		m.validity.Confirm()
	}
	if err != nil && m.silent.Load() {
		err = errSilent
	}
	return n, err
}

// Close closes the connection.
func (m *monitor) Close() error {
	m.validity.Stop()
	m.mu.Lock()
	m.closed = true
	if m.suspicion != nil {
		m.suspicion.Stop()
	}
	m.mu.Unlock()
	return m.Conn.Close()
}

// unanswered reports that a request of the connection, sent at the time sent, had
// no answer within limit. If nothing else has arrived since then, net/http sends a
// PING with the RST_STREAM, and the connection is closed if that is not answered
// either. net/http sends another such PING only after the peer has sent more than
// the answer to the one before, so the silence after a false alarm proves nothing.
func (m *monitor) unanswered(sent int64, limit time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.last.Load()
	if m.closed || m.suspicion != nil || last > sent || last == m.falseAlarm {
		return
	}
	m.suspicion = time.AfterFunc(limit/4, func() {
		m.mu.Lock()
		m.suspicion = nil
		m.falseAlarm = m.last.Load()
		silent := m.falseAlarm == last
		m.mu.Unlock()
		if silent {
			m.hangUp()
		}
	})
}

// monitorOf returns the monitor below TLS, or nil if there is none.
func monitorOf(conn net.Conn) *monitor {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	m, _ := conn.(*monitor)
	return m
}
