package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A stubborn is a transport whose Run and Close do not return until it is released.
type stubborn struct {
	fake
	released chan struct{}
}

func (f *stubborn) Prepare(*transport.Setup) (transport.Connector, error) { return f, nil }
func (f *stubborn) Run(ctx context.Context, l transport.Link) error {
	err := f.run(ctx, l)
	<-f.released
	if l.Connected() == nil || l.Rx([]byte("late"), 0) == nil {
		err = errors.Join(err, errors.New("an abandoned attempt still reports events"))
	}
	return err
}
func (f *stubborn) Close() error { <-f.released; return nil }

// TestAbandon checks that no guarantee of a stream depends on its transport: timeouts,
// Destroy, Shutdown, and later attempts.
func TestAbandon(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  run
		act  func(*runtime.Stream)
		want string
	}{
		{"no answer", func(context.Context, transport.Link) error { return nil }, func(*runtime.Stream) {},
			"CRE CNG 20000:UNR 21000:POL 21000:CNG 41000:UNR 41000:ARF 86400000:DES"},
		{"Destroy", connected, func(s *runtime.Stream) { s.Destroy() },
			"CRE CNG CON 5000:DIS 5000:DES"},
		{"Shutdown", connected, func(*runtime.Stream) {},
			"CRE CNG CON 86405000:DIS 86405000:DES"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &stubborn{fake{tt.run}, make(chan struct{})}
				st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1,
					Retry: &policy.Retry{Backoff: ms(1000), Conceal: 1}}
				var log bytes.Buffer
				c := teststream.NewContext(t, runtime.Options{
					Transports: []transport.Transport{f},
					Logger:     slog.New(slog.NewTextHandler(&log, nil)),
				}, st)
				tr := newTrace(on{"CRE": connect})
				tr.times = true
				s := newStream(t, c, tr.handlers())
				synctest.Wait()
				tt.act(s)
				time.Sleep(24 * time.Hour)
				start := time.Now()
				teststream.Shutdown(t, c)
				if d := time.Since(start); d > 15*time.Second {
					t.Errorf("Shutdown took %v", d)
				}
				tr.Want(t, tt.want)
				if !strings.Contains(log.String(), "continues without it") {
					t.Errorf("no warning: %s", &log)
				}
				close(f.released)
				synctest.Wait()
				tr.Want(t, tt.want) // nothing after the transport has returned
			})
		})
	}
}

// connected is an attempt that returns after CONNECTED.
func connected(_ context.Context, l transport.Link) error { return l.Connected() }

// TestFetchAbandons checks that Fetch and Open return when their context is done, even if
// the transport does not.
func TestFetchAbandons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &stubborn{fake{connected}, make(chan struct{})}
		c := teststream.NewContext(t, runtime.Options{
			Transports: []transport.Transport{f},
			Logger:     slog.New(slog.DiscardHandler),
		}, &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1})
		for name, call := range map[string]func(context.Context) error{
			"Fetch": func(ctx context.Context) error { _, err := c.Fetch(ctx, "s"); return err },
			"Open": func(ctx context.Context) error {
				conn, err := c.Open(ctx, "s")
				if err == nil {
					_, err = conn.Read(make([]byte, 1))
				}
				return err
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
			cancel()
		}
		start := time.Now()
		teststream.Shutdown(t, c)
		if d := time.Since(start); d > 15*time.Second {
			t.Errorf("Shutdown took %v", d)
		}
		close(f.released)
		synctest.Wait()
	})
}

// TestAbandonAfterCallback checks that a transport has its full time to end after a slow
// callback that it must wait for.
func TestAbandonAfterCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := runtime.Options{Logger: teststream.Logger(t)}
		c := newContextWith(t, o, policy.StreamType{Protocol: policy.ProtocolRaw}, func(_ context.Context, l transport.Link) error {
			err := l.Connected()
			time.Sleep(4 * time.Second)
			return err
		})
		tr := newTrace(on{"CRE": connect, "CON": func(*runtime.Stream) runtime.Result {
			time.Sleep(9 * time.Second)
			return runtime.OK
		}})
		tr.times = true
		s := newStream(t, c, tr.handlers())
		time.Sleep(time.Second)
		s.Destroy()
		time.Sleep(time.Minute)
		tr.Want(t, "CRE CNG CON 13000:DIS 13000:DES")
	})
}
