package sink_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/sink"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// newContext returns a context with the streamtype "s", a local_sink, and its
// transport.
func newContext(t *testing.T, st policy.StreamType) (*runtime.Context, *sink.Transport) {
	t.Helper()
	st.Name, st.LocalSink = "s", true
	tr := sink.New()
	return teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{tr}}, &st, &policy.StreamType{Name: "network"}), tr
}

// A journal records the events of both ends of a sink in one list.
type journal struct {
	mu     sync.Mutex
	events []string
}

func (j *journal) add(event string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, event)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.events, " ")
}

// of returns handlers that record events with the prefix name and run their actions.
func (j *journal) of(name string, actions teststream.Actions) runtime.Handlers {
	answer := func(s *runtime.Stream, event string) runtime.Result {
		j.add(name + event)
		if f := actions[event]; f != nil {
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

// TestSink checks the events of both ends of a sink: those of the accepted stream begin
// with a, those of the source with s.
func TestSink(t *testing.T) {
	destroy := func(s *runtime.Stream) runtime.Result { s.Destroy(); return runtime.OK }
	retry := &policy.Retry{Backoff: []time.Duration{300 * time.Millisecond}, Conceal: 1}
	for _, tt := range []struct {
		name        string
		st          policy.StreamType
		sink        teststream.Actions // of the accepted streams
		source      teststream.Actions
		result      runtime.Result // of join
		later       func(source *runtime.Stream, accepted []*runtime.Stream)
		err         error
		want, atEnd string
	}{
		{name: "joined", want: "join0 aCRE aCNG aCON sCRE sCNG sCON", atEnd: "aDIS aDES sDIS sDES"},
		{name: "refused", result: runtime.DisconnectMe, err: sink.ErrRefused, want: "join0"},
		{name: "refused by DestroyMe", result: runtime.DestroyMe, err: sink.ErrRefused, want: "join0"},
		{name: "refused from CREATING", sink: teststream.Actions{"CRE": teststream.Destroy}, err: sink.ErrRefused, want: "join0 aCRE aDES"},
		{name: "refused from CONNECTING", sink: teststream.Actions{"CNG": teststream.Destroy}, err: sink.ErrRefused, want: "join0 aCRE aCNG aDES"},
		{name: "declined from CONNECTING", st: policy.StreamType{Retry: retry}, sink: teststream.Actions{"CNG": teststream.Disconnect}, err: sink.ErrRefused, want: "join0 aCRE aCNG aDES"},
		{name: "refused from CONNECTED", sink: teststream.Actions{"CON": teststream.Destroy}, err: sink.ErrRefused, want: "join0 aCRE aCNG aCON aDIS aDES"},
		{name: "disconnected from CONNECTED", st: policy.StreamType{Retry: retry}, sink: teststream.Actions{"CON": teststream.Disconnect}, err: sink.ErrRefused, want: "join0 aCRE aCNG aCON aDIS aDES"},
		{name: "the source ends in CREATING", source: teststream.Actions{"CRE": teststream.Destroy}, err: runtime.ErrRefused,
			want: "join0 aCRE aCNG aCON sCRE sDES aDIS aDES"},
		{name: "the source ends in CONNECTING", source: teststream.Actions{"CNG": teststream.Destroy}, err: runtime.ErrRefused,
			want: "join0 aCRE aCNG aCON sCRE sCNG sDES aDIS aDES"},
		{name: "the source declines CONNECTING", source: teststream.Actions{"CNG": teststream.Disconnect},
			want: "join0 aCRE aCNG aCON sCRE sCNG sARF aDIS aDES", atEnd: "sDES"},
		{name: "the source ends in CONNECTED", source: teststream.Actions{"CON": teststream.Destroy}, err: runtime.ErrRefused,
			want: "join0 aCRE aCNG aCON sCRE sCNG sCON sDIS sDES aDIS aDES"},
		{name: "RequestTx and Connect in CREATING", source: teststream.Actions{"CRE": both(teststream.RequestTx, teststream.Connect)},
			want: "join0 aCRE aCNG aCON sCRE sCNG sCON", atEnd: "aDIS aDES sDIS sDES"},
		{name: "the source is destroyed", later: func(s *runtime.Stream, _ []*runtime.Stream) { s.Destroy() },
			want: "join0 aCRE aCNG aCON sCRE sCNG sCON sDIS sDES aDIS aDES"},
		{name: "the accepted one is destroyed, opportunistic", st: policy.StreamType{Opportunistic: true, Retry: retry},
			later: func(_ *runtime.Stream, a []*runtime.Stream) { a[0].Destroy() },
			want:  "join0 aCRE aCNG aCON sCRE sCNG sCON aDIS aDES sDIS", atEnd: "sDES"},
		{name: "the accepted one is destroyed, no retry",
			later: func(_ *runtime.Stream, a []*runtime.Stream) { a[0].Destroy() },
			want:  "join0 aCRE aCNG aCON sCRE sCNG sCON aDIS aDES sDIS sUNR sARF", atEnd: "sDES"},
		{name: "the accepted one is destroyed, retry", st: policy.StreamType{Retry: retry},
			later: func(_ *runtime.Stream, a []*runtime.Stream) { a[0].Destroy() },
			want:  "join0 aCRE aCNG aCON sCRE sCNG sCON aDIS aDES sDIS sPOL sCNG join0 aCRE aCNG aCON sCON",
			atEnd: "aDIS aDES sDIS sDES"},
		{name: "the accepted one disconnects", st: policy.StreamType{Opportunistic: true}, sink: teststream.Actions{"TMO": teststream.Disconnect},
			later: func(_ *runtime.Stream, a []*runtime.Stream) { a[0].StartTimeout(time.Second) },
			want:  "join0 aCRE aCNG aCON sCRE sCNG sCON aTMO aDIS aDES sDIS", atEnd: "sDES"},
		{name: "and RequestTx joins again", st: policy.StreamType{Opportunistic: true}, sink: teststream.Actions{"TMO": teststream.Disconnect},
			later: func(s *runtime.Stream, a []*runtime.Stream) {
				a[0].StartTimeout(time.Second)
				time.AfterFunc(time.Minute, func() { s.RequestTx() })
			},
			want:  "join0 aCRE aCNG aCON sCRE sCNG sCON aTMO aDIS aDES sDIS sPOL sCNG join0 aCRE aCNG aCON sCON",
			atEnd: "aDIS aDES sDIS sDES"},
		{name: "the source destroys itself in DISCONNECTED", st: policy.StreamType{Retry: retry}, source: teststream.Actions{"DIS": destroy},
			later: func(_ *runtime.Stream, a []*runtime.Stream) { a[0].Destroy() },
			want:  "join0 aCRE aCNG aCON sCRE sCNG sCON aDIS aDES sDIS sDES"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, tr := newContext(t, tt.st)
				var j journal
				var accepted []*runtime.Stream
				actions := before(tt.sink, "CRE", func(s *runtime.Stream) { accepted = append(accepted, s) })
				if _, err := tr.Accept(c, "s", func(joined uint32) (runtime.Handlers, runtime.Result) {
					j.add(fmt.Sprintf("join%d", joined))
					return j.of("a", actions), tt.result
				}); err != nil {
					t.Fatal(err)
				}
				s, err := c.NewStream("s", j.of("s", tt.source))
				if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Errorf("NewStream: %v, want %v", err, tt.err)
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
				teststream.Shutdown(t, c)
				if end := strings.TrimPrefix(j.String(), got); !sameJournal(end, tt.atEnd) {
					t.Errorf("Shutdown brings %s, want %s", end, tt.atEnd)
				}
			})
		})
	}
}

// sameJournal reports whether two journals are equal up to the first end of a stream, and
// after it equal per stream, since streams end independently.
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

// before returns actions in which first precedes the action of event.
func before(actions teststream.Actions, event string, first func(*runtime.Stream)) teststream.Actions {
	with := teststream.Actions{}
	maps.Copy(with, actions)
	with[event] = func(s *runtime.Stream) runtime.Result {
		first(s)
		if second := actions[event]; second != nil {
			return second(s)
		}
		return runtime.OK
	}
	return with
}

// both returns an action that runs a and then b.
func both(a, b func(*runtime.Stream) runtime.Result) func(*runtime.Stream) runtime.Result {
	return func(s *runtime.Stream) runtime.Result { a(s); return b(s) }
}

// script returns a Tx that sends one of the pieces in each call, as one message.
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

// TestSinkPayload checks that payload passes in both directions with its flags, even just
// before the end, and that RequestTx requests the stream's own Tx.
func TestSinkPayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := newContext(t, policy.StreamType{Opportunistic: true})
		var j journal
		if _, err := tr.Accept(c, "s", func(uint32) (runtime.Handlers, runtime.Result) {
			h := j.of("a", teststream.Actions{"rx(three,2)": teststream.RequestTx})
			h.Tx = script("yes", "")
			return h, runtime.OK
		}); err != nil {
			t.Fatal(err)
		}
		h := j.of("s", teststream.Actions{"CRE": teststream.RequestTx, "rx(,2)": teststream.Destroy})
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
		c, tr := newContext(t, policy.StreamType{Opportunistic: true})
		var j journal
		if _, err := tr.Accept(c, "s", func(uint32) (runtime.Handlers, runtime.Result) {
			return j.of("a", teststream.Actions{"CON": func(*runtime.Stream) runtime.Result { time.Sleep(time.Second); return runtime.OK }}), runtime.OK
		}); err != nil {
			t.Fatal(err)
		}
		h := j.of("s", teststream.Actions{"CRE": teststream.RequestTx})
		h.Tx = func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			time.AfterFunc(time.Second, s.Destroy)
			return copy(buf, "last"), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
		}
		if _, err := c.NewStream("s", h); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		// The two streams end in any order.
		var accepted []string
		for _, e := range strings.Fields(j.String()) {
			if strings.HasPrefix(e, "a") {
				accepted = append(accepted, e)
			}
		}
		if got, want := strings.Join(accepted, " "), "aCRE aCNG aCON arx(last,3) aDIS aDES"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// TestSinkBackpressure checks that a slow Rx delays the Tx of the other side, but not
// its Destroy.
func TestSinkBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := newContext(t, policy.StreamType{Opportunistic: true})
		var mu sync.Mutex
		sent, received := 0, 0
		look := func() string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return fmt.Sprint(sent, received)
		}
		if _, err := tr.Accept(c, "s", func(uint32) (runtime.Handlers, runtime.Result) {
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
			sent++
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
		c, tr := newContext(t, policy.StreamType{Opportunistic: true})
		if _, err := tr.Accept(c, "s", func(uint32) (runtime.Handlers, runtime.Result) {
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

// TestSinkUnread checks that a Conn can write many messages before it reads.
func TestSinkUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := newContext(t, policy.StreamType{Opportunistic: true})
		if _, err := tr.Accept(c, "s", func(uint32) (runtime.Handlers, runtime.Result) {
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
	c, tr := newContext(t, policy.StreamType{})
	join := func(uint32) (runtime.Handlers, runtime.Result) { return runtime.Handlers{}, runtime.OK }
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	_, err := c.NewStream("s", runtime.Handlers{})
	check("no sink", err, sink.ErrNoSink)
	_, err = tr.Accept(c, "none", join)
	check("no streamtype", err, runtime.ErrUnknownStreamType)
	_, err = tr.Accept(c, "network", join)
	check("no local_sink", err, runtime.ErrUnsupported)
	k, err := tr.Accept(c, "s", join)
	check("a sink", err, nil)
	_, err = tr.Accept(c, "s", join)
	check("another sink", err, sink.ErrExists)
	_, err = c.NewStream("s", runtime.Handlers{})
	check("a source", err, nil)
	k.Close()
	_, err = c.NewStream("s", runtime.Handlers{})
	check("a closed sink", err, sink.ErrNoSink)
	_, err = tr.Accept(c, "s", join)
	check("a new sink", err, nil)
	k.Close()
	_, err = c.NewStream("s", runtime.Handlers{})
	check("an old sink is closed once more", err, nil)
	c.Close()
	_, err = tr.Accept(c, "s", join)
	check("a closed context", err, runtime.ErrClosed)
	for _, st := range []policy.StreamType{{DirectProtoStr: true}, {Rideshare: "network"}} {
		c, _ := newContext(t, st)
		_, err = c.NewStream("s", runtime.Handlers{})
		check("a key that means nothing", err, runtime.ErrUnsupported)
	}
}

// TestTwoContexts checks that a transport refuses a second context.
func TestTwoContexts(t *testing.T) {
	tr := sink.New()
	st := &policy.StreamType{Name: "s", LocalSink: true}
	for _, want := range []error{sink.ErrNoSink, runtime.ErrUnsupported} {
		c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{tr}}, st)
		if _, err := c.NewStream("s", runtime.Handlers{}); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

// TestSinkCount checks that Join can limit the number of sources.
func TestSinkCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := newContext(t, policy.StreamType{Opportunistic: true})
		if _, err := tr.Accept(c, "s", func(joined uint32) (runtime.Handlers, runtime.Result) {
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
					} else if !errors.Is(err, sink.ErrRefused) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if len(streams) != 3 {
				t.Errorf("%d sources joined, want 3", len(streams))
			}
			for _, s := range streams {
				s.Destroy()
			}
			synctest.Wait()
		}
	})
}

// TestSinkClose closes the context in each callback.
func TestSinkClose(t *testing.T) {
	for _, at := range []string{"join", "aCRE", "aCNG", "aCON", "sCRE", "sCNG", "sCON", "arx(x,3)", "aDIS", "aDES"} {
		synctest.Test(t, func(t *testing.T) {
			c, tr := newContext(t, policy.StreamType{})
			var j journal
			closing := func(*runtime.Stream) runtime.Result { c.Close(); return runtime.OK }
			if _, err := tr.Accept(c, "s", func(uint32) (runtime.Handlers, runtime.Result) {
				if at == "join" {
					c.Close()
				}
				return j.of("a", teststream.Actions{at[1:]: closing}), runtime.OK
			}); err != nil {
				t.Fatal(err)
			}
			actions := teststream.Actions{"CRE": teststream.RequestTx}
			if at[0] == 's' {
				actions[at[1:]] = both(teststream.RequestTx, closing)
			}
			if at[0] == 'a' && at[1:] != "rx(x,3)" {
				actions["rx(x,3)"] = teststream.Destroy
			}
			h := j.of("s", actions)
			h.Tx = script("x")
			s, _ := c.NewStream("s", h)
			synctest.Wait()
			if s != nil && strings.HasSuffix(at, "S") {
				s.Destroy()
				synctest.Wait()
			}
			teststream.Shutdown(t, c)
			for _, end := range []string{"a", "s"} {
				if got := j.String(); strings.Contains(got, end+"CRE") != strings.Contains(got, end+"DES") {
					t.Errorf("closed from %s: %s", at, got)
				}
			}
		})
	}
}

// TestSinkAbuse makes, uses and destroys sources and accepted streams concurrently.
func TestSinkAbuse(t *testing.T) {
	c, tr := newContext(t, policy.StreamType{Retry: &policy.Retry{Backoff: []time.Duration{time.Millisecond}, Conceal: 65535}})
	send := func(s *runtime.Stream, ordinal uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
		if ordinal%100 == 99 {
			return 0, 0, runtime.DisconnectMe
		}
		s.RequestTx()
		return min(len(buf), int(ordinal)), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
	}
	if _, err := tr.Accept(c, "s", func(uint32) (runtime.Handlers, runtime.Result) {
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
