package http

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// errLost is why the streams of an h2 connection end that is given up.
var errLost = fmt.Errorf("sspolicy: h2 connection given up: %w", transport.ErrNoValidity)

// A watched is a connection of h2 that is given up when nothing comes from it:
// for the policy's svalidhup, or when a request on it went unanswered and the
// PING after it too.
type watched struct {
	net.Conn
	validity *transport.Validity
	lost     atomic.Bool
	last     atomic.Int64 // when something came last, as since has it

	mu       sync.Mutex
	closed   bool
	suspect  *time.Timer // nil: it is not one
	pardoned int64       // last, when a suspicion was unfounded
}

// epoch is what times are counted from.
var epoch = time.Now()

func since() int64 { return int64(time.Since(epoch)) }

// watch watches a new connection.
func watch(k poolKey, conn net.Conn) *watched {
	w := &watched{Conn: conn}
	w.last.Store(since())
	w.validity = k.env.Watch(0, k.hangup, k.wakes, nil, w.giveUp)
	return w
}

// giveUp closes the connection because nothing comes from it.
func (w *watched) giveUp() {
	w.lost.Store(true)
	w.Close()
}

// Read reads from the connection.
func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.last.Store(since())
		w.validity.Confirm()
	}
	if err != nil && w.lost.Load() {
		err = errLost
	}
	return n, err
}

// Close closes the connection.
func (w *watched) Close() error {
	w.validity.Stop()
	w.mu.Lock()
	w.closed = true
	if w.suspect != nil {
		w.suspect.Stop()
	}
	w.mu.Unlock()
	return w.Conn.Close()
}

// unanswered says that a request on the connection, sent at began, got no answer
// within the limit of the attempt. If nothing else has come since then net/http
// sends a PING with the RST_STREAM: the connection is given up if nothing comes
// of that either. But it sends one only if the peer has sent more than the answer
// to another such PING since that, so that there is no judging by the second.
func (w *watched) unanswered(began int64, limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.last.Load()
	if w.closed || w.suspect != nil || last > began || last == w.pardoned {
		return
	}
	w.suspect = time.AfterFunc(limit/4, func() {
		w.mu.Lock()
		w.suspect = nil
		w.pardoned = w.last.Load()
		innocent := w.pardoned != last
		w.mu.Unlock()
		if !innocent {
			w.giveUp()
		}
	})
}

// watchedOf returns the connection below TLS, or nil if it is none of ours.
func watchedOf(conn net.Conn) *watched {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	w, _ := conn.(*watched)
	return w
}
