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

// A lender is a transport that lends its reading.
type lender struct {
	in      chan string // pieces from the peer; a closed one is the end
	steps   int         // calls of step by Run itself
	lent    atomic.Bool // Run is in Lend
	recall  chan func() // gets the Recall of the link
	stopped error       // what Lend returned last
}

func (n *lender) run(ctx context.Context, l transport.Link) error {
	if err := l.Connected(); err != nil {
		return err
	}
	n.recall <- l.Recall
	step := func() error {
		select {
		case text, ok := <-n.in:
			if !ok {
				return errFake
			}
			return l.Rx([]byte(text), 0)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for {
		n.lent.Store(true)
		n.stopped = l.Lend(step)
		n.lent.Store(false)
		if n.stopped != nil {
			return n.stopped
		}
		n.steps++
		if err := step(); err != nil {
			return err
		}
	}
}

// TestLend checks who reads for a program that uses ServeRx.
func TestLend(t *testing.T) {
	// begin returns a stream with lent reading, after the piece "1".
	begin := func(t *testing.T) (n *lender, s *runtime.Stream, got *string) {
		n = &lender{in: make(chan string, 10), recall: make(chan func(), 1)}
		got = new(string)
		c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw, Opportunistic: true}, n.run)
		s = newStream(t, c, runtime.Handlers{Rx: func(_ *runtime.Stream, p []byte, _ runtime.Flags) runtime.Result {
			*got += string(p)
			return runtime.OK
		}})
		s.Connect()
		synctest.Wait()
		if n.lent.Load() || n.steps != 1 {
			t.Fatal("the transport does not read by itself before ServeRx")
		}
		if s.ServeRx() {
			t.Fatal("ServeRx has read beside the transport")
		}
		n.in <- "1"
		synctest.Wait()
		if !n.lent.Load() || *got != "1" {
			t.Fatalf("the transport does not lend after %q", *got)
		}
		return n, s, got
	}
	for name, test := range map[string]func(t *testing.T, n *lender, s *runtime.Stream, got *string){
		"in use": func(t *testing.T, n *lender, s *runtime.Stream, got *string) {
			for range 100 {
				n.in <- "2"
				if !s.ServeRx() {
					t.Fatal("ServeRx has not read")
				}
				time.Sleep(19 * time.Millisecond)
			}
			if len(*got) != 101 || n.steps != 1 {
				t.Errorf("%d pieces, of which the transport has read %d", len(*got), n.steps)
			}
		},
		"not used": func(t *testing.T, n *lender, s *runtime.Stream, got *string) {
			n.in <- "2"
			time.Sleep(41 * time.Millisecond)
			synctest.Wait()
			if *got != "12" || n.lent.Load() {
				t.Errorf("%q, lent %v", *got, n.lent.Load())
			}
		},
		"paused": func(t *testing.T, n *lender, s *runtime.Stream, got *string) {
			s.PauseRx()
			n.in <- "2"
			if s.ServeRx() {
				t.Error("ServeRx has read")
			}
			synctest.Wait()
			if *got != "1" || n.lent.Load() || s.PendingRx() != 1 {
				t.Errorf("%q, lent %v, %d pending", *got, n.lent.Load(), s.PendingRx())
			}
			s.ResumeRx()
			synctest.Wait()
			if *got != "12" || !n.lent.Load() {
				t.Errorf("%q, lent %v", *got, n.lent.Load())
			}
		},
		"a long wait": func(t *testing.T, n *lender, s *runtime.Stream, got *string) {
			done := make(chan bool)
			go func() { done <- s.ServeRx() }()
			time.Sleep(time.Hour)
			if !n.lent.Load() || s.ServeRx() {
				t.Error("another goroutine reads")
			}
			n.in <- "2"
			if !<-done || *got != "12" {
				t.Errorf("%q", *got)
			}
		},
		"the end": func(t *testing.T, n *lender, s *runtime.Stream, _ *string) {
			close(n.in)
			if !s.ServeRx() {
				t.Error("ServeRx has not read")
			}
			if s.ServeRx() {
				t.Error("ServeRx has read again after an error")
			}
			synctest.Wait()
			if n.stopped != errFake || !errors.Is(s.Err(), errFake) {
				t.Errorf("Lend returns %v, Err %v", n.stopped, s.Err())
			}
		},
		"recalled": func(t *testing.T, n *lender, _ *runtime.Stream, _ *string) {
			(<-n.recall)()
			synctest.Wait()
			if n.lent.Load() {
				t.Error("it is still lent")
			}
		},
		"destroyed": func(t *testing.T, n *lender, s *runtime.Stream, _ *string) {
			s.Destroy()
			synctest.Wait()
			if !errors.Is(n.stopped, runtime.ErrClosed) || s.ServeRx() {
				t.Errorf("Lend returns %v", n.stopped)
			}
		},
		"destroyed in a step": func(t *testing.T, n *lender, s *runtime.Stream, _ *string) {
			go s.ServeRx()
			synctest.Wait()
			s.Destroy()
			synctest.Wait()
			if n.stopped == nil {
				t.Error("Lend does not return")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, s, got := begin(t)
				test(t, n, s, got)
			})
		})
	}
}

// TestServeTx checks that a Write that cannot be sent fails.
func TestServeTx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw, Opportunistic: true}, func(ctx context.Context, l transport.Link) error {
			if err := l.Connected(); err != nil {
				return err
			}
			sent := 0
			l.ServeTx(func() {
				for l.WantsTx() {
					if _, err := l.Tx(make([]byte, 10)); err != nil {
						return
					}
					if sent++; sent == 2 {
						l.FailTx(errFake)
					}
				}
			})
			<-ctx.Done()
			return context.Cause(ctx)
		})
		conn := teststream.Must(c.Open(t.Context(), "s"))
		for i, want := range []error{nil, errFake} {
			if _, err := conn.Write([]byte("x")); !errors.Is(err, want) {
				t.Errorf("Write %d: %v", i+1, err)
			}
		}
		conn.Close()
	})
}
