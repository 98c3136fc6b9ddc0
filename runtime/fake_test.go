package runtime_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A fake is a transport whose attempts are defined by a test.
type fake struct{ run run }

func (f *fake) Protocols() []policy.Protocol {
	return []policy.Protocol{policy.ProtocolRaw, policy.ProtocolH1, policy.ProtocolMQTT, policy.ProtocolWS}
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

// tx requests payload from a link, and returns the length and flags of the piece.
func tx(l transport.Link, buf []byte) (int, runtime.Flags, error) {
	p, err := l.Tx(buf)
	return p.N, p.Flags, err
}

var errFake = errors.New("fake failure")

// A run is an attempt of a fake.
type run = func(context.Context, transport.Link) error

// unreachable fails at once.
func unreachable(context.Context, transport.Link) error { return errFake }

// hang waits until the attempt is cancelled.
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

// stay connects, and stays connected.
func stay(ctx context.Context, l transport.Link) error {
	if err := l.Connected(); err != nil {
		return err
	}
	return hang(ctx, l)
}

// loseAfter connects, and loses the connection after d.
func loseAfter(d time.Duration) run {
	return func(_ context.Context, l transport.Link) error {
		if err := l.Connected(); err != nil {
			return err
		}
		time.Sleep(d)
		return errFake
	}
}

// lose connects and loses the connection.
func lose(_ context.Context, l transport.Link) error {
	if err := l.Connected(); err != nil {
		return err
	}
	return errFake
}

// each returns a run that uses the next of runs for each attempt, and repeats the last.
func each(runs ...run) run {
	var attempts atomic.Int64
	return func(ctx context.Context, l transport.Link) error {
		return runs[min(int(attempts.Add(1)), len(runs))-1](ctx, l)
	}
}

type (
	on     = teststream.Actions
	action = func(*runtime.Stream) runtime.Result
)

var (
	connect   = teststream.Connect
	requestTx = teststream.RequestTx
)

// A trace records the calls of a stream's handlers.
type trace struct {
	teststream.Trace
	start time.Time
	times bool // prefix each event with the time in milliseconds, except 0
	sends bool // have a Tx, which sends messages of two pieces
}

func newTrace(actions on) *trace { return &trace{Trace: teststream.Trace{On: actions}} }

func (tr *trace) handlers() runtime.Handlers {
	tr.start = time.Now()
	if tr.times {
		tr.Prefix = teststream.Elapsed(time.Millisecond)
	}
	h := runtime.Handlers{
		State: tr.State,
		Rx: func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
			if len(buf) == 0 && flags == runtime.FlagEOM {
				return tr.Note(s, "eom")
			}
			return tr.Note(s, "rx")
		},
	}
	if tr.sends {
		next := runtime.FlagSOM
		h.Tx = func(s *runtime.Stream, _ uint32, _ []byte) (int, runtime.Flags, runtime.Result) {
			r := tr.Note(s, "tx")
			flags := next
			if flags == runtime.FlagSOM {
				next = runtime.FlagEOM
				s.RequestTx()
			} else {
				next = runtime.FlagSOM
			}
			return 1, flags, r
		}
	}
	return h
}

// newContext returns a context whose only streamtype, "s", is executed by run. Any log
// message fails the test.
func newContext(t *testing.T, st policy.StreamType, run run) *runtime.Context {
	t.Helper()
	return newContextWith(t, runtime.Options{}, st, run)
}

// newContextWith is newContext with options.
func newContextWith(t *testing.T, o runtime.Options, st policy.StreamType, run run) *runtime.Context {
	t.Helper()
	st.Name = "s"
	if st.Endpoint == "" {
		st.Endpoint, st.Port = "example.com", 1
	}
	if st.HTTP == nil && st.Protocol == policy.ProtocolH1 {
		st.HTTP = &policy.HTTP{}
	}
	o.Transports = []transport.Transport{&fake{run}}
	return teststream.NewContext(t, o, &st)
}

// newStream returns a stream of "s", and ends the test if there is none.
func newStream(t *testing.T, c *runtime.Context, h runtime.Handlers, o ...runtime.StreamOption) *runtime.Stream {
	t.Helper()
	s, err := c.NewStream("s", h, o...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// play runs a stream in a bubble for a day, and for another day after each step. It returns
// the events of the trace, with "|" before each step.
func play(t *testing.T, st policy.StreamType, run run, tr *trace, steps ...func(s *runtime.Stream)) string {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := newContext(t, st, run).NewStream("s", tr.handlers())
		if err != nil {
			tr.Note(s, "FAILED")
			return
		}
		time.Sleep(24 * time.Hour)
		for _, step := range steps {
			tr.Note(s, "|")
			step(s)
			time.Sleep(24 * time.Hour)
		}
	})
	return tr.String()
}

func ms(n ...int) (d []time.Duration) {
	for _, n := range n {
		d = append(d, time.Duration(n)*time.Millisecond)
	}
	return d
}
