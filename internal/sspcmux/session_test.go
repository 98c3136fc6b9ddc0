package sspcmux

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pair returns both ends of a line.
func pair(t *testing.T) (client, server *Session) {
	a, b := net.Pipe()
	client, server = NewSession(a, Options{}), NewSession(b, Options{Server: true})
	t.Cleanup(func() { closeAll(client, server) })
	return client, server
}

func closeAll(closers ...io.Closer) {
	for _, c := range closers {
		c.Close()
	}
	synctest.Wait()
}

// echo serves channels that return what they receive.
func echo(s *Session) {
	for {
		c, err := s.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

func TestEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		go echo(server)
		var wg sync.WaitGroup
		for i := range 300 { // more channels than numbers, one after another
			c, err := client.Open(t.Context())
			if err != nil {
				t.Fatal(i, err)
			}
			wg.Go(func() {
				message := bytes.Repeat([]byte{byte(i)}, 100+1000*(i%5))
				go c.Write(message)
				got := make([]byte, len(message))
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, message) {
					t.Error(i, err)
				}
				c.Close()
			})
			if i%200 == 0 {
				wg.Wait()
				synctest.Wait()
			}
		}
		wg.Wait()
	})
}

// TestFlowControl checks that a channel without a reader does not block another.
func TestFlowControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		stuck, err := openPair(t, client, server)
		if err != nil {
			t.Fatal(err)
		}
		go stuck[0].Write(make([]byte, 1<<20))
		free, err := openPair(t, client, server)
		if err != nil {
			t.Fatal(err)
		}
		go free[0].Write(make([]byte, 1<<20))
		if _, err := io.ReadFull(free[1], make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := stuck[1].(*Channel).held; n > window {
			t.Errorf("a channel holds %d bytes", n)
		}
		if _, err := io.ReadFull(stuck[1], make([]byte, 1<<20)); err != nil {
			t.Error(err)
		}
	})
}

// openPair returns both ends of a new channel.
func openPair(t *testing.T, client, server *Session) (ends [2]net.Conn, err error) {
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := server.Accept()
		if err == nil {
			c.(*Channel).accept()
			accepted <- c
		}
	}()
	if ends[0], err = client.Open(t.Context()); err == nil {
		ends[1] = <-accepted
	}
	return ends, err
}

func TestCloseDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		ends, err := openPair(t, client, server)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			ends[0].Write(make([]byte, 50_000))
			ends[0].Close()
		}()
		b, err := io.ReadAll(ends[1])
		if len(b) != 50_000 || err != nil {
			t.Error(len(b), err)
		}
	})
}

func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		go func() {
			c, _ := server.Accept()
			c.Close()
		}()
		if _, err := client.Open(t.Context()); err != ErrRefused {
			t.Error(err)
		}
	})
}

// TestRefuse checks that a session that refuses channels ends after the last one.
func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		ends, err := openPair(t, client, server)
		if err != nil {
			t.Fatal(err)
		}
		opened := make(chan error)
		go func() {
			_, err := client.Open(t.Context())
			opened <- err
		}()
		synctest.Wait() // the request waits for Accept
		server.Refuse()
		server.Refuse()
		if err := <-opened; err != ErrRefused {
			t.Errorf("a channel that was requested before: %v", err)
		}
		if _, err := client.Open(t.Context()); err != ErrRefused {
			t.Errorf("a channel that was requested after: %v", err)
		}
		for {
			c, err := server.Accept()
			if errors.Is(err, net.ErrClosed) {
				break
			}
			if n, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("read %d bytes from a refused channel", n)
			}
		}
		time.Sleep(time.Minute)
		go ends[0].Write([]byte("late"))
		if _, err := io.ReadFull(ends[1], make([]byte, 4)); err != nil {
			t.Error(err)
		}
		go func() {
			ends[1].Write([]byte("last"))
			ends[1].Close()
		}()
		if b, err := io.ReadAll(ends[0]); string(b) != "last" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		<-server.Done()
		<-client.Done()
	})
}

// TestRequestFlood checks that requests beyond the queue of Accept leave no goroutines,
// which would make the bubble fail.
func TestRequestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, l := newLWSEnd(t, Options{Server: true})
		go io.Copy(io.Discard, l.Conn)
		for range 2 * channels {
			l.Write([]byte{cmdRequest, 7, cmdClose, 7})
		}
		synctest.Wait()
		if n := len(server.next); n != channels {
			t.Errorf("%d channels wait", n)
		}
	})
}

func TestNoPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		go io.Copy(io.Discard, b)
		s := NewSession(a, Options{})
		defer closeAll(s)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := s.Open(ctx); !errors.Is(err, ErrDown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		if err := s.Err(); err != nil {
			t.Error(err)
		}
	})
}

// TestMutePeer checks that the memory for a peer that does not read is bounded.
func TestMutePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		s := NewSession(a, Options{Server: true})
		defer closeAll(s, b)
		for range 2000 {
			if _, err := b.Write([]byte{cmdReset, cmdPing, 0, 0, 0, 0, 0, 0, 0, 1}); err != nil {
				break
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.queue) > maxControl+flushSize {
			t.Errorf("%d bytes wait", len(s.queue))
		}
	})
}

// A noisyLine damages the bytes that it carries.
type noisyLine struct {
	net.Conn
	mu     sync.Mutex
	damage func([]byte) []byte
}

func (l *noisyLine) Write(b []byte) (int, error) {
	l.mu.Lock()
	damage := l.damage
	l.mu.Unlock()
	if damage == nil {
		return l.Conn.Write(b)
	}
	if _, err := l.Conn.Write(damage(bytes.Clone(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (l *noisyLine) set(damage func([]byte) []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.damage = damage
}

// TestNoise damages a line in many ways, and checks that it recovers within a time limit.
func TestNoise(t *testing.T) {
	for name, damage := range map[string]func(r *rand.Rand, b []byte) []byte{
		"bits":   func(r *rand.Rand, b []byte) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b },
		"lost":   func(r *rand.Rand, b []byte) []byte { return b[r.IntN(len(b)):] },
		"random": func(r *rand.Rand, b []byte) []byte { return append(b, byte(r.Uint32()), byte(r.Uint32())) },
		"commands": func(r *rand.Rand, b []byte) []byte {
			return append(b, byte(0xf0+r.IntN(11)), byte(r.Uint32()), byte(r.Uint32()))
		},
		"long": func(_ *rand.Rand, b []byte) []byte { return append(b, cmdData, 255, 0xff, 0xff) },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3) {
				synctest.Test(t, func(t *testing.T) {
					r := rand.New(rand.NewPCG(seed, 1))
					a, b := net.Pipe()
					near, far := &noisyLine{Conn: a}, &noisyLine{Conn: b}
					client, server := NewSession(near, Options{}), NewSession(far, Options{Server: true})
					defer closeAll(client, server)
					go echo(server)
					if err := exchange(t.Context(), client, 5000); err != nil {
						t.Fatal(err)
					}
					for _, l := range []*noisyLine{near, far} {
						r := rand.New(rand.NewPCG(seed, r.Uint64()))
						l.set(func(b []byte) []byte {
							if r.IntN(3) > 0 {
								return b
							}
							return damage(r, b)
						})
					}
					for range 10 {
						ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
						exchange(ctx, client, 5000)
						cancel()
					}
					near.set(nil)
					far.set(nil)
					quiet := time.Now()
					for {
						ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
						err := exchange(ctx, client, 5000)
						cancel()
						if err == nil {
							break
						}
						if time.Since(quiet) > 3*time.Minute {
							t.Fatalf("seed %d: no recovery after %v: %v", seed, time.Since(quiet), err)
						}
					}
				})
			}
		})
	}
}

var errDamaged = errors.New("damaged")

// exchange sends n bytes over a new channel and compares the echo.
func exchange(ctx context.Context, s *Session, n int) error {
	c, err := s.Open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		c.SetDeadline(at)
	}
	message := bytes.Repeat([]byte("0123456789"), n/10)
	go c.Write(message)
	got := make([]byte, len(message))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, message) {
		return errDamaged
	}
	return nil
}

// An lwsEnd plays the mux transport of lws 5.0.0, which frees no channel.
type lwsEnd struct {
	net.Conn
	t *testing.T
}

func newLWSEnd(t *testing.T, o Options) (*Session, *lwsEnd) {
	a, b := net.Pipe()
	s := NewSession(a, o)
	l := &lwsEnd{b, t}
	t.Cleanup(func() { closeAll(s, b) })
	l.connect()
	return s, l
}

// connect brings the line up.
func (l *lwsEnd) connect() {
	l.t.Helper()
	ping := l.until(cmdPing)
	go l.Write([]byte{cmdReset, cmdPing, 0, 0, 0, 0, 0, 0, 0, 9})
	l.until(cmdPong)
	l.Write(append(append([]byte{cmdPong}, ping...), 0, 0, 0, 0, 0, 0, 0, 1))
	l.until(cmdPongAck)
}

// until reads commands up to cmd, and returns the body of that.
func (l *lwsEnd) until(cmd byte) []byte {
	l.t.Helper()
	for {
		var b [20]byte
		if _, err := io.ReadFull(l, b[:1]); err != nil {
			l.t.Fatalf("%v instead of %#x", err, cmd)
		}
		n := length(b[0])
		if n == 0 || b[0] == cmdWindow {
			l.t.Fatalf("command %#x", b[0])
		}
		if _, err := io.ReadFull(l, b[1:n]); err != nil {
			l.t.Fatal(err)
		}
		body := b[1:n]
		if b[0] == cmdData {
			body = make([]byte, binary.BigEndian.Uint16(b[2:]))
			if _, err := io.ReadFull(l, body); err != nil {
				l.t.Fatal(err)
			}
		}
		if b[0] == cmd {
			return body
		}
	}
}

// TestLWSServer has a proxy of lws, which does not acknowledge the end of a channel. The
// client resets the line when that affects no link.
func TestLWSServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := newLWSEnd(t, Options{})
		var open []net.Conn
		for i := range 2 {
			result := make(chan net.Conn, 1)
			go func() {
				c, err := s.Open(t.Context())
				if err != nil {
					t.Error(err)
				}
				result <- c
			}()
			n := peer.until(cmdRequest)[0]
			if n != byte(255-i) {
				t.Errorf("channel %d", n)
			}
			peer.Write([]byte{cmdAck, n})
			open = append(open, <-result)
		}
		go open[0].Close()
		peer.until(cmdClose)
		time.Sleep(time.Minute / 6)
		synctest.Wait()
		go open[1].Write([]byte("hello"))
		if b := peer.until(cmdData); string(b) != "hello" {
			t.Errorf("%q", b)
		}
		go open[1].Close()
		peer.until(cmdClose)
		peer.until(cmdReset)
		peer.connect()
	})
}

// TestLWSClient has a client of lws, which does not acknowledge the end of a channel. Its
// other streams continue, and the number is not reused.
func TestLWSClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := newLWSEnd(t, Options{Server: true})
		go echo(s)
		peer.Write([]byte{cmdRequest, 255})
		if n := peer.until(cmdAck)[0]; n != 255 {
			t.Errorf("channel %d", n)
		}
		peer.Write(append([]byte{cmdData, 255, 0, 5}, "hello"...))
		if b := peer.until(cmdData); string(b) != "hello" {
			t.Errorf("%q", b)
		}
		peer.Write(append([]byte{cmdData, 7, 0, 5}, "hello"...)) // not open
		if n := peer.until(cmdNack)[0]; n != 7 {
			t.Errorf("channel %d", n)
		}
		s.mu.Lock()
		c := s.channels[255]
		s.mu.Unlock()
		go c.Close()
		peer.until(cmdClose)
		time.Sleep(time.Minute / 6)
		synctest.Wait()
		peer.Write([]byte{cmdRequest, 255})
		if n := peer.until(cmdNack)[0]; n != 255 {
			t.Errorf("channel %d", n)
		}
		peer.Write([]byte{cmdRequest, 254})
		if n := peer.until(cmdAck)[0]; n != 254 {
			t.Errorf("channel %d", n)
		}
	})
}

// TestOverflow has a client without flow control that sends more than the program reads.
func TestOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := newLWSEnd(t, Options{Server: true})
		go peer.Write([]byte{cmdRequest, 255})
		c, err := s.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.(*Channel).accept()
		peer.until(cmdAck)
		go func() {
			for range 100 {
				peer.Write(append([]byte{cmdData, 255, 4, 0}, make([]byte, 1024)...))
			}
		}()
		peer.until(cmdClose)
		if n := c.(*Channel).held; n > window {
			t.Errorf("%d bytes", n)
		}
	})
}

func FuzzSession(f *testing.F) {
	f.Add([]byte{cmdReset, cmdPing, 0, 0, 0, 0, 0, 0, 0, 1, cmdPongAck, 0, 0, 0, 0, 0, 0, 0, 1, cmdRequest, 1, cmdData, 1, 0, 1, 'x', cmdWindow, 1, 0, 0, 0, 1, cmdClose, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			s := NewSession(near, Options{Server: true})
			go echo(s)
			go io.Copy(io.Discard, far)
			far.Write(b)
			synctest.Wait()
			closeAll(s, far)
		})
	})
}

// TestUnreadEnd checks that a session whose peer does not read ends its channels, since
// pings remain unanswered, and can be closed.
func TestUnreadEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newLWSEnd(t, Options{Server: true})
		l.Write([]byte{cmdRequest, 5})
		c, err := s.Accept()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(pingInterval + 2*pongTimeout)
		if !c.(*Channel).Ended() {
			t.Error("the channel has not ended")
		}
		s.Close()
		<-s.Done()
	})
}

// TestLogLimit checks that a peer cannot cause unlimited log lines.
func TestLogLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		_, l := newLWSEnd(t, Options{Server: true, Logger: slog.New(slog.NewTextHandler(&lines, nil))})
		go io.Copy(io.Discard, l)
		for range 1000 {
			l.Write([]byte{cmdReset, cmdPing, 0, 0, 0, 0, 0, 0, 0, 9})
			synctest.Wait() // PONG
			l.Write([]byte{cmdPongAck, 0, 0, 0, 0, 0, 0, 0, 1})
		}
		synctest.Wait()
		if n := bytes.Count(lines.Bytes(), []byte("\n")); n != maxLines {
			t.Errorf("%d lines", n)
		}
	})
}

// TestPongAckAlone checks that a PONGACK brings the line up only after a PONG.
func TestPongAckAlone(t *testing.T) {
	pongAck := []byte{cmdPongAck, 0, 0, 0, 0, 0, 0, 0, 1}
	for _, tt := range []struct {
		name  string
		lines [][]byte
		up    bool
	}{
		{"alone", [][]byte{{cmdReset}, pongAck}, false},
		{"before PONG", [][]byte{append([]byte{cmdReset, cmdPing, 0, 0, 0, 0, 0, 0, 0, 9, cmdReset}, pongAck...)}, false},
		{"after a PONG before the reset", [][]byte{{cmdReset, cmdPing, 0, 0, 0, 0, 0, 0, 0, 9}, append([]byte{cmdReset}, pongAck...)}, false},
		{"after PONG", [][]byte{{cmdReset, cmdPing, 0, 0, 0, 0, 0, 0, 0, 9}, pongAck}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			s := NewSession(a, Options{})
			defer closeAll(s, b)
			go io.Copy(io.Discard, b)
			for _, line := range tt.lines {
				b.Write(line)
				synctest.Wait()
			}
			if s.isUp() != tt.up {
				t.Errorf("%s: the line is up: %v", tt.name, !tt.up)
			}
		})
	}
}

// A serialLine is a serial line of 9,600 bits per second, whose driver buffers lineBuffer.
type serialLine struct {
	net.Conn
	buffer chan byte
	once   sync.Once
	closed chan struct{}
}

func newSerialLine(c net.Conn) *serialLine {
	l := &serialLine{Conn: c, buffer: make(chan byte, lineBuffer), closed: make(chan struct{})}
	go func() {
		var b []byte
		for {
			select {
			case first := <-l.buffer:
				for b = append(b[:0], first); len(b) < 48 && len(l.buffer) > 0; {
					b = append(b, <-l.buffer)
				}
				time.Sleep(time.Duration(len(b)) * 10 * time.Second / 9600)
				c.Write(b)
			case <-l.closed:
				return
			}
		}
	}()
	return l
}

func (l *serialLine) Speed() int { return 9600 }

func (l *serialLine) Write(p []byte) (int, error) {
	for i, b := range p {
		select {
		case l.buffer <- b:
		case <-l.closed:
			return i, net.ErrClosed
		}
	}
	return len(p), nil
}

func (l *serialLine) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Conn.Close()
}

// TestSlowLine closes channels of a serial line right after they have written. All data
// arrives, and the line stays up.
func TestSlowLine(t *testing.T) {
	const channels, size = 3, 6000
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		a, b := net.Pipe()
		near, far := newSerialLine(a), newSerialLine(b)
		client, server := NewSession(near, Options{}), NewSession(far, Options{Server: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		defer func() {
			closeAll(client, server)
			time.Sleep(time.Second) // the last bytes
		}()
		got := make(chan int)
		go func() {
			for {
				c, err := server.Accept()
				if err != nil {
					return
				}
				go func() {
					n, _ := io.Copy(io.Discard, c)
					c.Close()
					got <- int(n)
				}()
			}
		}()
		for range channels {
			go func() {
				c, err := client.Open(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				c.Write(make([]byte, size))
				c.Close()
			}()
		}
		for range channels {
			if n := <-got; n != size {
				t.Errorf("%d bytes of %d arrived", n, size)
			}
		}
		time.Sleep(time.Minute)
		client.mu.Lock()
		held := slices.ContainsFunc(client.channels[:], func(c *Channel) bool { return c != nil })
		client.mu.Unlock()
		if held {
			t.Error("a channel keeps its number")
		}
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("the line does not stay up:\n%s", &log)
		}
	})
}
