//go:build unix

package raw

import (
	"io"
	"net"
	"os"
	"syscall"
)

// A direct is a TCP or unix connection without TLS, used without what net does
// for everyone: it holds no buffer while there is nothing to read, and can be
// written to without any waiting.
type direct struct {
	conn net.Conn
	raw  syscall.RawConn

	// Of the reading goroutine.
	in            *[largeBuffer]byte // holds what has been read; nil if there is none
	n             int
	err           error
	out           []byte
	sent          int
	wait          bool
	sendErr       error
	onRead, onOut func(uintptr) bool
}

// newDirect returns nil for a connection that is more, or less, than a socket.
func newDirect(conn net.Conn) *direct {
	if c, ok := conn.(interface{ Dialed() net.Conn }); ok {
		conn = c.Dialed()
	}
	var raw syscall.RawConn
	var err error
	switch c := conn.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		if c.LocalAddr().Network() != "unix" { // the others have messages
			return nil
		}
		raw, err = c.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	d := &direct{conn: conn, raw: raw}
	d.onRead, d.onOut = d.readable, d.writable
	return d
}

// read waits for something, and returns it. It is there until the next read, or
// release.
func (d *direct) read() ([]byte, error) {
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

func (d *direct) readable(fd uintptr) bool {
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

// take takes the buffer over, for what it holds to be replaced.
func (d *direct) take() *[largeBuffer]byte {
	buf := d.in
	d.in = nil
	if buf == nil {
		buf = buffers.Get().(*[largeBuffer]byte)
	}
	return buf
}

// release gives the buffer up. d may be nil.
func (d *direct) release() {
	if d != nil && d.in != nil {
		buffers.Put(d.in)
		d.in = nil
	}
}

// write writes as much of p as can be: without waiting, or until the deadline.
func (d *direct) write(p []byte, wait bool) (int, error) {
	d.out, d.sent, d.sendErr, d.wait = p, 0, nil, wait
	err := d.raw.Write(d.onOut)
	d.out = nil
	if err == nil {
		err = d.sendErr
	}
	return d.sent, err
}

func (d *direct) writable(fd uintptr) bool {
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

// opError is what net makes of an error.
func (d *direct) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: d.conn.LocalAddr().Network(), Source: d.conn.LocalAddr(), Addr: d.conn.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}
