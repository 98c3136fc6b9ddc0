package ws

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// TestLock checks mutual exclusion, TryLock, and that the clock of a bubble advances while
// goroutines wait.
func TestLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var l lock
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				l.Lock()
				time.Sleep(time.Second)
				l.Unlock()
			})
		}
		synctest.Wait()
		if l.TryLock() {
			t.Error("TryLock of a lock that is held")
		}
		wg.Wait()
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
		if !l.TryLock() {
			t.Error("TryLock failed")
		}
	})
}

// TestCause checks which error is reported for a connection that a peer resets: a write
// fails with net.ErrClosed when the reader has closed the connection.
func TestCause(t *testing.T) {
	reset := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	bye := websocket.CloseError{Code: 4001}
	for _, tt := range []struct {
		name        string
		write, read error
		want        any
	}{
		{"the reader first", net.ErrClosed, reset, syscall.ECONNRESET},
		{"the writer first", syscall.EPIPE, net.ErrClosed, syscall.EPIPE},
		{"a close frame", syscall.EPIPE, bye, new(*CloseError)},
	} {
		c := &conn{writeErr: fmt.Errorf("ws: %w", tt.write)}
		err := c.cause(tt.read)
		switch want := tt.want.(type) {
		case error:
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", tt.name, err, want)
			}
		default:
			if !errors.As(err, want) {
				t.Errorf("%s: %v, want a %T", tt.name, err, want)
			}
		}
	}
}
