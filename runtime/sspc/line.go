package sspc

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/secure-streams/sspolicy/internal/sspcmux"
)

// A line is a byte stream that carries the links of a Proxy. It is open while streams use
// it.
type line struct {
	open func(context.Context) (io.ReadWriteCloser, error)

	mu      sync.Mutex
	users   int // remotes
	session *sspcmux.Session
}

// use notes a remote.
func (l *line) use() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users++
}

// release notes the end of a remote, and closes the line after the last.
func (l *line) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 && l.session != nil {
		l.session.Close()
		l.session = nil
	}
}

// dial opens a channel.
func (l *line) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, errNoAnswer)
	defer cancel()
	s, err := l.present(ctx)
	if err != nil {
		return nil, err
	}
	return s.Open(ctx)
}

// present returns the session, a new one if the one before has ended.
func (l *line) present(ctx context.Context) (*sspcmux.Session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil && l.session.Err() == nil {
		return l.session, nil
	}
	rw, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	if l.users == 0 { // the last remote was closed without waiting for this dial
		go rw.Close() // of a tty, it waits for the peer
		return nil, net.ErrClosed
	}
	l.session = sspcmux.NewSession(rw, sspcmux.Options{})
	return l.session, nil
}
