package sspcmux

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// OpenDevice opens a serial line, or another terminal device, in raw mode. speed is
// in bits per second; 0 keeps the current speed.
func OpenDevice(path string, speed int) (io.ReadWriteCloser, error) {
	f, err := openDevice(path)
	if err != nil {
		return nil, err
	}
	if speed, err = setRaw(f, speed); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: cannot be set up as a serial line: %w", path, err)
	}
	return device{f, speed}, nil
}

// A device is a serial line.
type device struct {
	*os.File
	speed int // in bits per second; 0 if unknown
}

// Speed returns the speed in bits per second.
func (d device) Speed() int { return d.speed }

// An Addr is the address of a line.
type Addr string

// Network returns "mux".
func (Addr) Network() string { return "mux" }

// String returns the path of a device.
func (a Addr) String() string { return string(a) }

// A DeviceListener accepts the channels of a device. If the device disappears, such as an
// unplugged adapter, the listener reopens it when it is available again.
type DeviceListener struct {
	path  string
	speed int
	log   *slog.Logger

	mu      sync.Mutex
	session *Session
	closed  chan struct{}
}

// reopenInterval is the interval between attempts to reopen a device.
const reopenInterval = time.Second

// ListenDevice opens a device for the server.
func ListenDevice(path string, speed int, log *slog.Logger) (*DeviceListener, error) {
	l := &DeviceListener{path: path, speed: speed, log: log, closed: make(chan struct{})}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// open opens the device and starts a session.
func (l *DeviceListener) open() error {
	rw, err := OpenDevice(l.path, l.speed)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		rw.Close()
		return net.ErrClosed
	default:
	}
	l.session = NewSession(rw, Options{Server: true, Addr: Addr(l.path), Logger: l.log})
	return nil
}

// Accept implements net.Listener.
func (l *DeviceListener) Accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		s := l.session
		l.mu.Unlock()
		c, err := s.Accept()
		if err == nil {
			return c, nil
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		default:
		}
		if l.log != nil {
			l.log.Warn("mux: device lost", "device", l.path, "err", s.Err())
		}
		if err := l.reopen(); err != nil {
			return nil, err
		}
	}
}

// reopen retries to open the device until it succeeds or the listener is closed.
func (l *DeviceListener) reopen() error {
	for {
		select {
		case <-l.closed:
			return net.ErrClosed
		case <-time.After(reopenInterval):
		}
		if err := l.open(); err == nil {
			return nil
		}
	}
}

// Close implements net.Listener. The device stays open until the channels have ended.
func (l *DeviceListener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	l.session.Refuse()
	return nil
}

// Addr implements net.Listener.
func (l *DeviceListener) Addr() net.Addr { return Addr(l.path) }
