package runtime_test

import (
	"context"
	"errors"
	"fmt"
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
)

// newSinkContext returns a context with the streamtype "s", a local_sink. It is
// closed at the end of the test.
func newSinkContext(t *testing.T, st policy.StreamType) *runtime.Context {
	t.Helper()
	st.Name, st.LocalSink = "s", true
	c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{&st, {Name: "network"}}}, runtime.Options{
		Jitter: func() uint16 { return 0 },
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A journal records what both ends of a sink are told, in one list.
type journal struct {
	mu     sync.Mutex
	events []string
}

func (j *journal) note(event string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, event)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.events, " ")
}

// of returns handlers that note what they get under a name. answers are by event.
func (j *journal) of(name string, answers map[string]func(*runtime.Stream) runtime.Result) runtime.Handlers {
	answer := func(s *runtime.Stream, event string) runtime.Result {
		j.note(name + event)
		if f := answers[event]; f != nil {
			return f(s)
		}
		return runtime.OK
	}
	return runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			return answer(s, teststream.Name(state))
		},
		Rx: func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
			return answer(s, fmt.Sprintf("rx(%s,%d)", buf, flags))
		},
	}
}

// TestSink is the table of what the two ends of a sink are told: a is the
// accepted stream, s the source.
func TestSink(t *testing.T) {
	destroy := func(s *runtime.Stream) runtime.Result { s.Destroy(); return runtime.OK }
	retry := &policy.Retry{Backoff: ms(300), Conceal: 1}
	for _, tt := range []struct {
		name           string
		st             policy.StreamType
		sink           on // answers of the accepted streams
		source         on
		result         runtime.Result // of join
		later          func(source *runtime.Stream, accepted []*runtime.Stream)
		err            error
		want, endOfAll string
	}{
		{name: "joined", want: "join0 aCRE aCNG aCON sCRE sCNG sCON", endOfAll: "aDIS aDES sDIS sDES"},
		{name: "refused", result: runtime.DisconnectMe, err: runtime.ErrSinkRefused, want: "join0"},
		{name: "refused by DestroyMe", result: runtime.DestroyMe, err: runtime.ErrSinkRefused, want: "join0"},
		{name: "refused from CREATING", sink: on{"CRE": answer(runtime.DestroyMe)}, err: runtime.ErrSinkRefused, want: "join0 aCRE aDES"},
		{name: "refused from CONNECTING", sink: on{"CNG": answer(runtime.DestroyMe)}, err: runtime.ErrSinkRefused, want: "join0 aCRE aCNG aDES"},
		{name: "declined from CONNECTING", st: policy.StreamType{Retry: retry}, sink: on{"CNG": answer(runtime.DisconnectMe)}, err: runtime.ErrSinkRefused, want: "join0 aCRE aCNG aDES"},
		{name: "refused from CONNECTED", sink: on{"CON": answer(runtime.DestroyMe)}, err: runtime.ErrSinkRefused, want: "join0 aCRE aCNG aCON aDIS aDES"},
		{name: "disconnected from CONNECTED", st: policy.StreamType{Retry: retry}, sink: on{"CON": answer(runtime.DisconnectMe)}, err: runtime.ErrSinkRefused, want: "join0 aCRE aCNG aCON aDIS aDES"},
		{name: "the source ends in CREATING", source: on{"CRE": answer(runtime.DestroyMe)}, err: runtime.ErrRefused,
			want: "join0 aCRE aCNG aCON sCRE sDES aDIS aDES"},
		{name: "the source ends in CONNECTING", source: on{"CNG": answer(runtime.DestroyMe)}, err: runtime.ErrRefused,
			want: "join0 aCRE aCNG aCON sCRE sCNG sDES aDIS aDES"},
		{name: "the source declines CONNECTING", source: on{"CNG": answer(runtime.DisconnectMe)},
			want: "join0 aCRE aCNG aCON sCRE sCNG sARF aDIS aDES", endOfAll: "sDES"},
		{name: "the source ends in CONNECTED", source: on{"CON": answer(runtime.DestroyMe)}, err: runtime.ErrRefused,
			want: "join0 aCRE aCNG aCON sCRE sCNG sCON sDIS sDES aDIS aDES"},
		{name: "RequestTx and Connect in CREATING", source: on{"CRE": both(requestTx, connect)},
			want: "join0 aCRE aCNG aCON sCRE sCNG sCON", endOfAll: "aDIS aDES sDIS sDES"},
		{name: "the source is destroyed", later: func(s *runtime.Stream, _ []*runtime.Stream) { s.Destroy() },
			want: "join0 aCRE aCNG aCON sCRE sCNG sCON sDIS sDES aDIS aDES"},
		{name: "the accepted one is destroyed, opportunistic", st: policy.StreamType{Opportunistic: true, Retry: retry},
			later: func(_ *runtime.Stream, a []*runtime.Stream) { a[0].Destroy() },
			want:  "join0 aCRE aCNG aCON sCRE sCNG sCON aDIS aDES sDIS", endOfAll: "sDES"},
		{name: "the accepted one is destroyed, no retry",
			later: func(_ *runtime.Stream, a []*runtime.Stream) { a[0].Destroy() },
			want:  "join0 aCRE aCNG aCON sCRE sCNG sCON aDIS aDES sDIS sUNR sARF", endOfAll: "sDES"},
		{name: "the accepted one is destroyed, retry", st: policy.StreamType{Retry: retry},
			later:    func(_ *runtime.Stream, a []*runtime.Stream) { a[0].Destroy() },
			want:     "join0 aCRE aCNG aCON sCRE sCNG sCON aDIS aDES sDIS sPOL sCNG join0 aCRE aCNG aCON sCON",
			endOfAll: "aDIS aDES sDIS sDES"},
		{name: "the accepted one disconnects", st: policy.StreamType{Opportunistic: true}, sink: on{"TMO": answer(runtime.DisconnectMe)},
			later: func(_ *runtime.Stream, a []*runtime.Stream) { a[0].StartTimeout(time.Second) },
			want:  "join0 aCRE aCNG aCON sCRE sCNG sCON aTMO aDIS aDES sDIS", endOfAll: "sDES"},
		{name: "and RequestTx joins again", st: policy.StreamType{Opportunistic: true}, sink: on{"TMO": answer(runtime.DisconnectMe)},
			later: func(s *runtime.Stream, a []*runtime.Stream) {
				a[0].StartTimeout(time.Second)
				time.AfterFunc(time.Minute, func() { s.RequestTx() })
			},
			want:     "join0 aCRE aCNG aCON sCRE sCNG sCON aTMO aDIS aDES sDIS sPOL sCNG join0 aCRE aCNG aCON sCON",
			endOfAll: "aDIS aDES sDIS sDES"},
		{name: "the source destroys itself in DISCONNECTED", st: policy.StreamType{Retry: retry}, source: on{"DIS": destroy},
			later: func(_ *runtime.Stream, a []*runtime.Stream) { a[0].Destroy() },
			want:  "join0 aCRE aCNG aCON sCRE sCNG sCON aDIS aDES sDIS sDES"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newSinkContext(t, tt.st)
				var j journal
				var accepted []*runtime.Stream
				sink := before(tt.sink, "CRE", func(s *runtime.Stream) { accepted = append(accepted, s) })
				if _, err := c.NewSink("s", func(joined uint32) (runtime.Handlers, runtime.Result) {
					j.note(fmt.Sprintf("join%d", joined))
					return j.of("a", sink), tt.result
				}); err != nil {
					t.Fatal(err)
				}
				s, err := c.NewStream("s", j.of("s", tt.source))
				if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Errorf("NewStream says %v, want %v", err, tt.err)
				}
				if tt.later != nil {
					synctest.Wait()
					tt.later(s, accepted)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				got := j.String()
				if !sameJournal(got, tt.want) {
					t.Errorf("\n got %s\nwant %s", got, tt.want)
				}
				c.Close()
				if end := strings.TrimPrefix(j.String(), got); !sameJournal(end, tt.endOfAll) {
					t.Errorf("the end brings %s, want %s", end, tt.endOfAll)
				}
			})
		})
	}
}

// sameJournal reports whether two journals are the same up to the first end of a
// stream, and after that for each of the two: they end independently.
func sameJournal(a, b string) bool {
	of := func(journal, end string) []string {
		return slices.DeleteFunc(strings.Fields(journal), func(e string) bool { return e[:1] != end })
	}
	start := func(journal string) string {
		journal, _, _ = strings.Cut(journal, "D")
		return strings.TrimRight(journal, "as ")
	}
	return start(a) == start(b) && slices.Equal(of(a, "a"), of(b, "a")) && slices.Equal(of(a, "s"), of(b, "s"))
}

// before returns answers with something done before one of them.
func before(answers on, event string, first func(*runtime.Stream)) on {
	with := on{}
	for k, v := range answers {
		with[k] = v
	}
	was := answers[event]
	with[event] = func(s *runtime.Stream) runtime.Result {
		first(s)
		if was != nil {
			return was(s)
		}
		return runtime.OK
	}
	return with
}

// script returns a Tx that sends these pieces, one each time that it is called.
func script(pieces ...string) func(*runtime.Stream, uint32, []byte) (int, runtime.Flags, runtime.Result) {
	return func(s *runtime.Stream, ordinal uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
		if int(ordinal) >= len(pieces) {
			return 0, 0, runtime.TxDontSend
		}
		var flags runtime.Flags
		if ordinal == 0 {
			flags |= runtime.FlagSOM
		}
		if int(ordinal) == len(pieces)-1 {
			flags |= runtime.FlagEOM
		} else {
			s.RequestTx()
		}
		return copy(buf, pieces[ordinal]), flags, runtime.OK
	}
}

// TestSinkPayload checks that payload comes through in both directions with its
// flags, what is sent before an end included, and that RequestTx asks the Tx of
// the one who calls it.
func TestSinkPayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSinkContext(t, policy.StreamType{Opportunistic: true})
		var j journal
		if _, err := c.NewSink("s", func(uint32) (runtime.Handlers, runtime.Result) {
			h := j.of("a", on{"rx(three,2)": requestTx})
			h.Tx = script("yes", "")
			return h, runtime.OK
		}); err != nil {
			t.Fatal(err)
		}
		h := j.of("s", on{"CRE": requestTx, "rx(,2)": answer(runtime.DestroyMe)})
		h.Tx = script("one", "two", "three")
		if _, err := c.NewStream("s", h); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, want := j.String(), "aCRE aCNG aCON sCRE sCNG sCON arx(one,1) arx(two,0) arx(three,2) "+
			"srx(yes,1) srx(,2) sDIS sDES aDIS aDES"; !sameJournal(got, want) {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := newSinkContext(t, policy.StreamType{Opportunistic: true})
		var j journal
		if _, err := c.NewSink("s", func(uint32) (runtime.Handlers, runtime.Result) {
			return j.of("a", on{"CON": func(*runtime.Stream) runtime.Result { time.Sleep(time.Second); return runtime.OK }}), runtime.OK
		}); err != nil {
			t.Fatal(err)
		}
		h := j.of("s", on{"CRE": requestTx})
		h.Tx = func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			time.AfterFunc(time.Second, s.Destroy)
			return copy(buf, "last"), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
		}
		if _, err := c.NewStream("s", h); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := j.String(); !strings.Contains(got, "arx(last,3)") || !strings.HasSuffix(got, "aDIS aDES") {
			t.Errorf("got %s", got)
		}
	})
}

// TestSinkBackpressure checks that a slow Rx keeps the other side from being
// asked, but not from being destroyed.
func TestSinkBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSinkContext(t, policy.StreamType{Opportunistic: true})
		var mu sync.Mutex
		asked, received := 0, 0
		look := func() string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return fmt.Sprint(asked, received)
		}
		if _, err := c.NewSink("s", func(uint32) (runtime.Handlers, runtime.Result) {
			return runtime.Handlers{Rx: func(*runtime.Stream, []byte, runtime.Flags) runtime.Result {
				mu.Lock()
				received++
				mu.Unlock()
				time.Sleep(time.Second)
				return runtime.OK
			}}, runtime.OK
		}); err != nil {
			t.Fatal(err)
		}
		s, err := c.NewStream("s", runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			mu.Lock()
			asked++
			mu.Unlock()
			s.RequestTx()
			return len(buf), 0, runtime.OK
		}})
		if err != nil {
			t.Fatal(err)
		}
		s.RequestTx()
		if got := look(); got != "1 1" {
			t.Errorf("at once: %s", got)
		}
		time.Sleep(10*time.Second + 1)
		if got := look(); got != "11 11" {
			t.Errorf("after 10 s: %s", got)
		}
		s.Destroy()
		if got := look(); got != "11 11" || s.State() != runtime.StateDestroying {
			t.Errorf("after Destroy: %s, state %v", got, s.State())
		}
	})
}

// TestSinkConn uses a sink by Open and Fetch.
func TestSinkConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSinkContext(t, policy.StreamType{Opportunistic: true})
		if _, err := c.NewSink("s", func(uint32) (runtime.Handlers, runtime.Result) {
			var message []byte
			end := false
			return runtime.Handlers{
				Rx: func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
					if message = append(message, buf...); flags&runtime.FlagEOM != 0 {
						s.RequestTx()
					}
					return runtime.OK
				},
				Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
					if end {
						return 0, 0, runtime.DisconnectMe
					}
					if end = strings.HasPrefix(string(message), "bye"); end {
						s.RequestTx()
					}
					n := copy(buf, strings.ToUpper(string(message)))
					message = nil
					return n, runtime.FlagSOM | runtime.FlagEOM, runtime.OK
				},
			}, runtime.OK
		}); err != nil {
			t.Fatal(err)
		}
		conn, err := c.Open(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		send := []string{"one", "two", "bye", ""}
		write := func() {
			if n, err := io.WriteString(conn, send[0]); n != len(send[0]) || err != nil {
				t.Fatal(n, err)
			}
			send = send[1:]
		}
		write()
		for m, err := range conn.Messages() {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, string(m)); len(send) > 1 {
				write()
			}
		}
		if got := strings.Join(got, " "); got != "ONE TWO BYE" {
			t.Errorf("messages %s", got)
		}
		conn.Close()
		r, err := c.Fetch(t.Context(), "s", runtime.WithBody([]byte("bye now")))
		if err != nil || string(r.Body) != "BYE NOW" {
			t.Errorf("Fetch: %v, %v", r, err)
		}
	})
}

// TestSinkUnread writes to a Conn from which nothing is read for long.
func TestSinkUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSinkContext(t, policy.StreamType{Opportunistic: true})
		if _, err := c.NewSink("s", func(uint32) (runtime.Handlers, runtime.Result) {
			received, sent := 0, 0
			return runtime.Handlers{
				Rx: func(s *runtime.Stream, _ []byte, _ runtime.Flags) runtime.Result {
					received++
					s.RequestTx()
					return runtime.OK
				},
				Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
					if sent == received {
						return 0, 0, runtime.TxDontSend
					}
					sent++
					s.RequestTx()
					return copy(buf, fmt.Sprint(sent)), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
				},
			}, runtime.OK
		}); err != nil {
			t.Fatal(err)
		}
		conn, err := c.Open(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		const n = 100
		for range n {
			if _, err := io.WriteString(conn, "x"); err != nil {
				t.Fatal(err)
			}
		}
		got := 0
		for m, err := range conn.Messages() {
			if got++; err != nil || string(m) != fmt.Sprint(got) {
				t.Fatalf("message %d is %q, %v", got, m, err)
			}
			if got == n {
				break
			}
		}
		conn.Close()
	})
}

func TestSinkErrors(t *testing.T) {
	c := newSinkContext(t, policy.StreamType{})
	join := func(uint32) (runtime.Handlers, runtime.Result) { return runtime.Handlers{}, runtime.OK }
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	_, err := c.NewStream("s", runtime.Handlers{})
	check("no sink", err, runtime.ErrNoSink)
	_, err = c.NewSink("none", join)
	check("no streamtype", err, runtime.ErrUnknownStreamType)
	_, err = c.NewSink("network", join)
	check("no local_sink", err, runtime.ErrUnsupported)
	k, err := c.NewSink("s", join)
	check("a sink", err, nil)
	_, err = c.NewSink("s", join)
	check("another sink", err, runtime.ErrSinkExists)
	_, err = c.NewStream("s", runtime.Handlers{})
	check("a source", err, nil)
	k.Close()
	_, err = c.NewStream("s", runtime.Handlers{})
	check("a closed sink", err, runtime.ErrNoSink)
	_, err = c.NewSink("s", join)
	check("a new sink", err, nil)
	k.Close()
	_, err = c.NewStream("s", runtime.Handlers{})
	check("an old sink is closed once more", err, nil)
	c.Close()
	_, err = c.NewSink("s", join)
	check("a closed context", err, runtime.ErrClosed)
	for _, st := range []policy.StreamType{{DirectProtoStr: true}, {Rideshare: "network"}} {
		_, err = newSinkContext(t, st).NewStream("s", runtime.Handlers{})
		check("a key that means nothing", err, runtime.ErrUnsupported)
	}
}

// TestSinkCount checks how many sources join is told of, and that a limit holds.
func TestSinkCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSinkContext(t, policy.StreamType{Opportunistic: true})
		if _, err := c.NewSink("s", func(joined uint32) (runtime.Handlers, runtime.Result) {
			if joined >= 3 {
				return runtime.Handlers{}, runtime.DisconnectMe
			}
			return runtime.Handlers{}, runtime.OK
		}); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			var mu sync.Mutex
			var streams []*runtime.Stream
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if s, err := c.NewStream("s", runtime.Handlers{}); err == nil {
						mu.Lock()
						streams = append(streams, s)
						mu.Unlock()
					} else if !errors.Is(err, runtime.ErrSinkRefused) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if len(streams) != 3 {
				t.Errorf("%d sources have joined, want 3", len(streams))
			}
			for _, s := range streams {
				s.Destroy()
			}
			synctest.Wait()
		}
	})
}

// TestSinkClose closes the context from inside of each callback.
func TestSinkClose(t *testing.T) {
	for _, at := range []string{"join", "aCRE", "aCNG", "aCON", "sCRE", "sCNG", "sCON", "arx(x,3)", "aDIS", "aDES"} {
		synctest.Test(t, func(t *testing.T) {
			c := newSinkContext(t, policy.StreamType{})
			var j journal
			closing := func(*runtime.Stream) runtime.Result { c.Close(); return runtime.OK }
			if _, err := c.NewSink("s", func(uint32) (runtime.Handlers, runtime.Result) {
				if at == "join" {
					c.Close()
				}
				return j.of("a", on{at[1:]: closing}), runtime.OK
			}); err != nil {
				t.Fatal(err)
			}
			answers := on{"CRE": requestTx}
			if at[0] == 's' {
				answers[at[1:]] = both(requestTx, closing)
			}
			if at[0] == 'a' && at[1:] != "rx(x,3)" {
				answers["rx(x,3)"] = answer(runtime.DestroyMe)
			}
			h := j.of("s", answers)
			h.Tx = script("x")
			s, _ := c.NewStream("s", h)
			synctest.Wait()
			if s != nil && strings.HasSuffix(at, "S") {
				s.Destroy()
				synctest.Wait()
			}
			c.Close()
			for _, end := range []string{"a", "s"} {
				if got := j.String(); strings.Contains(got, end+"CRE") != strings.Contains(got, end+"DES") {
					t.Errorf("closed from %s: %s", at, got)
				}
			}
		})
	}
}

// TestSinkAbuse lets sources and accepted streams come, send and go at random.
func TestSinkAbuse(t *testing.T) {
	c := newSinkContext(t, policy.StreamType{Retry: &policy.Retry{Backoff: []time.Duration{time.Millisecond}, Conceal: 65535}})
	send := func(s *runtime.Stream, ordinal uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
		if ordinal%100 == 99 {
			return 0, 0, runtime.DisconnectMe
		}
		s.RequestTx()
		return min(len(buf), int(ordinal)), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
	}
	if _, err := c.NewSink("s", func(uint32) (runtime.Handlers, runtime.Result) {
		return runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateConnected {
				s.RequestTx()
			}
			return runtime.OK
		}, Tx: send}, runtime.OK
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				ctx, cancel := context.WithCancel(t.Context())
				got := make(chan struct{}, 1)
				s, err := c.NewStream("s", runtime.Handlers{Tx: send, Rx: func(*runtime.Stream, []byte, runtime.Flags) runtime.Result {
					select {
					case got <- struct{}{}:
					default:
					}
					return runtime.OK
				}})
				if err != nil {
					t.Error(err)
				} else {
					s.RequestTx()
					<-got
					s.Connect()
					s.Destroy()
				}
				if conn, err := c.Open(ctx, "s"); err != nil {
					t.Error(err)
				} else {
					go io.Copy(io.Discard, conn)
					io.WriteString(conn, "x")
				}
				cancel()
			}
		})
	}
	wg.Wait()
}
