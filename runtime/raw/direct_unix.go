//go:build unix

package raw

import (
	"io"
	"net"
	"os"
	"syscall"
)

// A directConn makes system calls on the socket of a TCP or unix connection. Unlike
// package net it needs no buffer while there is nothing to read, and it can write
// without blocking.
type directConn struct {
	conn net.Conn
	raw  syscall.RawConn

	// Used by the reading goroutine.
	in            *[largeBuffer]byte // the piece read; nil if there is none
	n             int
	err           error
	out           []byte
	sent          int
	wait          bool
	sendErr       error
	onRead, onOut func(uintptr) bool
}

// newDirectConn returns nil for a connection that is not a plain stream socket.
func newDirectConn(conn net.Conn) *directConn {
	if c, ok := conn.(interface{ Dialed() net.Conn }); ok {
		conn = c.Dialed()
	}
	var raw syscall.RawConn
	var err error
	switch c := conn.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		if c.LocalAddr().Network() != "unix" { // unixgram and unixpacket have messages
			return nil
		}
		raw, err = c.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	d := &directConn{conn: conn, raw: raw}
	d.onRead, d.onOut = d.readable, d.writable
	return d
}

// read waits for a piece and returns it. The piece is valid until the next call of
// read or release.
func (d *directConn) read() ([]byte, error) {
	d.n, d.err = 0, nil
	if err := d.raw.Read(d.onRead); err != nil {
		d.release()
		return nil, err
	}
	if d.err != nil {
		d.release()
		return nil, d.err
	}
	return d.in[:d.n], nil
}

func (d *directConn) readable(fd uintptr) bool {
	if d.in == nil {
		d.in = buffers.Get().(*[largeBuffer]byte)
	}
	n, err := syscall.Read(int(fd), d.in[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), d.in[:])
	}
	switch {
	case err == syscall.EAGAIN:
		d.release()
		return false
	case err != nil:
		d.err = d.opError("read", err)
	case n == 0:
		d.err = io.EOF
	}
	d.n = n
	return true
}

// take returns the buffer of the piece for use by the caller, or another one.
func (d *directConn) take() *[largeBuffer]byte {
	buf := d.in
	d.in = nil
	if buf == nil {
		buf = buffers.Get().(*[largeBuffer]byte)
	}
	return buf
}

// release releases the buffer of the piece. d may be nil.
func (d *directConn) release() {
	if d != nil && d.in != nil {
		buffers.Put(d.in)
		d.in = nil
	}
}

// write writes as much of p as possible without blocking or, with wait, until the
// deadline.
func (d *directConn) write(p []byte, wait bool) (int, error) {
	d.out, d.sent, d.sendErr, d.wait = p, 0, nil, wait
	err := d.raw.Write(d.onOut)
	d.out = nil
	if err == nil {
		err = d.sendErr
	}
	return d.sent, err
}

func (d *directConn) writable(fd uintptr) bool {
	for d.sent < len(d.out) {
		n, err := syscall.Write(int(fd), d.out[d.sent:])
		switch {
		case n > 0:
			d.sent += n
		case err == syscall.EAGAIN:
			return !d.wait
		case err != nil && err != syscall.EINTR:
			d.sendErr = d.opError("write", err)
			return true
		}
	}
	return true
}

// opError returns err in the form of package net.
func (d *directConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: d.conn.LocalAddr().Network(), Source: d.conn.LocalAddr(), Addr: d.conn.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}
