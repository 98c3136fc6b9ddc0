package runtime_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// An inbox keeps what a listener gets.
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

func send(t *testing.T, c *runtime.Context, class smd.Class, text string) {
	t.Helper()
	if err := c.SMD().Send(class, []byte(text)); err != nil {
		t.Error(err)
	}
}

func smdContext(t *testing.T) *runtime.Context {
	return newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, stay)
}

func TestSMD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := smdContext(t)
		defer c.Close()
		var network, all inbox
		one := c.SMD().Register(smd.ClassNetwork, network.put)
		c.SMD().Register(smd.ClassesAll, func(m smd.Message) {
			all.put(m)
			if string(m.Payload) == "ping" { // a listener may send, and gets what it sends
				send(t, c, smd.ClassUser, "pong")
			}
		})
		send(t, c, smd.ClassNetwork, "a")
		send(t, c, smd.ClassInteraction, "b")
		send(t, c, smd.ClassInteraction|smd.ClassNetwork, "c")
		synctest.Wait()
		one.Close()
		one.Close()
		send(t, c, smd.ClassNetwork, "ping")
		synctest.Wait()
		if got, want := network.String()+" | "+all.String(), "a c | a b c ping pong"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestSMDRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := smdContext(t)
		d := c.SMD()
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
		refused(smd.ClassNetwork, 385, runtime.ErrTooLong)
		refused(smd.ClassNetwork, 384, nil)
		l.Close()
		refused(smd.ClassNetwork, 1, smd.ErrNoListener)
		c.Close()
		refused(smd.ClassNetwork, 1, runtime.ErrClosed)
		d.Register(smd.ClassesAll, func(smd.Message) { t.Error("told after Close") })
		refused(smd.ClassNetwork, 1, runtime.ErrClosed)
	})
}

// TestSMDSlowListener: a listener that hangs costs the others 2 s at most, and
// what waits for it is bounded.
func TestSMDSlowListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := smdContext(t)
		defer c.Close()
		var slow, quick inbox
		hang := make(chan struct{})
		c.SMD().Register(smd.ClassUser, func(m smd.Message) { slow.put(m); <-hang })
		c.SMD().Register(smd.ClassUser, quick.put)
		sent, full := 0, 0
		for i := range 100 {
			switch err := c.SMD().Send(smd.ClassUser, fmt.Appendf(nil, "%d", i)); {
			case err == nil:
				sent++
			case errors.Is(err, smd.ErrQueueFull):
				full++
			default:
				t.Fatal(err)
			}
			synctest.Wait()
		}
		// The slow one has the first, and 40 wait for it.
		if sent != 41 || full != 59 || len(quick.list) != 41 {
			t.Errorf("%d sent, %d refused, %d came", sent, full, len(quick.list))
		}
		time.Sleep(smd.SMDLifetime + 1)
		send(t, c, smd.ClassUser, "late")
		synctest.Wait()
		if quick.list[len(quick.list)-1] != "late" {
			t.Errorf("got %v", quick.list)
		}
		close(hang)
		synctest.Wait()
		if got := slow.String(); got != "0 late" {
			t.Errorf("the slow one got %q", got)
		}
	})
}

// TestSMDThreads: every listener gets each message once, and those of one
// sender in order.
func TestSMDThreads(t *testing.T) {
	c := smdContext(t)
	defer c.Close()
	const senders, each = 4, 200
	var got [3]inbox
	for i := range got {
		c.SMD().Register(smd.ClassUser, got[i].put)
	}
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				c.SMD().Register(smd.ClassUser<<1, func(smd.Message) {}).Close()
				for {
					err := c.SMD().Send(smd.ClassUser, fmt.Appendf(nil, "%d:%d", s, i))
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
	for i := range got {
		for len(strings.Fields(got[i].String())) < senders*each && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
		var next [senders]int
		for _, m := range strings.Fields(got[i].String()) {
			var s, n int
			fmt.Sscanf(m, "%d:%d", &s, &n)
			if n != next[s] {
				t.Fatalf("listener %d got %s, want %d", i, m, next[s])
			}
			next[s]++
		}
		if got[i].String() != got[0].String() {
			t.Error("two listeners got another order")
		}
	}
}

// frame is what a stream of SMDStreamType sends.
func frame(class uint64, payload string) []byte {
	b := make([]byte, 16, 16+len(payload))
	binary.BigEndian.PutUint64(b, class)
	return append(b, payload...)
}

func TestSMDStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := smdContext(t)
		defer c.Close()
		var direct inbox
		c.SMD().Register(smd.ClassesAll, direct.put)
		tr := &trace{}
		h := tr.handlers()
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
		s, err := c.NewStream(smd.SMDStreamType, h, smd.WithClasses(smd.ClassNetwork|smd.ClassSystemState))
		if err != nil {
			t.Fatal(err)
		}
		if got := tr.String(); got != "CRE CNG CON" {
			t.Errorf("after NewStream: %s", got)
		}
		send(t, c, smd.ClassNetwork, "first")
		for range len(frames) + 1 {
			s.RequestTx()
			synctest.Wait()
		}
		long := strings.Repeat("x", 384)
		if want := []string{"4:first", "4:mine", "4:" + long, "4:last"}; !slices.Equal(received, want) {
			t.Errorf("received %q", received)
		}
		if got, want := direct.String(), "first mine not for me "+long+" last"; got != want {
			t.Errorf("listener got %q", got)
		}
		s.Destroy()
		synctest.Wait()
		if got := tr.String(); got != "CRE CNG CON DIS DES" {
			t.Error(got)
		}
	})
}

// TestSMDStreamRefused: what the callbacks answer inside of NewStream.
func TestSMDStreamRefused(t *testing.T) {
	destroy := func(*runtime.Stream) runtime.Result { return runtime.DestroyMe }
	leave := func(*runtime.Stream) runtime.Result { return runtime.DisconnectMe }
	for _, test := range []struct {
		name, at string
		answer   func(*runtime.Stream) runtime.Result
		want     string
		err      error
	}{
		{"create", "CRE", destroy, "CRE DES", runtime.ErrRefused},
		{"connecting", "CNG", destroy, "CRE CNG DES", runtime.ErrRefused},
		{"connected", "CON", destroy, "CRE CNG CON DIS DES", runtime.ErrRefused},
		{"disconnect", "CON", leave, "CRE CNG CON DIS", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := smdContext(t)
				defer c.Close()
				tr := &trace{on: map[string]func(*runtime.Stream) runtime.Result{test.at: test.answer}}
				_, err := c.NewStream(smd.SMDStreamType, tr.handlers(), smd.WithClasses(smd.ClassesAll))
				if !errors.Is(err, test.err) || tr.String() != test.want {
					t.Errorf("%v, %s", err, tr)
				}
				if err := c.SMD().Send(smd.ClassUser, nil); !errors.Is(err, smd.ErrNoListener) {
					t.Errorf("someone listens: %v", err)
				}
			})
		})
	}
}

func TestSMDStreamOptions(t *testing.T) {
	c := smdContext(t)
	if _, err := c.NewStream("s", runtime.Handlers{}, smd.WithClasses(1)); !errors.Is(err, runtime.ErrUnsupported) {
		t.Errorf("classes for another streamtype: %v", err)
	}
	if _, err := c.Open(context.Background(), smd.SMDStreamType); !errors.Is(err, runtime.ErrUnsupported) {
		t.Errorf("Open: %v", err)
	}
}

// TestSMDCloseInside: a listener may close the context.
func TestSMDCloseInside(t *testing.T) {
	c := smdContext(t)
	done := make(chan struct{})
	c.SMD().Register(smd.ClassUser, func(smd.Message) { c.Close(); close(done) })
	send(t, c, smd.ClassUser, "")
	<-done
	c.Close()
}

// TestSMDNobody checks that a listener that can take nothing is in nobody's way.
func TestSMDNobody(t *testing.T) {
	c := smdContext(t)
	defer c.Close()
	l := c.SMD().Register(smd.ClassesAll, nil)
	if err := c.SMD().Send(smd.ClassUser, nil); !errors.Is(err, smd.ErrNoListener) {
		t.Error(err)
	}
	l.Close()
}
