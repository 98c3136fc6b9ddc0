package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// answer returns an action that only has a result.
func answer(r runtime.Result) action { return func(*runtime.Stream) runtime.Result { return r } }

// both returns an action that does a and b, with the result of b.
func both(a, b action) action {
	return func(s *runtime.Stream) runtime.Result { a(s); return b(s) }
}

// userState is an HTTP transaction whose status has a state in the policy.
func userState(_ context.Context, l transport.Link) error {
	if err := l.State(1530); err != nil {
		return err
	}
	return fetch(context.Background(), l)
}

// nack is an HTTP transaction whose status means failure.
func nack(_ context.Context, l transport.Link) error {
	if err := l.Connected(); err != nil {
		return err
	}
	return l.Done(false)
}

// sending returns an attempt that requests payload before or after CONNECTED.
func sending(connected bool) run {
	return func(ctx context.Context, l transport.Link) error {
		if connected {
			if err := l.Connected(); err != nil {
				return err
			}
		}
		if _, _, err := tx(l, make([]byte, 1)); err != nil {
			return err
		}
		if connected {
			return l.Done(true)
		}
		return fetch(ctx, l)
	}
}

// TestResults checks the effect of each result of each callback.
func TestResults(t *testing.T) {
	const disconnect, destroy, notSend, odd = runtime.DisconnectMe, runtime.DestroyMe, runtime.TxDontSend, runtime.Result(99)
	retry := &policy.Retry{Backoff: ms(200), Conceal: 1}
	for _, tt := range []struct {
		event  string
		result runtime.Result
		start  action
		run    run
		want   string
	}{
		{"CRE", disconnect, nil, fetch, "CRE DES"},
		{"CRE", notSend, nil, fetch, "CRE DES"},
		{"CRE", odd, nil, fetch, "CRE DES"},
		{"CRE", destroy, nil, fetch, "CRE DES FAILED"},
		{"POL", disconnect, requestTx, fetch, "CRE POL DES"},
		{"POL", destroy, requestTx, fetch, "CRE POL DES FAILED"},
		{"POL", odd, requestTx, fetch, "CRE POL DES"},
		{"CNG", odd, requestTx, fetch, "CRE POL CNG POL CNG ARF DES"},
		{"CNG", disconnect, requestTx, fetch, "CRE POL CNG POL CNG ARF DES"},
		{"CNG", disconnect, connect, fetch, "CRE CNG DES"},
		{"CNG", destroy, requestTx, fetch, "CRE POL CNG DES FAILED"},
		{"CNG", destroy, connect, fetch, "CRE CNG DES FAILED"},
		{"CON", disconnect, requestTx, each(fetch, unreachable), "CRE POL CNG CON DIS POL CNG UNR ARF DES"},
		{"CON", notSend, requestTx, each(fetch, unreachable), "CRE POL CNG CON DIS POL CNG UNR ARF DES"},
		{"CON", odd, requestTx, each(fetch, unreachable), "CRE POL CNG CON DIS POL CNG UNR ARF DES"},
		{"CON", destroy, requestTx, fetch, "CRE POL CNG CON DIS DES"},
		{"rx", disconnect, requestTx, each(fetch, unreachable), "CRE POL CNG CON rx DIS POL CNG UNR ARF DES"},
		{"rx", notSend, requestTx, each(fetch, unreachable), "CRE POL CNG CON rx DIS POL CNG UNR ARF DES"},
		{"rx", odd, requestTx, each(fetch, unreachable), "CRE POL CNG CON rx DIS POL CNG UNR ARF DES"},
		{"rx", destroy, requestTx, fetch, "CRE POL CNG CON rx DIS DES"},
		{"eom", disconnect, requestTx, fetch, "CRE POL CNG CON rx eom ACK DIS DES"},
		{"eom", destroy, requestTx, fetch, "CRE POL CNG CON rx eom DIS DES"},
		{"ACK", disconnect, requestTx, fetch, "CRE POL CNG CON rx eom ACK DIS DES"},
		{"ACK", destroy, requestTx, fetch, "CRE POL CNG CON rx eom ACK DIS DES"},
		{"NAK", disconnect, requestTx, nack, "CRE POL CNG CON NAK DIS DES"},
		{"NAK", destroy, requestTx, nack, "CRE POL CNG CON NAK DIS DES"},
		{"USER_1530", disconnect, requestTx, userState,
			"CRE POL CNG USER_1530 UNR POL CNG USER_1530 UNR ARF DES"},
		{"USER_1530", destroy, requestTx, userState, "CRE POL CNG USER_1530 DES"},
		{"tx", notSend, requestTx, sending(false), "CRE POL CNG tx CON rx eom ACK DIS DES"},
		{"tx", disconnect, requestTx, each(sending(false), unreachable), "CRE POL CNG tx UNR POL CNG UNR ARF DES"},
		{"tx", odd, requestTx, each(sending(false), unreachable), "CRE POL CNG tx UNR POL CNG UNR ARF DES"},
		{"tx", destroy, requestTx, sending(false), "CRE POL CNG tx DES"},
		{"tx", notSend, requestTx, sending(true), "CRE POL CNG CON tx ACK DIS DES"},
		{"tx", disconnect, requestTx, each(sending(true), unreachable), "CRE POL CNG CON tx DIS POL CNG UNR ARF DES"},
		{"tx", destroy, requestTx, sending(true), "CRE POL CNG CON tx DIS DES"},
		{"UNR", notSend, requestTx, unreachable, "CRE POL CNG UNR DES"},
		{"UNR", odd, requestTx, unreachable, "CRE POL CNG UNR DES"},
		{"UNR", disconnect, requestTx, unreachable, "CRE POL CNG UNR DES"},
		{"UNR", destroy, requestTx, unreachable, "CRE POL CNG UNR DES"},
		{"ARF", disconnect, requestTx, unreachable, "CRE POL CNG UNR POL CNG UNR ARF DES"},
		{"ARF", destroy, requestTx, unreachable, "CRE POL CNG UNR POL CNG UNR ARF DES"},
		{"DIS", disconnect, requestTx, each(lose, unreachable), "CRE POL CNG CON DIS POL CNG UNR ARF DES"},
		{"DIS", destroy, requestTx, each(lose, unreachable), "CRE POL CNG CON DIS DES"},
	} {
		t.Run(tt.event+" "+tt.result.String(), func(t *testing.T) {
			tr := newTrace(on{"CRE": tt.start})
			tr.sends = true
			tr.On[tt.event] = answer(tt.result)
			atOnce := false // not by the end of the context
			tr.On["DES"] = func(*runtime.Stream) runtime.Result {
				atOnce = time.Since(tr.start) < time.Hour
				return runtime.DisconnectMe
			}
			play(t, policy.StreamType{Protocol: policy.ProtocolH1, Retry: retry}, tt.run, tr)
			tr.Want(t, tt.want)
			if atOnce != (tt.result == destroy) {
				t.Errorf("destroyed at once: %v", atOnce)
			}
		})
	}
}

// TestRevive checks that a stream whose callback stopped the retries can be used again.
func TestRevive(t *testing.T) {
	for _, tt := range []struct {
		event  string
		revive func(*runtime.Stream) error
		want   string
	}{
		{"POL", (*runtime.Stream).RequestTx, "CRE POL | CNG CON rx eom ACK DIS DES"}, // POLL must not follow POLL
		{"POL", (*runtime.Stream).Connect, "CRE POL | CNG CON rx eom ACK DIS DES"},
		{"UNR", (*runtime.Stream).RequestTx, "CRE POL CNG UNR | POL CNG CON rx eom ACK DIS DES"},
		{"UNR", (*runtime.Stream).Connect, "CRE POL CNG UNR | CNG CON rx eom ACK DIS DES"},
	} {
		tr := newTrace(on{"CRE": requestTx, tt.event: answer(runtime.DisconnectMe)})
		run := each(unreachable, fetch)
		if tt.event == "POL" {
			run = fetch
		}
		play(t, policy.StreamType{Protocol: policy.ProtocolH1}, run, tr, func(s *runtime.Stream) { tt.revive(s) })
		tr.Want(t, tt.want)
	}
}

// TestSequences checks calls and results that change the sequence of states.
func TestSequences(t *testing.T) {
	retry := &policy.Retry{Backoff: ms(200), Conceal: 2}
	for _, tt := range []struct {
		name string
		st   policy.StreamType
		run  run
		on   on
		want string
	}{
		{"nailed up and Connect", policy.StreamType{NailedUp: true}, fetch, on{"CRE": connect},
			"CRE CNG CON rx eom ACK DIS DES"},
		{"nailed up, refused from CONNECTING", policy.StreamType{NailedUp: true}, fetch, on{"CNG": answer(runtime.DestroyMe)},
			"CRE CNG DES FAILED"},
		{"nailed up, declined from CONNECTING", policy.StreamType{NailedUp: true, Retry: retry}, fetch, on{"CNG": answer(runtime.DisconnectMe)},
			"CRE CNG POL CNG POL CNG ARF DES"},
		{"idle", policy.StreamType{}, fetch, nil, "CRE DES"},
		{"RequestTx twice", policy.StreamType{}, fetch, on{"CRE": both(requestTx, requestTx)},
			"CRE POL CNG CON rx eom ACK DIS DES"},
		{"RequestTx and Connect", policy.StreamType{}, fetch, on{"CRE": both(requestTx, connect)},
			"CRE CNG CON rx eom ACK DIS DES"},
		{"RequestTx and Connect while connecting", policy.StreamType{}, fetch,
			on{"CRE": connect, "CNG": both(requestTx, connect)}, "CRE CNG CON rx eom ACK DIS DES"},
		{"RequestTx and Connect while connected", policy.StreamType{}, fetch,
			on{"CRE": connect, "CON": both(requestTx, connect), "ACK": both(requestTx, connect)}, "CRE CNG CON rx eom ACK DIS DES"},
		{"RequestTx does not shorten a wait", policy.StreamType{Retry: retry}, unreachable,
			on{"CRE": connect, "UNR": requestTx}, "CRE CNG UNR POL CNG UNR POL CNG UNR ARF DES"},
		{"RequestTx after DISCONNECTED waits", policy.StreamType{Retry: retry}, each(lose, unreachable),
			on{"CRE": connect, "DIS": requestTx}, "CRE CNG CON DIS POL CNG UNR POL CNG UNR ARF DES"},
		{"RequestTx from DISCONNECTED of an idle stream", policy.StreamType{Opportunistic: true}, each(lose, unreachable),
			on{"CRE": connect, "DIS": requestTx}, "CRE CNG CON DIS POL CNG UNR ARF DES"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.st.Protocol = policy.ProtocolH1
			tr := newTrace(tt.on)
			play(t, tt.st, tt.run, tr)
			tr.Want(t, tt.want)
		})
	}
}

// TestConnectInWait checks that Connect replaces a wait for a retry.
func TestConnectInWait(t *testing.T) {
	for _, tt := range []struct {
		run  run
		want string
	}{
		{unreachable, "CRE POL CNG UNR 400:CNG 400:UNR 1400:POL 1400:CNG 1400:UNR 1400:ARF 3600400:DES"},
		{each(unreachable, fetch), "CRE POL CNG UNR 400:CNG 400:CON 400:rx 400:eom 400:ACK 400:DIS 3600400:DES"},
	} {
		tr := newTrace(on{"CRE": requestTx})
		tr.times = true
		synctest.Test(t, func(t *testing.T) {
			s := newStream(t, newContext(t, policy.StreamType{
				Protocol: policy.ProtocolH1, Retry: &policy.Retry{Backoff: ms(1000), Conceal: 1},
			}, tt.run), tr.handlers())
			time.Sleep(400 * time.Millisecond)
			s.RequestTx()
			s.Connect()
			time.Sleep(time.Hour)
		})
		tr.Want(t, tt.want)
	}
}

// TestRequestTxKept checks that a request to send survives a failed attempt, but not the
// connection in which it was made.
func TestRequestTxKept(t *testing.T) {
	var ready []bool
	look := func(l transport.Link) {
		select {
		case <-l.Ready():
			ready = append(ready, true)
		default:
			ready = append(ready, false)
		}
	}
	tr := newTrace(on{"CRE": requestTx})
	play(t, policy.StreamType{Protocol: policy.ProtocolRaw, Opportunistic: true, Retry: &policy.Retry{Conceal: 1}},
		each(unreachable, func(ctx context.Context, l transport.Link) error {
			look(l)
			tr.On["CON"] = requestTx
			defer delete(tr.On, "CON")
			return lose(ctx, l)
		}, func(ctx context.Context, l transport.Link) error {
			look(l)
			return lose(ctx, l)
		}), tr, func(s *runtime.Stream) { s.Connect() })
	if len(ready) != 2 || !ready[0] || ready[1] {
		t.Errorf("Ready signalled: %v, want true, then false", ready)
	}
}

func TestTimeout(t *testing.T) {
	startTimeout := func(d time.Duration) action {
		return func(s *runtime.Stream) runtime.Result { s.StartTimeout(d); return runtime.OK }
	}
	retry := &policy.Retry{Backoff: ms(200), Conceal: 1}
	for _, tt := range []struct {
		name string
		st   policy.StreamType
		run  run
		on   on
		want string
	}{
		{"while idle", policy.StreamType{}, fetch, on{"CRE": startTimeout(time.Second)}, "CRE 1000:TMO"},
		{"of the policy", policy.StreamType{Timeout: 5 * time.Second}, fetch, on{"CRE": startTimeout(0)}, "CRE 5000:TMO"},
		{"none", policy.StreamType{}, fetch, on{"CRE": startTimeout(0)}, "CRE"},
		{"replaced", policy.StreamType{}, fetch, on{"CRE": both(startTimeout(time.Second), startTimeout(2*time.Second))}, "CRE 2000:TMO"},
		{"cancelled", policy.StreamType{}, fetch, on{"CRE": both(startTimeout(time.Second), func(s *runtime.Stream) runtime.Result {
			s.CancelTimeout()
			return runtime.OK
		})}, "CRE"},
		{"OK keeps the connection", policy.StreamType{}, stay, on{"CRE": connect, "CON": startTimeout(time.Second)},
			"CRE CNG CON 1000:TMO"},
		{"DisconnectMe", policy.StreamType{Opportunistic: true}, stay,
			on{"CRE": connect, "CON": startTimeout(time.Second), "TMO": answer(runtime.DisconnectMe)},
			"CRE CNG CON 1000:TMO 1000:DIS"},
		{"DisconnectMe while connecting", policy.StreamType{Retry: retry}, each(hang, fetch),
			on{"CRE": both(connect, startTimeout(time.Second)), "TMO": answer(runtime.DisconnectMe)},
			"CRE CNG 1000:TMO 1000:UNR 1200:POL 1200:CNG 1200:CON 1200:rx 1200:eom 1200:ACK 1200:DIS"},
		{"DestroyMe", policy.StreamType{}, stay,
			on{"CRE": connect, "CON": startTimeout(time.Second), "TMO": answer(runtime.DestroyMe)},
			"CRE CNG CON 1000:TMO 1000:DIS 1000:DES"},
		{"DestroyMe while connecting", policy.StreamType{}, hang,
			on{"CRE": both(connect, startTimeout(time.Second)), "TMO": answer(runtime.DestroyMe)},
			"CRE CNG 1000:TMO 1000:DES"},
		{"a transaction ends it", policy.StreamType{}, fetch, on{"CRE": connect, "CON": startTimeout(time.Second)},
			"CRE CNG CON rx eom ACK DIS"},
		{"a failed attempt does not end it", policy.StreamType{Retry: retry}, unreachable,
			on{"CRE": both(connect, startTimeout(time.Second))},
			"CRE CNG UNR 200:POL 200:CNG 200:UNR 200:ARF 1000:TMO"},
		{"a lost HTTP connection that is retried does not end it", policy.StreamType{Retry: retry}, each(lose, unreachable),
			on{"CRE": both(connect, startTimeout(time.Second))},
			"CRE CNG CON DIS 200:POL 200:CNG 200:UNR 200:ARF 1000:TMO"},
		{"a lost connection of another protocol ends it", policy.StreamType{Protocol: policy.ProtocolRaw, Retry: retry}, each(lose, unreachable),
			on{"CRE": both(connect, startTimeout(time.Second))},
			"CRE CNG CON DIS 200:POL 200:CNG 200:UNR 200:ARF"},
		{"restarted in TIMEOUT", policy.StreamType{}, fetch, func() on {
			n := 0
			return on{"CRE": startTimeout(time.Second), "TMO": func(s *runtime.Stream) runtime.Result {
				if n++; n < 3 {
					s.StartTimeout(time.Second)
				}
				return runtime.OK
			}}
		}(), "CRE 1000:TMO 2000:TMO 3000:TMO"},
		{"RequestTx in TIMEOUT", policy.StreamType{}, fetch, on{"CRE": startTimeout(time.Second), "TMO": requestTx},
			"CRE 1000:TMO 1000:POL 1000:CNG 1000:CON 1000:rx 1000:eom 1000:ACK 1000:DIS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.st.Protocol == 0 {
				tt.st.Protocol = policy.ProtocolH1
			}
			tr := newTrace(tt.on)
			tr.times = true
			got := play(t, tt.st, tt.run, tr)
			if got != tt.want && got != tt.want+" 86400000:DES" && got != tt.want+" 86400000:DIS 86400000:DES" {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestTx checks the calls of Tx, and which of its results reach the transport.
func TestTx(t *testing.T) {
	type call struct {
		n     int
		flags runtime.Flags
		r     runtime.Result
	}
	calls := []call{{5, runtime.FlagSOM, runtime.OK}, {3, 0, runtime.TxDontSend}, {2, runtime.FlagEOM, runtime.OK}, {99, 0, runtime.OK}}
	var ordinals []uint32
	synctest.Test(t, func(t *testing.T) {
		var got []call
		var last error
		var log bytes.Buffer
		c := newContextWith(t, runtime.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, policy.StreamType{Protocol: policy.ProtocolRaw, Opportunistic: true}, func(ctx context.Context, l transport.Link) error {
			ready := l.Ready()
			if err := l.Connected(); err != nil {
				return err
			}
			buf := make([]byte, 10)
			for {
				select {
				case <-ready:
				case <-ctx.Done():
					return ctx.Err()
				}
				n, flags, err := tx(l, buf)
				if err != nil {
					last = err
					return err
				}
				got = append(got, call{n, flags, 0})
			}
		})
		twice := func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateConnected { // one call, with the request that caused it
				s.RequestTx()
				s.RequestTx()
			}
			return runtime.OK
		}
		s := newStream(t, c, runtime.Handlers{State: twice, Tx: func(_ *runtime.Stream, ordinal uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			ordinals = append(ordinals, ordinal)
			a := calls[0]
			calls = calls[1:]
			return a.n, a.flags, a.r
		}})
		for range 4 {
			s.RequestTx()
			synctest.Wait()
		}
		if want := []call{{5, runtime.FlagSOM, 0}, {0, 0, 0}, {2, runtime.FlagEOM, 0}}; !slices.Equal(got, want) {
			t.Errorf("the transport got %v, want %v", got, want)
		}
		if len(ordinals) != 4 || ordinals[3] != 3 {
			t.Errorf("ordinals %v, want 0 to 3", ordinals)
		}
		if !errors.Is(last, runtime.ErrDisconnected) || !errors.Is(s.Err(), runtime.ErrDisconnected) {
			t.Errorf("a length above that of the buffer gave %v and %v", last, s.Err())
		}
		if !strings.Contains(log.String(), "length that does not fit") {
			t.Errorf("logged %q", &log)
		}
	})
}

// TestConnectTimeout checks that the time limit of an attempt restarts with each piece that
// the program sends, and stops while it has none.
func TestConnectTimeout(t *testing.T) {
	tr := newTrace(on{"CRE": connect})
	tr.times = true
	pieces := 0
	synctest.Test(t, func(t *testing.T) {
		c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, func(ctx context.Context, l transport.Link) error {
			ready := l.Ready()
			for {
				n, flags, err := tx(l, make([]byte, 1))
				if err != nil {
					return err
				}
				if flags&runtime.FlagEOM != 0 {
					return hang(ctx, l)
				}
				if n == 0 {
					<-ready
				} else {
					time.Sleep(10 * time.Second)
				}
			}
		})
		h := tr.handlers()
		h.Tx = func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			switch pieces++; pieces {
			case 3:
				time.AfterFunc(time.Minute, func() { s.RequestTx() })
				return 0, 0, runtime.TxDontSend
			case 5:
				return 1, runtime.FlagEOM, runtime.OK
			}
			return 1, 0, runtime.OK
		}
		s := newStream(t, c, h)
		time.Sleep(time.Hour)
		if !errors.Is(s.Err(), runtime.ErrTimeout) {
			t.Errorf("Err is %v", s.Err())
		}
	})
	// Two pieces of 10 s, a minute without any, one of 10 s, the last one, then 15 s.
	tr.Want(t, "CRE CNG 105000:UNR 105000:ARF 3600000:DES")
}

func TestDestroy(t *testing.T) {
	destroy := func(s *runtime.Stream) runtime.Result {
		s.Destroy()
		s.Destroy()
		if err := s.RequestTx(); !errors.Is(err, runtime.ErrClosed) {
			return runtime.Result(99)
		}
		return runtime.OK
	}
	for _, tt := range []struct{ event, want string }{
		{"CRE", "CRE DES FAILED"},
		{"POL", "CRE POL DES FAILED"},
		{"CNG", "CRE POL CNG DES FAILED"},
		{"CON", "CRE POL CNG CON DIS DES"},
		{"rx", "CRE POL CNG CON rx DIS DES"},
		{"eom", "CRE POL CNG CON rx eom DIS DES"},
		{"ACK", "CRE POL CNG CON rx eom ACK DIS DES"},
		{"DIS", "CRE POL CNG CON rx eom ACK DIS DES"},
		{"DES", "CRE POL CNG CON rx eom ACK DIS DES"},
	} {
		tr := newTrace(on{"CRE": requestTx})
		tr.On[tt.event] = both(requestTx, destroy)
		play(t, policy.StreamType{Protocol: policy.ProtocolH1}, fetch, tr)
		tr.Want(t, tt.want)
	}
	for _, tt := range []struct {
		name string
		run  run
		want string
	}{
		{"idle", hang, "CRE DES"},
		{"connecting", hang, "CRE CNG DES"},
		{"connected", stay, "CRE CNG CON DIS DES"},
		{"waiting", unreachable, "CRE CNG UNR DES"},
	} {
		synctest.Test(t, func(t *testing.T) {
			tr := newTrace(on{"CRE": connect})
			if tt.name == "idle" {
				tr.On = nil
			}
			s := newStream(t, newContext(t, policy.StreamType{
				Protocol: policy.ProtocolH1, Retry: &policy.Retry{Backoff: ms(1000), Conceal: 1},
			}, tt.run), tr.handlers())
			synctest.Wait()
			s.Destroy()
			synctest.Wait()
			tr.Want(t, tt.want)
			for _, err := range []error{s.RequestTx(), s.RequestTxLen(1), s.Connect()} {
				if !errors.Is(err, runtime.ErrClosed) {
					t.Errorf("%s: a destroyed stream returns %v", tt.name, err)
				}
			}
		})
	}
}

func TestClose(t *testing.T) {
	for _, event := range []string{"CRE", "POL", "CNG", "CON", "rx", "DIS", "DES"} {
		t.Run("in "+event, func(t *testing.T) {
			var c *runtime.Context
			tr := newTrace(on{"CRE": requestTx})
			tr.On[event] = both(requestTx, func(*runtime.Stream) runtime.Result { c.Close(); return runtime.OK })
			synctest.Test(t, func(t *testing.T) {
				c = newContext(t, policy.StreamType{Protocol: policy.ProtocolH1}, fetch)
				s, err := c.NewStream("s", tr.handlers())
				if err == nil && event == "DES" {
					s.Destroy()
				}
				synctest.Wait()
				if tr.Last() != "DES" {
					t.Errorf("the stream is not destroyed: %s", tr)
				}
				if _, err := c.NewStream("s", runtime.Handlers{}); !errors.Is(err, runtime.ErrClosed) {
					t.Errorf("NewStream of a closed context returns %v", err)
				}
			})
		})
	}
	t.Run("does not wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newContext(t, policy.StreamType{Protocol: policy.ProtocolH1, NailedUp: true}, stay)
			release := make(chan struct{})
			defer close(release)
			newStream(t, c, runtime.Handlers{State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
				if state == runtime.StateDestroying {
					<-release
				}
				return runtime.OK
			}})
			start := time.Now()
			c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := c.Shutdown(ctx); err != context.DeadlineExceeded || time.Since(start) != time.Minute {
				t.Errorf("Shutdown returned %v after %v", err, time.Since(start))
			}
		})
	})
	t.Run("Shutdown waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newContext(t, policy.StreamType{Protocol: policy.ProtocolH1, NailedUp: true}, stay)
			var mu sync.Mutex
			gone := 0
			for range 100 {
				newStream(t, c, runtime.Handlers{State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
					if state == runtime.StateDestroying {
						time.Sleep(time.Second)
						mu.Lock()
						gone++
						mu.Unlock()
					}
					return runtime.OK
				}})
			}
			synctest.Wait()
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					teststream.Shutdown(t, c)
					mu.Lock()
					defer mu.Unlock()
					if gone != 100 {
						t.Errorf("Shutdown returned when %d of 100 streams had ended", gone)
					}
				})
			}
			wg.Wait()
		})
	})
}

// TestTurn checks that callbacks with different causes wait for each other, and their order
// when the connection ends meanwhile.
func TestTurn(t *testing.T) {
	slow := func(*runtime.Stream) runtime.Result { time.Sleep(time.Second); return runtime.OK }
	send := func(l transport.Link) {
		l.Ready()
		go l.Tx(make([]byte, 1))
	}
	for _, tt := range []struct {
		name string
		run  run
		step func(s *runtime.Stream)
		want string
	}{
		{"tx, rx and the timer", func(ctx context.Context, l transport.Link) error {
			send(l)
			time.Sleep(10 * time.Millisecond)
			if err := l.Connected(); err != nil {
				return err
			}
			l.Rx([]byte("x"), 0)
			return hang(ctx, l)
		}, func(s *runtime.Stream) { s.StartTimeout(500 * time.Millisecond) },
			"CRE CNG tx 1000:TMO 2000:CON 3000:rx"},
		{"the end waits for tx", func(ctx context.Context, l transport.Link) error {
			send(l)
			time.Sleep(10 * time.Millisecond)
			return errFake
		}, nil, "CRE CNG tx 1000:UNR 2000:ARF"},
		{"destroyed in tx", func(ctx context.Context, l transport.Link) error {
			l.Connected()
			send(l)
			return hang(ctx, l)
		}, func(s *runtime.Stream) { time.Sleep(1500 * time.Millisecond); s.Destroy() },
			"CRE CNG CON 1000:tx 2000:DIS 3000:DES"},
		{"destroyed in tx after the end", func(ctx context.Context, l transport.Link) error {
			l.Connected()
			send(l)
			time.Sleep(10 * time.Millisecond)
			return errFake
		}, func(s *runtime.Stream) { time.Sleep(1500 * time.Millisecond); s.Destroy() },
			"CRE CNG CON 1000:tx 2000:DIS 3000:DES"},
		{"tx after the end", func(ctx context.Context, l transport.Link) error {
			l.Ready()
			time.AfterFunc(10*time.Millisecond, func() {
				if _, _, err := tx(l, make([]byte, 1)); err == nil {
					t.Error("Tx succeeds after Run has returned")
				}
			})
			return errFake
		}, nil, "CRE CNG UNR 1000:ARF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTrace(on{"CRE": connect, "CON": slow, "rx": slow, "tx": slow, "UNR": slow, "TMO": slow, "DIS": slow})
			tr.times = true
			synctest.Test(t, func(t *testing.T) {
				c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw, Opportunistic: true}, tt.run)
				h := tr.handlers()
				h.Tx = func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
					return 1, 0, tr.Note(s, "tx")
				}
				s := newStream(t, c, h)
				if tt.step != nil {
					tt.step(s)
				}
				time.Sleep(time.Hour)
				tr.Want(t, tt.want)
			})
		})
	}
}

// TestPanicRecovered checks that a stream whose callback panics has ended if the transport
// recovers the panic.
func TestPanicRecovered(t *testing.T) {
	for _, at := range []string{"CON", "rx", "tx", "ACK", "call", "end", "closed", "failed"} {
		synctest.Test(t, func(t *testing.T) {
			var l transport.Link
			c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, func(ctx context.Context, link transport.Link) error {
				l = link
				recovered := func(f func()) {
					defer func() { recover() }()
					f()
				}
				recovered(func() { l.Connected() })
				recovered(func() { l.Rx([]byte("x"), 0) })
				recovered(func() { tx(l, make([]byte, 1)) })
				recovered(func() { l.Ack(true) })
				if at == "call" {
					recovered(func() { l.Call(func() policy.Result { panic("test") }) })
				}
				recovered(func() { l.RxEnd() })
				recovered(func() { l.RxClosed() })
				recovered(func() { l.FailTx(io.EOF) })
				return hang(ctx, l)
			})
			note := func(name string) {
				if name == at {
					panic("test")
				}
			}
			s := newStream(t, c, runtime.Handlers{
				State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
					switch state {
					case runtime.StateConnected:
						note("CON")
					case runtime.StateQoSAckRemote:
						note("ACK")
					}
					return runtime.OK
				},
				Rx: func(_ *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
					if buf == nil {
						note("end")
					} else {
						note("rx")
					}
					return runtime.OK
				},
				RxClosed: func(*runtime.Stream) { note("closed") },
				Tx: func(*runtime.Stream, uint32, []byte) (int, runtime.Flags, runtime.Result) {
					note("tx")
					return 0, 0, runtime.TxDontSend
				},
				TxFailed: func(*runtime.Stream, error) { note("failed") },
			})
			s.RequestTx()
			synctest.Wait()
			if err := s.Connect(); !errors.Is(err, runtime.ErrClosed) {
				t.Errorf("%s: Connect returns %v", at, err)
			}
			if err := l.Rx([]byte("x"), 0); err == nil {
				t.Errorf("%s: an event of a stream that has ended succeeds", at)
			}
			teststream.Shutdown(t, c)
		})
	}
}

// TestPanicInNewStream checks that a callback which panics inside NewStream leaves no
// stream that Shutdown would wait for.
func TestPanicInNewStream(t *testing.T) {
	for _, at := range []runtime.State{runtime.StateCreating, runtime.StatePoll, runtime.StateConnecting, runtime.StateDestroying} {
		synctest.Test(t, func(t *testing.T) {
			c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, fetch)
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%v was not delivered", at)
					}
				}()
				c.NewStream("s", runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
					switch {
					case state == at:
						panic("test")
					case state != runtime.StateCreating:
					case at == runtime.StateDestroying:
						return runtime.DestroyMe
					default:
						s.StartTimeout(time.Hour)
						s.RequestTx()
					}
					return runtime.OK
				}})
			}()
		})
	}
}

// TestLocks checks that a program may hold a lock that its callbacks take while it calls
// a stream.
func TestLocks(t *testing.T) {
	var mu sync.Mutex
	done := make(chan struct{})
	s := newStream(t, newContext(t, policy.StreamType{Protocol: policy.ProtocolH1}, fetch), runtime.Handlers{State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		mu.Lock()
		defer mu.Unlock()
		if state == runtime.StateDestroying {
			close(done)
		}
		return runtime.OK
	}})
	mu.Lock()
	s.RequestTx()
	s.Connect()
	s.StartTimeout(time.Nanosecond)
	s.Destroy()
	mu.Unlock()
	<-done
}

func TestSetHandlers(t *testing.T) {
	first, second := newTrace(on{"CRE": connect}), new(trace)
	h := second.handlers()
	h.Rx = nil
	first.On["CON"] = func(s *runtime.Stream) runtime.Result { s.SetHandlers(h); return runtime.OK }
	play(t, policy.StreamType{Protocol: policy.ProtocolH1}, fetch, first)
	first.Want(t, "CRE CNG CON rx eom")
	second.Want(t, "ACK DIS DES")
}

// TestAbuse uses streams on many goroutines at once, for the race detector, and checks that
// callbacks do not overlap.
func TestAbuse(t *testing.T) {
	c := newContext(t, policy.StreamType{
		Protocol: policy.ProtocolH1, Metadata: []policy.Metadata{{Name: "m"}},
		Retry: &policy.Retry{Backoff: []time.Duration{time.Millisecond}, Conceal: 65535},
	}, each(unreachable, lose, fetch, lose, fetch, unreachable, func(ctx context.Context, l transport.Link) error {
		// Send from a goroutine that may outlive the attempt.
		l.Ready()
		go func() {
			for range 10 {
				if _, _, err := tx(l, make([]byte, 10)); err != nil {
					return
				}
			}
		}()
		return fetch(ctx, l)
	}))
	var streams []*runtime.Stream
	var traces []*trace
	for range 4 {
		tr := new(trace)
		h := tr.handlers()
		h.Tx = func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			return 1, 0, tr.Note(s, "tx")
		}
		streams, traces = append(streams, newStream(t, c, h)), append(traces, tr)
	}
	var wg sync.WaitGroup
	for _, s := range streams {
		for _, f := range []func(){
			func() { s.RequestTx() },
			func() { s.Connect() },
			func() { s.StartTimeout(time.Microsecond) },
			func() { s.CancelTimeout() },
			func() { s.SetMetadata("m", "x"); s.Metadata("m") },
			func() { s.State(); s.Err(); s.SetHandlers(runtime.Handlers{}) },
		} {
			wg.Go(func() {
				for range 300 {
					f()
				}
			})
		}
	}
	wg.Wait()
	for _, s := range streams[:2] {
		go s.Destroy()
	}
	teststream.Shutdown(t, c)
	for _, tr := range traces {
		if tr.Last() != "DES" {
			t.Errorf("the last event is %s", tr.Last())
		}
		if tr.Count("CONCURRENT") > 0 {
			t.Error("callbacks of a stream overlapped")
		}
	}
}
