package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// closeWait is how long Close waits for a step: the close_notify of TLS, and the Close of
// a connection that is not one of package net.
const closeWait = time.Second

var errClose = fmt.Errorf("sspolicy: the connection did not close within %v", closeWait)

// Close closes a connection, which may be a TLS connection. It returns after at most 2 s
// and completes the close in the background: crypto/tls waits 5 s for a peer that does
// not read, and the Close of a program's connection may wait forever. Release waits for
// the connections that Dial has returned.
func Close(conn net.Conn) error {
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return closeConn(conn, func() {})
	}
	done := make(chan error, 1)
	go func() { done <- conn.Close() }()
	if returned, err := within(done); returned {
		return err
	}
	return Close(secure.NetConn())
}

// CloseLater is like Close, but returns at once. [Host.Release] waits for the close_notify of
// a connection that Dial has returned.
func CloseLater(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		if c, ok := secure.NetConn().(*dialedConn); ok {
			c.closing.Store(true)
		}
	}
	go Close(conn)
}

// closeConn closes a connection, and calls closed when its Close has returned. It waits
// at most closeWait for that.
func closeConn(conn net.Conn, closed func()) error {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn, *dialedConn, *acceptedConn: // return in time
		defer closed()
		return conn.Close()
	}
	done := make(chan error, 1)
	go func() {
		err := conn.Close()
		closed()
		done <- err
	}()
	if returned, err := within(done); returned {
		return err
	}
	return errClose
}

// within receives from done. It returns false after closeWait.
func within(done <-chan error) (returned bool, err error) {
	late := time.NewTimer(closeWait)
	defer late.Stop()
	select {
	case err := <-done:
		return true, err
	case <-late.C:
		return false, nil
	}
}

// A connSet is the set of the open connections of an Env.
type connSet struct {
	mu     sync.Mutex
	conns  map[*dialedConn]struct{}
	closed bool
	open   sync.WaitGroup // dials, and connections whose Close has not returned
}

// A dialedConn is a connection that Dial returned.
type dialedConn struct {
	net.Conn
	set     *connSet
	closing atomic.Bool // by CloseLater
	closed  atomic.Bool
}

// begin begins a dial. It fails if the set is closed.
func (d *connSet) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errSetClosed
	}
	d.open.Add(1)
	return nil
}

var errSetClosed = fmt.Errorf("sspolicy: dial: %w", ErrClosed)

// add adds the result of a dial. It closes conn if the set is closed.
func (d *connSet) add(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		d.open.Done()
		return nil, err
	}
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		closeConn(conn, d.open.Done)
		return nil, errSetClosed
	}
	defer d.mu.Unlock()
	if d.conns == nil {
		d.conns = make(map[*dialedConn]struct{})
	}
	dc := &dialedConn{Conn: conn, set: d}
	d.conns[dc] = struct{}{}
	return dc, nil
}

// Close closes the connection. It returns after at most closeWait.
func (c *dialedConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	return closeConn(c.Conn, func() {
		c.set.mu.Lock()
		defer c.set.mu.Unlock()
		delete(c.set.conns, c)
		c.set.open.Done()
	})
}

// Dialed returns the connection that package net, or Options.DialContext, made.
func (c *dialedConn) Dialed() net.Conn { return c.Conn }

// CloseWrite closes the sending direction, if the connection supports that.
func (c *dialedConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("sspolicy: half close of a %T: %w", conn, errors.ErrUnsupported)
}

// close closes all connections, and any that is added later. It waits up to
// closeLimit for calls of Close and for dials, which must have been canceled.
func (d *connSet) close() {
	d.mu.Lock()
	d.closed = true
	for c := range d.conns {
		if !c.closing.Load() {
			go c.Close()
		}
	}
	d.mu.Unlock()
	closed := make(chan struct{})
	go func() {
		d.open.Wait()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(closeLimit):
	}
}

// closeLimit is how long Release waits for calls into the network stack, or to a
// program's Options.DialContext.
const closeLimit = 5 * time.Second
