package sspcmux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY returns one end of a pseudoterminal, and the path of the other.
func openPTY(t *testing.T) (*os.File, string) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	conn, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var failed error
	err = conn.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			n, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return master, fmt.Sprintf("/dev/pts/%d", n)
}

// TestDevice exchanges all byte values over a terminal at a set speed, and closes the
// terminal while it is in use.
func TestDevice(t *testing.T) {
	master, path := openPTY(t)
	l, err := ListenDevice(path, 115200, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Addr().String() != path || l.Addr().Network() != "mux" {
		t.Errorf("address %s %s", l.Addr().Network(), l.Addr())
	}
	if _, err := OpenDevice(path, 0); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("opened twice: %v", err)
	}
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	client := NewSession(master, Options{})
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		c := <-accepted
		defer c.Close()
		b := make([]byte, 256)
		for i := range b {
			b[i] = byte(i)
		}
		c.Write(b)
		c.Read(b)
	}()
	c, err := client.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 0, 256)
	for len(b) < 256 {
		n, err := c.Read(b[len(b):256])
		if err != nil {
			t.Fatal(err)
		}
		b = b[:len(b)+n]
	}
	for i, v := range b {
		if v != byte(i) {
			t.Fatalf("byte %d is %d", i, v)
		}
	}
	l.Close()
	<-accepted
	if _, err := c.Write(b); err != nil { // the channel outlives the listener
		t.Error(err)
	}
	if _, err := c.Read(b); err == nil {
		t.Error("the channel does not end")
	}
	<-client.Done()
}

func TestNoDevice(t *testing.T) {
	for _, path := range []string{"/nowhere", "/dev/null", t.TempDir()} {
		if rw, err := OpenDevice(path, 0); err == nil {
			rw.Close()
			t.Errorf("%s is a serial line", path)
		} else {
			t.Log(err)
		}
	}
}
