package runtime_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A fake is a transport whose attempts do what a test says.
type fake struct {
	run func(ctx context.Context, l transport.Link) error
}

func (f *fake) Protocols() []policy.Protocol {
	return []policy.Protocol{policy.ProtocolRaw, policy.ProtocolH1, policy.ProtocolMQTT}
}
func (f *fake) Prepare(s *transport.Setup) (transport.Connector, error) {
	return &fakeConnector{f, s}, nil
}

// A fakeConnector is a fake for one streamtype.
type fakeConnector struct {
	*fake
	setup *transport.Setup
}

func (c *fakeConnector) Run(ctx context.Context, l transport.Link) error {
	return c.run(ctx, fakeLink{l, c.setup})
}
func (c *fakeConnector) Close() error { return nil }

// A fakeLink is a link that knows its setup.
type fakeLink struct {
	transport.Link
	setup *transport.Setup
}

// setupOf returns the setup of a link of a fake.
func setupOf(l transport.Link) *transport.Setup { return l.(fakeLink).setup }

// tx asks a link for payload, and returns the parts of the piece.
func tx(l transport.Link, buf []byte) (int, runtime.Flags, error) {
	p, err := l.Tx(buf)
	return p.N, p.Flags, err
}

var errFake = fmt.Errorf("fake failure")

// unreachable fails at once.
func unreachable(context.Context, transport.Link) error { return errFake }

// hang never gets an answer.
func hang(ctx context.Context, _ transport.Link) error { <-ctx.Done(); return ctx.Err() }

// fetch is an HTTP transaction.
func fetch(_ context.Context, l transport.Link) error {
	if err := l.Connected(); err != nil {
		return err
	}
	if err := l.Rx([]byte("body"), runtime.FlagSOM); err != nil {
		return err
	}
	if err := l.RxEnd(); err != nil {
		return err
	}
	return l.Done(true)
}

// stay connects and stays so.
func stay(ctx context.Context, l transport.Link) error {
	if err := l.Connected(); err != nil {
		return err
	}
	return hang(ctx, l)
}

// lose connects and loses the connection.
func lose(_ context.Context, l transport.Link) error {
	if err := l.Connected(); err != nil {
		return err
	}
	return errFake
}

// each runs one after the other, and the last one again and again.
func each(runs ...func(context.Context, transport.Link) error) func(context.Context, transport.Link) error {
	var mu sync.Mutex
	i := 0
	return func(ctx context.Context, l transport.Link) error {
		mu.Lock()
		run := runs[min(i, len(runs)-1)]
		i++
		mu.Unlock()
		return run(ctx, l)
	}
}

// A trace records what a stream tells its handlers.
type trace struct {
	teststream.Trace
	start time.Time
	times bool // put the time before each event, but those at the start
	sends bool // has a Tx: messages of two pieces
	on    map[string]func(s *runtime.Stream) runtime.Result
}

func (tr *trace) handlers() runtime.Handlers {
	tr.start = time.Now()
	tr.On = tr.on
	if tr.times {
		tr.Prefix = func() string {
			if d := time.Since(tr.start); d != 0 {
				return fmt.Sprintf("%d:", d.Milliseconds())
			}
			return ""
		}
	}
	var tx func(*runtime.Stream, uint32, []byte) (int, runtime.Flags, runtime.Result)
	if tr.sends {
		flags := runtime.FlagSOM
		tx = func(s *runtime.Stream, _ uint32, _ []byte) (int, runtime.Flags, runtime.Result) {
			r := tr.Note(s, "tx")
			f := flags
			if flags = runtime.FlagSOM; f == flags {
				flags = runtime.FlagEOM
				s.RequestTx()
			}
			return 1, f, r
		}
	}
	return runtime.Handlers{
		Tx:    tx,
		State: tr.State,
		Rx: func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
			if len(buf) == 0 && flags == runtime.FlagEOM {
				return tr.Note(s, "eom")
			}
			return tr.Note(s, "rx")
		},
	}
}

// newContext returns a context with one streamtype, "s", that is closed at the
// end of the test. Jitter is 0.
func newContext(t *testing.T, st policy.StreamType, run func(context.Context, transport.Link) error) *runtime.Context {
	t.Helper()
	st.Name = "s"
	if st.Endpoint == "" {
		st.Endpoint, st.Port = "example.com", 1
	}
	if st.HTTP == nil && st.Protocol == policy.ProtocolH1 {
		st.HTTP = &policy.HTTP{}
	}
	return teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{&fake{run}}, Logger: slog.New(slog.DiscardHandler)}, &st)
}

func requestTx(s *runtime.Stream) runtime.Result { s.RequestTx(); return runtime.OK }
func connect(s *runtime.Stream) runtime.Result   { s.Connect(); return runtime.OK }

// play makes a stream in a bubble, gives it a day of its own, and returns what
// it was told.
func play(t *testing.T, st policy.StreamType, run func(context.Context, transport.Link) error, tr *trace, steps ...func(s *runtime.Stream)) string {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newContext(t, st, run)
		s, err := c.NewStream("s", tr.handlers())
		if err == nil {
			time.Sleep(24 * time.Hour)
			for _, step := range steps {
				tr.Note(s, "|")
				step(s)
				time.Sleep(24 * time.Hour)
			}
		} else {
			tr.Note(s, "FAILED")
		}
		synctest.Wait()
		c.Shutdown(context.Background())
	})
	return tr.String()
}

func ms(n ...int) (d []time.Duration) {
	for _, n := range n {
		d = append(d, time.Duration(n)*time.Millisecond)
	}
	return d
}
