package smd_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/file"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// An inbox keeps the messages of a listener.
type inbox struct {
	mu   sync.Mutex
	list []string
}

func (b *inbox) put(m smd.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, string(m.Payload))
}

func (b *inbox) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.list, " ")
}

func send(t *testing.T, d *smd.SMD, class smd.Class, text string) {
	t.Helper()
	if err := d.Send(class, []byte(text)); err != nil {
		t.Error(err)
	}
}

// newSMD returns an SMD that is closed at the end of the test.
func newSMD(t *testing.T) *smd.SMD {
	d := smd.New(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { d.Close() })
	return d
}

// newContext returns a context with an SMD as a transport.
func newContext(t *testing.T) (*runtime.Context, *smd.SMD) {
	d := newSMD(t)
	return teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{d}}), d
}

func TestSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSMD(t)
		var network, all inbox
		one := d.Register(smd.ClassNetwork, network.put)
		d.Register(smd.ClassesAll, func(m smd.Message) {
			all.put(m)
			if string(m.Payload) == "ping" { // a listener may send, and receives its own messages
				send(t, d, smd.ClassUser, "pong")
			}
		})
		send(t, d, smd.ClassNetwork, "a")
		send(t, d, smd.ClassInteraction, "b")
		send(t, d, smd.ClassInteraction|smd.ClassNetwork, "c")
		synctest.Wait()
		one.Close()
		one.Close()
		send(t, d, smd.ClassNetwork, "ping")
		synctest.Wait()
		if got, want := network.String()+" | "+all.String(), "a c | a b c ping pong"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestSendErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSMD(t)
		refused := func(class smd.Class, n int, want error) {
			t.Helper()
			if err := d.Send(class, make([]byte, n)); !errors.Is(err, want) {
				t.Errorf("%d bytes of class %#x: %v, want %v", n, class, err, want)
			}
		}
		refused(smd.ClassNetwork, 1, smd.ErrNoListener)
		l := d.Register(smd.ClassNetwork, func(smd.Message) {})
		refused(0, 1, smd.ErrNoListener)
		refused(smd.ClassMetrics, 1, smd.ErrNoListener)
		refused(smd.ClassNetwork, 385, smd.ErrTooLong)
		refused(smd.ClassNetwork, 384, nil)
		l.Close()
		refused(smd.ClassNetwork, 1, smd.ErrNoListener)
		d.Close()
		refused(smd.ClassNetwork, 1, runtime.ErrClosed)
		d.Register(smd.ClassesAll, func(smd.Message) { t.Error("called after Close") })
		refused(smd.ClassNetwork, 1, runtime.ErrClosed)
	})
}

// TestSlowListener checks that a stuck listener delays the others by at most 2 s, and that
// the queue is bounded.
func TestSlowListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSMD(t)
		var slow, quick inbox
		hang := make(chan struct{})
		d.Register(smd.ClassUser, func(m smd.Message) { slow.put(m); <-hang })
		d.Register(smd.ClassUser, quick.put)
		sent, full := 0, 0
		for i := range 100 {
			switch err := d.Send(smd.ClassUser, fmt.Appendf(nil, "%d", i)); {
			case err == nil:
				sent++
			case errors.Is(err, smd.ErrQueueFull):
				full++
			default:
				t.Fatal(err)
			}
			synctest.Wait()
		}
		// The slow listener holds the first message, and 40 wait for it.
		if sent != 41 || full != 59 || len(quick.list) != 41 {
			t.Errorf("%d sent, %d refused, %d received", sent, full, len(quick.list))
		}
		time.Sleep(smd.Lifetime + 1)
		send(t, d, smd.ClassUser, "late")
		synctest.Wait()
		if quick.list[len(quick.list)-1] != "late" {
			t.Errorf("got %v", quick.list)
		}
		close(hang)
		synctest.Wait()
		if got := slow.String(); got != "0 late" {
			t.Errorf("the slow listener got %q", got)
		}
	})
}

// TestConcurrent checks that each listener receives each message once, in an order that is
// the same for all listeners and preserves that of each sender.
func TestConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSMD(t)
		const senders, each = 4, 200
		var got [3]inbox
		for i := range got {
			d.Register(smd.ClassUser, got[i].put)
		}
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				for i := range each {
					d.Register(smd.ClassUser<<1, func(smd.Message) {}).Close()
					for {
						err := d.Send(smd.ClassUser, fmt.Appendf(nil, "%d:%d", s, i))
						if err == nil {
							break
						}
						if !errors.Is(err, smd.ErrQueueFull) {
							t.Error(err)
							return
						}
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		for i := range got {
			var next [senders]int
			all := strings.Fields(got[i].String())
			for _, m := range all {
				var s, n int
				fmt.Sscanf(m, "%d:%d", &s, &n)
				if n != next[s] {
					t.Fatalf("listener %d got %s, want %d", i, m, next[s])
				}
				next[s]++
			}
			if len(all) != senders*each {
				t.Errorf("listener %d got %d messages, want %d", i, len(all), senders*each)
			}
			if got[i].String() != got[0].String() {
				t.Errorf("listeners 0 and %d got a different order", i)
			}
		}
	})
}

// frame returns the payload of a Tx: a header without a time, and the message.
func frame(class uint64, payload string) []byte {
	b := make([]byte, 16, 16+len(payload))
	binary.BigEndian.PutUint64(b, class)
	return append(b, payload...)
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, d := newContext(t)
		var direct inbox
		d.Register(smd.ClassesAll, direct.put)
		tr := new(teststream.Trace)
		h := runtime.Handlers{State: tr.State}
		var received []string
		h.Rx = func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
			if flags != runtime.FlagSOM|runtime.FlagEOM {
				t.Errorf("flags %v", flags)
			}
			if at := int64(binary.BigEndian.Uint64(buf[8:])); at != time.Now().UnixMicro() {
				t.Errorf("time %d", at)
			}
			received = append(received, fmt.Sprintf("%d:%s", binary.BigEndian.Uint64(buf), buf[16:]))
			return runtime.OK
		}
		frames := [][]byte{
			frame(4, "mine"), frame(1, "not for me"), frame(4, "")[:15], frame(1<<32, "no class"),
			frame(4, strings.Repeat("x", 384)), frame(4, "last"),
		}
		h.Tx = func(s *runtime.Stream, i uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			if i == 0 {
				return 0, 0, runtime.TxDontSend
			}
			if len(buf) != 400 {
				t.Errorf("tx of %d bytes", len(buf))
			}
			return copy(buf, frames[i-1]), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
		}
		s, err := c.NewStream(smd.StreamType, h, smd.WithClasses(smd.ClassNetwork|smd.ClassSystemState))
		if err != nil {
			t.Fatal(err)
		}
		if got := tr.String(); got != "CRE CNG CON" {
			t.Errorf("after NewStream: %s", got)
		}
		send(t, d, smd.ClassNetwork, "first")
		for range len(frames) + 1 {
			s.RequestTx()
			synctest.Wait()
		}
		long := strings.Repeat("x", 384)
		if want := []string{"4:first", "4:mine", "4:" + long, "4:last"}; !slices.Equal(received, want) {
			t.Errorf("received %q", received)
		}
		if got, want := direct.String(), "first mine not for me "+long+" last"; got != want {
			t.Errorf("the listener got %q", got)
		}
		s.Destroy()
		synctest.Wait()
		if got := tr.String(); got != "CRE CNG CON DIS DES" {
			t.Error(got)
		}
	})
}

// TestStreamRefused checks the results of callbacks inside NewStream.
func TestStreamRefused(t *testing.T) {
	for _, test := range []struct {
		name, at string
		answer   func(*runtime.Stream) runtime.Result
		want     string
		err      error
	}{
		{"create", "CRE", teststream.Destroy, "CRE DES", runtime.ErrRefused},
		{"connecting", "CNG", teststream.Destroy, "CRE CNG DES", runtime.ErrRefused},
		{"connected", "CON", teststream.Destroy, "CRE CNG CON DIS DES", runtime.ErrRefused},
		{"disconnect", "CON", teststream.Disconnect, "CRE CNG CON DIS", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, d := newContext(t)
				tr := &teststream.Trace{On: teststream.Actions{test.at: test.answer}}
				_, err := c.NewStream(smd.StreamType, runtime.Handlers{State: tr.State}, smd.WithClasses(smd.ClassesAll))
				if !errors.Is(err, test.err) || tr.String() != test.want {
					t.Errorf("%v, %s", err, tr)
				}
				if err := d.Send(smd.ClassUser, nil); !errors.Is(err, smd.ErrNoListener) {
					t.Errorf("a listener remains: %v", err)
				}
			})
		})
	}
}

func TestStreamOptions(t *testing.T) {
	d := newSMD(t)
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{d, file.New()}},
		&policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "file:///dev/null"})
	if _, err := c.NewStream("s", runtime.Handlers{}, smd.WithClasses(1)); !errors.Is(err, runtime.ErrUnsupported) {
		t.Errorf("WithClasses for another streamtype: %v", err)
	}
	c = teststream.NewContext(t, runtime.Options{})
	if _, err := c.NewStream(smd.StreamType, runtime.Handlers{}, smd.WithClasses(1)); !errors.Is(err, runtime.ErrUnknownStreamType) {
		t.Errorf("a context without an SMD: %v", err)
	}
}

// TestStreamWithoutClasses checks that a stream without WithClasses sends, and
// receives nothing.
func TestStreamWithoutClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, d := newContext(t)
		var all inbox
		d.Register(smd.ClassesAll, all.put)
		s, err := c.NewStream(smd.StreamType, runtime.Handlers{
			Rx: func(_ *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
				t.Errorf("received %q", buf)
				return runtime.OK
			},
			Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
				return copy(buf, frame(4, "mine")), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		send(t, d, smd.ClassNetwork, "first")
		s.RequestTx()
		synctest.Wait()
		if got, want := all.String(), "first mine"; got != want {
			t.Errorf("the listener got %q, want %q", got, want)
		}
	})
}

// TestCloseInside checks that a listener may close the context.
func TestCloseInside(t *testing.T) {
	c, d := newContext(t)
	done := make(chan struct{})
	d.Register(smd.ClassUser, func(smd.Message) { c.Close(); close(done) })
	send(t, d, smd.ClassUser, "")
	<-done
}

// TestNilListener checks that a listener without a function receives no message and delays
// none.
func TestNilListener(t *testing.T) {
	d := newSMD(t)
	l := d.Register(smd.ClassesAll, nil)
	if err := d.Send(smd.ClassUser, nil); !errors.Is(err, smd.ErrNoListener) {
		t.Error(err)
	}
	l.Close()
}

// TestWarnings checks that a stream that sends malformed messages cannot flood the log,
// and that the log has their number.
func TestWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		d := smd.New(slog.New(slog.NewTextHandler(&log, nil)))
		defer d.Close()
		c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{d}})
		sent, goal := 0, 1000
		s, err := c.NewStream(smd.StreamType, runtime.Handlers{
			Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
				if sent++; sent < goal {
					s.RequestTx()
				}
				return 1, runtime.FlagSOM | runtime.FlagEOM, runtime.OK
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.RequestTx()
		synctest.Wait()
		if n := strings.Count(log.String(), "WARN"); sent != goal || n < 1 || n > 20 {
			t.Errorf("%d warnings for %d messages", n, sent)
		}
		time.Sleep(time.Second)
		goal++
		s.RequestTx()
		synctest.Wait()
		if !strings.Contains(log.String(), "suppressed=980\n") {
			t.Errorf("the number of suppressed warnings is missing:\n%s", log.String())
		}
	})
}
