package runtime_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// An opener is a fake whose streams connect in NewStream.
type opener struct {
	fake
	open func(l transport.Link) error
}

func (o *opener) Prepare(*transport.Setup) (transport.Connector, error) { return o, nil }
func (o *opener) Open(l transport.Link) error                           { return o.open(l) }
func (o *opener) Run(ctx context.Context, l transport.Link) error       { return o.run(ctx, l) }
func (o *opener) Close() error                                          { return nil }

func openerContext(t *testing.T, open func(l transport.Link) error) *runtime.Context {
	return teststream.NewContext(t, runtime.Options{
		Transports: []transport.Transport{&opener{fake{hang}, open}},
		Logger:     slog.New(slog.DiscardHandler),
	}, &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1})
}

// TestSlowOpen checks a stream that is abandoned while Open runs.
func TestSlowOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openerContext(t, func(transport.Link) error {
			time.Sleep(6 * time.Second)
			return errors.New("refused")
		})
		tr := newTrace(on{"CRE": connect})
		time.AfterFunc(time.Second/2, func() { c.Close() })
		if _, err := c.NewStream("s", tr.handlers()); err == nil {
			t.Error("NewStream returned a stream of a closed context")
		}
	})
}

// TestPanicInOpen checks that a link is dead after a panic of a callback in Open.
func TestPanicInOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var link transport.Link
		c := openerContext(t, func(l transport.Link) error { link = l; return l.Connected() })
		tr := newTrace(on{"CRE": connect, "CON": func(s *runtime.Stream) runtime.Result {
			s.Destroy()
			panic("test")
		}})
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic did not reach the caller")
				}
			}()
			c.NewStream("s", tr.handlers())
		}()
		if err := link.Rx([]byte("x"), 0); err == nil {
			t.Error("Rx succeeds after the panic")
		}
		time.Sleep(time.Minute) // no timer refers to the stream
		teststream.Shutdown(t, c)
	})
}

// TestSlowRx checks that a slow callback is not treated as a stuck transport, which would
// be logged.
func TestSlowRx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, fetch)
		s := newStream(t, c, runtime.Handlers{Rx: func(*runtime.Stream, []byte, runtime.Flags) runtime.Result {
			time.Sleep(8 * time.Second)
			return runtime.OK
		}})
		s.Connect()
		time.Sleep(time.Second)
		s.Destroy()
		time.Sleep(time.Minute)
	})
}

// A curious Logger calls a method of a stream.
type curious struct{ s *runtime.Stream }

func (n *curious) Warn(string, ...any)  { n.s.State() }
func (n *curious) Error(string, ...any) { n.s.State() }

// TestLoggerCallsStream checks that no lock is held while a Logger runs.
func TestLoggerCallsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &curious{}
		f := &stubborn{fake{connected}, make(chan struct{})}
		c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{f}, Logger: n},
			&policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1})
		tr := newTrace(on{"CRE": connect})
		n.s = newStream(t, c, tr.handlers())
		synctest.Wait()
		n.s.Destroy()
		time.Sleep(6 * time.Second)
		if got := n.s.State(); got != runtime.StateDestroying {
			t.Errorf("state %v", got)
		}
		close(f.released)
	})
}

// TestRequestDuringRenewal checks a request while the first attempt of a stream waits
// for the preparation of a new policy.
func TestRequestDuringRenewal(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	f := &preparer{fake{hang}, func(s *transport.Setup) {
		if s.Stream.Name == "t" {
			close(entered)
			<-release
		}
	}}
	st := func(name string, port uint16) *policy.StreamType {
		return &policy.StreamType{Name: name, Protocol: policy.ProtocolRaw, Endpoint: "h", Port: port}
	}
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{f}}, st("s", 1), st("t", 1))
	tr := newTrace(on{"CRE": func(s *runtime.Stream) runtime.Result {
		if err := c.Overlay(&policy.Policy{StreamTypes: []*policy.StreamType{st("s", 2), st("t", 1)}}); err != nil {
			t.Error(err)
		}
		go c.NewStream("t", runtime.Handlers{})
		<-entered
		s.Connect()
		go func() {
			defer close(release)
			for range 1000 {
				s.RequestTx()
			}
		}()
		return runtime.OK
	}})
	newStream(t, c, tr.handlers())
}

// A preparer is a fake that calls f in Prepare.
type preparer struct {
	fake
	f func(s *transport.Setup)
}

func (p *preparer) Prepare(s *transport.Setup) (transport.Connector, error) {
	p.f(s)
	return p.fake.Prepare(s)
}

// TestLateMetadata checks that an abandoned attempt does not see the metadata of the next
// attempt.
func TestLateMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1, Metadata: []policy.Metadata{{Name: "m"}}}
		attempts, late := 0, make(chan string, 1)
		f := &fake{func(ctx context.Context, l transport.Link) error {
			if err := l.Connected(); err != nil {
				return err
			}
			if attempts++; attempts > 1 {
				<-ctx.Done()
				return nil
			}
			<-ctx.Done()
			time.Sleep(10 * time.Second)
			value, _ := l.Metadata(0)
			late <- value
			return nil
		}}
		c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{f}, Logger: slog.New(slog.DiscardHandler)}, st)
		tr := newTrace(on{"CRE": connect, "TMO": teststream.Disconnect, "DIS": func(s *runtime.Stream) runtime.Result {
			s.SetMetadata("m", "for the next")
			s.Connect()
			return runtime.OK
		}})
		s := newStream(t, c, tr.handlers())
		s.StartTimeout(time.Second)
		if value := <-late; value != "" {
			t.Errorf("the late attempt reads %q", value)
		}
		s.Destroy()
	})
}
