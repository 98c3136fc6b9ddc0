package runtime_test

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// swapPolicy returns a policy changed by f. The results share no memory.
func swapPolicy(f ...func(*policy.Policy)) *policy.Policy {
	cert := func(der string) *policy.Cert { return &policy.Cert{Name: "ca", DER: der} }
	p := &policy.Policy{}
	for _, name := range []string{"a", "b", "c"} {
		p.StreamTypes = append(p.StreamTypes, &policy.StreamType{
			Name: name, Protocol: policy.ProtocolRaw, Endpoint: name + ".example", Port: 1,
			TrustStore: &policy.TrustStore{Name: "t", Stack: []*policy.Cert{cert("der")}},
			Retry:      &policy.Retry{Name: "r", Backoff: ms(1000), Conceal: 65535},
			Metadata:   []policy.Metadata{{Name: "x"}, {Name: "y"}},
		})
	}
	for _, f := range f {
		f(p)
	}
	return p
}

// change changes a streamtype of a swapPolicy.
func change(name string, f func(*policy.StreamType)) func(*policy.Policy) {
	return func(p *policy.Policy) { f(p.StreamType(name)) }
}

// without removes a streamtype of a swapPolicy.
func without(name string) func(*policy.Policy) {
	return func(p *policy.Policy) {
		p.StreamTypes = slices.DeleteFunc(p.StreamTypes, func(st *policy.StreamType) bool { return st.Name == name })
	}
}

// A swapper is a transport that counts its connectors.
type swapper struct {
	fake
	mu              sync.Mutex
	prepared, ended map[string]int
	notified        int    // calls of PolicyChanged
	refuse          uint16 // a port that Prepare refuses
}

// A swapConnector is a connector of a swapper.
type swapConnector struct {
	fakeConnector
	w *swapper
}

func (w *swapper) Prepare(s *transport.Setup) (transport.Connector, error) {
	st := s.Stream
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != 0 && st.Port == w.refuse {
		return nil, runtime.ErrUnsupported
	}
	w.prepared[st.Name]++
	return &swapConnector{fakeConnector{&w.fake, s}, w}, nil
}

func (n *swapConnector) Close() error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.ended[n.setup.Stream.Name]++
	return nil
}

func (w *swapper) PolicyChanged() { w.notified++ }

// open returns the number of open connectors of a streamtype.
func (w *swapper) open(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.prepared[name] - w.ended[name]
}

func swapContext(t *testing.T, p *policy.Policy, run run) (*runtime.Context, *swapper) {
	t.Helper()
	w := &swapper{fake: fake{run}, prepared: map[string]int{}, ended: map[string]int{}}
	return teststream.NewPolicyContext(t, runtime.Options{Transports: []transport.Transport{w}}, p), w
}

// TestSetPolicy checks which streams survive a new policy.
func TestSetPolicy(t *testing.T) {
	for _, test := range []struct {
		name   string
		change []func(*policy.Policy)
		gone   string // streams of a and c are connected, that of b is idle
	}{
		{"nothing", nil, ""},
		{"release", []func(*policy.Policy){func(p *policy.Policy) { p.Release = "2" }}, ""},
		{"port", []func(*policy.Policy){change("a", func(st *policy.StreamType) { st.Port = 2 })}, "a"},
		{"idle", []func(*policy.Policy){change("b", func(st *policy.StreamType) { st.Port = 2 })}, "b"},
		{"vanished", []func(*policy.Policy){without("c")}, "c"},
		{"certificate", []func(*policy.Policy){change("c", func(st *policy.StreamType) { st.TrustStore.Stack[0].DER = "other" })}, "c"},
		{"retry", []func(*policy.Policy){change("c", func(st *policy.StreamType) { st.Retry.Conceal = 3 })}, "c"},
		{"priority", []func(*policy.Policy){change("a", func(st *policy.StreamType) { st.Priority = 3 })}, "a"},
		{"metadata", []func(*policy.Policy){change("b", func(st *policy.StreamType) { st.Metadata[0].Header = "x:" })}, "b"},
		{"global proxy", []func(*policy.Policy){
			func(p *policy.Policy) { p.SOCKS5Proxy = "127.0.0.1:1080" },
			change("b", func(st *policy.StreamType) { st.SOCKS5Proxy = "" }),
		}, "abc"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := swapContext(t, swapPolicy(), stay)
				streams, traces := map[string]*runtime.Stream{}, map[string]*trace{}
				for _, name := range []string{"a", "b", "c"} {
					tr := new(trace)
					s, err := c.NewStream(name, tr.handlers())
					if err != nil {
						t.Fatal(err)
					}
					if name != "b" {
						s.Connect()
					}
					streams[name], traces[name] = s, tr
				}
				synctest.Wait()
				p := swapPolicy(test.change...)
				if err := c.SetPolicy(p); err != nil {
					t.Fatal(err)
				}
				if c.Policy() != p {
					t.Error("Policy returns another policy")
				}
				synctest.Wait()
				for name, s := range streams {
					want, err := "CRE CNG CON", error(nil)
					if name == "b" {
						want = "CRE"
					}
					if strings.Contains(test.gone, name) {
						want, err = strings.Replace(want+" DES", "CON DES", "CON DIS DES", 1), runtime.ErrPolicyChanged
					}
					if got := traces[name].String(); got != want || s.Err() != err {
						t.Errorf("%s: %s, %v; want %s, %v", name, got, s.Err(), want, err)
					}
					open := 1
					if err != nil {
						open = 0
					}
					if got := w.open(name); got != open {
						t.Errorf("%s: %d connectors, want %d", name, got, open)
					}
				}
				if w.notified != 1 {
					t.Errorf("the transport was notified %d times", w.notified)
				}
				// New streams follow the new policy, and share unchanged connectors.
				for _, st := range p.StreamTypes {
					s, err := c.NewStream(st.Name, runtime.Handlers{})
					if err != nil {
						t.Fatal(err)
					}
					if s.StreamType().Port != st.Port || w.open(st.Name) != 1 {
						t.Errorf("%s: port %d, %d connectors", st.Name, s.StreamType().Port, w.open(st.Name))
					}
				}
				teststream.Shutdown(t, c)
				for name := range streams {
					if w.open(name) != 0 {
						t.Errorf("%s: %d connectors after Close", name, w.open(name))
					}
				}
			})
		})
	}
}

// TestSetPolicyErrors checks that an error changes nothing.
func TestSetPolicyErrors(t *testing.T) {
	c, _ := swapContext(t, swapPolicy(), stay)
	p := c.Policy()
	if err := c.SetPolicy(nil); err == nil {
		t.Error("SetPolicy accepts nil")
	}
	if err := c.Overlay(nil); err == nil {
		t.Error("Overlay accepts nil")
	}
	if err := c.Overlay(swapPolicy(without("b"))); !errors.Is(err, runtime.ErrUnknownStreamType) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("Overlay without b: %v", err)
	}
	if c.Policy() != p {
		t.Error("a refused policy was set")
	}
	teststream.Shutdown(t, c)
	if err := c.SetPolicy(p); !errors.Is(err, runtime.ErrClosed) {
		t.Error(err)
	}
	if err := c.Overlay(p); !errors.Is(err, runtime.ErrClosed) {
		t.Error(err)
	}
}

func TestCompareAndSetPolicy(t *testing.T) {
	first, second := swapPolicy(), swapPolicy()
	c := teststream.NewPolicyContext(t, runtime.Options{}, first)
	for _, tt := range []struct {
		old, new *policy.Policy
		set      bool
	}{{second, first, false}, {nil, second, false}, {first, second, true}, {first, second, false}, {second, first, true}} {
		was := c.Policy()
		set, err := c.CompareAndSetPolicy(tt.old, tt.new)
		if want := map[bool]*policy.Policy{true: tt.new, false: was}[tt.set]; set != tt.set || err != nil || c.Policy() != want {
			t.Errorf("got %v, %v, want %v; the policy is right: %v", set, err, tt.set, c.Policy() == want)
		}
	}
	if set, err := c.CompareAndSetPolicy(first, nil); set || err == nil {
		t.Errorf("with nil: %v, %v", set, err)
	}
	teststream.Shutdown(t, c)
	if set, err := c.CompareAndSetPolicy(first, second); set || !errors.Is(err, runtime.ErrClosed) {
		t.Errorf("closed: %v, %v", set, err)
	}
}

// TestSetPolicyBusy checks that SetPolicy destroys streams that wait for a retry or are in
// an attempt.
func TestSetPolicyBusy(t *testing.T) {
	changed := swapPolicy(change("a", func(st *policy.StreamType) { st.Port = 2 }))
	for _, test := range []struct {
		name string
		run  func(context.Context, transport.Link) error
		want string
	}{
		{"retry", unreachable, "CRE CNG UNR DES"},
		{"attempt", hang, "CRE CNG DES"},
		{"complete", func(ctx context.Context, l transport.Link) error { fetch(ctx, l); return nil }, "CRE CNG CON rx eom ACK DIS DES"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := swapContext(t, swapPolicy(), test.run)
				tr := new(trace)
				s, err := c.NewStream("a", tr.handlers())
				if err != nil {
					t.Fatal(err)
				}
				s.Connect()
				synctest.Wait()
				if err := c.SetPolicy(changed); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if tr.String() != test.want || s.Err() != runtime.ErrPolicyChanged || w.open("a") != 0 {
					t.Errorf("%s, %v, %d connectors", tr, s.Err(), w.open("a"))
				}
				if err := s.RequestTx(); !errors.Is(err, runtime.ErrClosed) {
					t.Error(err)
				}
			})
		})
	}
}

// TestSetPolicyCalls checks that Fetch, Conn and NewStream return ErrPolicyChanged.
func TestSetPolicyCalls(t *testing.T) {
	changed := swapPolicy(change("a", func(st *policy.StreamType) { st.Port = 2 }))
	t.Run("Fetch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := swapContext(t, swapPolicy(), stay)
			go func() { time.Sleep(time.Second); c.SetPolicy(changed) }()
			if _, err := c.Fetch(t.Context(), "a"); !errors.Is(err, runtime.ErrPolicyChanged) {
				t.Error(err)
			}
		})
	})
	t.Run("Open", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, w := swapContext(t, swapPolicy(), func(ctx context.Context, l transport.Link) error {
				l.Connected()
				for {
					if err := l.Rx([]byte("x"), 0); err != nil {
						return err
					}
				}
			})
			conn, err := c.Open(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			synctest.Wait()
			c.SetPolicy(changed)
			synctest.Wait()
			if w.open("a") != 0 {
				t.Error("the stream still waits for a reader")
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, runtime.ErrPolicyChanged) {
				t.Error(err)
			}
		})
	})
	t.Run("NewStream", func(t *testing.T) {
		c, _ := swapContext(t, swapPolicy(), stay)
		_, err := c.NewStream("a", runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateCreating {
				c.SetPolicy(changed)
			}
			return runtime.OK
		}})
		if !errors.Is(err, runtime.ErrPolicyChanged) {
			t.Error(err)
		}
	})
}

// TestOverlay checks that streams stay connected and follow the new policy from their
// next attempt on.
func TestOverlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var targets []string
		lost := make(chan struct{})
		c, w := swapContext(t, swapPolicy(), func(ctx context.Context, l transport.Link) error {
			y, _ := l.Metadata(len(setupOf(l).Stream.Metadata) - 1)
			targets = append(targets, l.Target().Address()+"/"+y)
			if err := l.Connected(); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-lost:
				return errFake
			}
		})
		tr := new(trace)
		s, err := c.NewStream("a", tr.handlers(), runtime.WithMetadata("x", "X"), runtime.WithMetadata("y", "Y"))
		if err != nil {
			t.Fatal(err)
		}
		s.Connect()
		synctest.Wait()
		for i, f := range []func(*policy.StreamType){
			func(st *policy.StreamType) { st.Port = 2 },
			func(st *policy.StreamType) { st.Port = 3; st.Metadata = st.Metadata[1:] }, // without x
			func(st *policy.StreamType) {
				st.Port = 4
				st.Metadata = []policy.Metadata{{Name: "z"}, {Name: "x"}, {Name: "y"}}
			},
		} {
			if err := c.Overlay(swapPolicy(change("a", f))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := int(s.StreamType().Port); got != i+1 || s.State() != runtime.StateConnected {
				t.Errorf("port %d, %v before the next attempt", got, s.State())
			}
			lost <- struct{}{}
			time.Sleep(time.Minute)
			if got := int(s.StreamType().Port); got != i+2 {
				t.Errorf("port %d after it", got)
			}
			if w.open("a") != 1 {
				t.Errorf("%d connectors", w.open("a"))
			}
		}
		if got, want := strings.Join(targets, " "), "a.example:1/Y a.example:2/Y a.example:3/Y a.example:4/Y"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if x, err := s.Metadata("x"); x != "" || err != nil {
			t.Errorf("x, which one policy did not declare, is %q, %v", x, err)
		}
		if want := "CRE CNG CON" + strings.Repeat(" DIS POL CNG CON", 3); tr.String() != want {
			t.Error(tr)
		}
	})
}

// TestOverlayThenSetPolicy checks that SetPolicy keeps a stream that still follows an
// earlier policy if the new policy equals that or the current one.
func TestOverlayThenSetPolicy(t *testing.T) {
	port := func(n uint16) func(*policy.Policy) {
		return change("a", func(st *policy.StreamType) { st.Port = n })
	}
	for _, test := range []struct {
		port uint16
		want string
	}{
		{1, "CRE CNG CON"}, {2, "CRE CNG CON"}, {3, "CRE CNG CON DIS DES"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, w := swapContext(t, swapPolicy(), stay)
			tr := new(trace)
			s, _ := c.NewStream("a", tr.handlers())
			s.Connect()
			synctest.Wait()
			if err := errors.Join(c.Overlay(swapPolicy(port(2))), c.SetPolicy(swapPolicy(port(test.port)))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if tr.String() != test.want {
				t.Errorf("port %d: %s", test.port, tr)
			}
			s.Destroy()
			time.Sleep(time.Hour)
			if w.open("a") != 0 {
				t.Errorf("port %d: %d connectors at the end", test.port, w.open("a"))
			}
		})
	}
}

// TestOverlayRefused checks that Overlay changes nothing if a stream could not follow the
// new policy.
func TestOverlayRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := swapContext(t, swapPolicy(), stay)
		w.refuse = 9
		p := c.Policy()
		for _, name := range []string{"a", "b"} {
			if _, err := c.NewStream(name, runtime.Handlers{}); err != nil {
				t.Fatal(err)
			}
		}
		err := c.Overlay(swapPolicy(
			change("a", func(st *policy.StreamType) { st.Port = 2 }),
			change("b", func(st *policy.StreamType) { st.Port = 2 }),
			change("a", func(st *policy.StreamType) { st.Port = 9 })))
		synctest.Wait()
		if !errors.Is(err, runtime.ErrUnsupported) || c.Policy() != p || w.open("a") != 1 || w.open("b") != 1 {
			t.Errorf("%v, %d, %d", err, w.open("a"), w.open("b"))
		}
		err = c.Overlay(swapPolicy(change("a", func(st *policy.StreamType) {
			st.Protocol, st.HTTP = policy.ProtocolH1, &policy.HTTP{}
		})))
		synctest.Wait()
		if !errors.Is(err, runtime.ErrUnsupported) || c.Policy() != p || w.open("a") != 1 {
			t.Errorf("another protocol: %v, %d", err, w.open("a"))
		}
		// A streamtype without streams is not checked.
		if err := c.Overlay(swapPolicy(change("c", func(st *policy.StreamType) { st.Port = 9 }))); err != nil {
			t.Error(err)
		}
	})
}

// TestOverlayBadValue checks that a value fails attempts where the new policy must not put
// it.
func TestOverlayBadValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := swapContext(t, swapPolicy(), stay)
		tr := new(trace)
		s, _ := c.NewStream("a", tr.handlers(), runtime.WithMetadata("x", "a\r\nb"))
		if err := c.Overlay(swapPolicy(change("a", func(st *policy.StreamType) {
			st.Metadata[0].Header = "x:"
			st.Retry.Conceal = 0
		}))); err != nil {
			t.Fatal(err)
		}
		s.Connect()
		synctest.Wait()
		if !strings.HasPrefix(tr.String(), "CRE CNG UNR") || !errors.Is(s.Err(), runtime.ErrMetadataValue) {
			t.Errorf("%s, %v", tr, s.Err())
		}
		s.SetMetadata("x", "good")
		s.Connect()
		synctest.Wait()
		if s.State() != runtime.StateConnected || s.Err() != nil || w.open("a") != 1 {
			t.Errorf("%s, %v", tr, s.Err())
		}
	})
}

// TestSwapRace replaces policies while streams work. It runs in a bubble, since a machine that
// is busy with its goroutines may run a transport that has to end only after abandonAfter.
func TestSwapRace(t *testing.T) { synctest.Test(t, testSwapRace) }

func testSwapRace(t *testing.T) {
	c, w := swapContext(t, swapPolicy(), fetch)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		for range 3 {
			wg.Go(func() {
				for !stop.Load() {
					if _, err := c.Fetch(context.Background(), name, runtime.WithMetadata("y", "1")); err != nil && !errors.Is(err, runtime.ErrPolicyChanged) {
						t.Error(err)
						return
					}
				}
			})
		}
		s, err := c.NewStream("c", runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateDisconnected {
				s.RequestTx()
			}
			return runtime.OK
		}})
		if err != nil {
			t.Fatal(err)
		}
		s.RequestTx()
		wg.Go(func() {
			for !stop.Load() {
				s.SetMetadata("y", "2")
				s.Metadata("y")
				_ = s.StreamType().Port
				s.StartTimeout(time.Hour)
			}
		})
	}
	for i := range 200 {
		var err error
		if i%20 == 0 {
			err = c.SetPolicy(swapPolicy(change("a", func(st *policy.StreamType) { st.Port = uint16(i + 1) })))
		} else {
			err = c.Overlay(swapPolicy(change("b", func(st *policy.StreamType) { st.Port = uint16(i + 1) }),
				change("c", func(st *policy.StreamType) { st.Port = uint16(i + 1); st.Metadata = st.Metadata[i/2%2:] })))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	teststream.Shutdown(t, c)
	for _, name := range []string{"a", "b", "c"} {
		if w.open(name) != 0 {
			t.Errorf("%d connectors of %s at the end", w.open(name), name)
		}
	}
}

// TestSetPolicyRideshare checks that a change of a streamtype also changes those whose
// requests it shares.
func TestSetPolicyRideshare(t *testing.T) {
	share := func(p *policy.Policy) {
		for i, st := range p.StreamTypes {
			st.Protocol, st.HTTP = policy.ProtocolH1, &policy.HTTP{Method: "POST"}
			if i > 0 {
				p.StreamTypes[i-1].Rideshare = st.Name
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		c, _ := swapContext(t, swapPolicy(share), stay)
		traces := map[string]*trace{"a": {}, "b": {}, "c": {}}
		for name, tr := range traces {
			if _, err := c.NewStream(name, tr.handlers()); err != nil {
				t.Fatal(err)
			}
		}
		for _, step := range []struct {
			change  func(*policy.Policy)
			a, b, c string
		}{
			{func(*policy.Policy) {}, "CRE", "CRE", "CRE"},
			{change("b", func(st *policy.StreamType) { st.HTTP.MultipartName = "x" }), "CRE DES", "CRE DES", "CRE"},
		} {
			if err := c.SetPolicy(swapPolicy(share, step.change)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if traces["a"].String() != step.a || traces["b"].String() != step.b || traces["c"].String() != step.c {
				t.Errorf("%v, %v, %v", traces["a"], traces["b"], traces["c"])
			}
		}
	})
}

// TestOverlayOldLink checks that a goroutine of an attempt before an Overlay cannot use the
// attempt after it.
func TestOverlayOldLink(t *testing.T) {
	share := func(p *policy.Policy) {
		for _, st := range p.StreamTypes {
			st.Protocol, st.HTTP = policy.ProtocolH1, &policy.HTTP{Method: "POST"}
		}
		p.StreamType("a").Rideshare = "b"
	}
	synctest.Test(t, func(t *testing.T) {
		var old transport.Link
		var first *policy.StreamType
		c, _ := swapContext(t, swapPolicy(share), each(func(ctx context.Context, l transport.Link) error {
			old, first = l, setupOf(l).Stream
			if _, _, err := tx(l, make([]byte, 10)); err != nil {
				return err
			}
			return errFake
		}, stay))
		s, err := c.NewStream("a", runtime.Handlers{Tx: func(*runtime.Stream, uint32, []byte) (int, runtime.Flags, runtime.Result) {
			return 1, runtime.FlagSOM | runtime.FlagEOM, runtime.OK
		}})
		if err != nil {
			t.Fatal(err)
		}
		s.RequestTx()
		synctest.Wait()
		if s.StreamType() != first {
			t.Error("the streamtype changed before the Overlay")
		}
		if err := c.Overlay(swapPolicy(share, change("a", func(st *policy.StreamType) { st.Rideshare = "" }))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if s.State() != runtime.StateConnected || s.Rideshare().Name != "a" || s.StreamType() == first {
			t.Errorf("%v, %s", s.State(), s.Rideshare().Name)
		}
		if _, _, err := tx(old, make([]byte, 10)); err == nil {
			t.Error("the old link still sends")
		}
	})
}

// TestSwapTrust checks that streams of two policies with equal trust stores share a TLS
// configuration, and so connections and sessions.
func TestSwapTrust(t *testing.T) {
	one, two := testcert.New("one"), testcert.New("two")
	trusting := func(authorities map[string]*testcert.Authority) *policy.Policy {
		p := &policy.Policy{}
		for name, a := range authorities {
			s := &policy.StreamType{Name: name, Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1, TLS: true}
			if a != nil {
				s.TrustStore = a.Store()
			}
			p.StreamTypes = append(p.StreamTypes, s)
		}
		return p
	}
	synctest.Test(t, func(t *testing.T) {
		configs := map[string]*tls.Config{}
		c, _ := swapContext(t, trusting(map[string]*testcert.Authority{"a": one, "b": nil}), func(ctx context.Context, l transport.Link) error {
			config, err := setupOf(l).TLS(ctx)
			if err != nil {
				t.Error(err)
			}
			configs[setupOf(l).Stream.Name] = config
			return stay(ctx, l)
		})
		connect := func(names ...string) {
			for _, name := range names {
				s, err := c.NewStream(name, runtime.Handlers{})
				if err != nil {
					t.Fatal(err)
				}
				s.Connect()
				synctest.Wait()
			}
		}
		connect("a", "b")
		if err := c.SetPolicy(trusting(map[string]*testcert.Authority{"a": one, "b": nil, "c": one, "d": nil, "e": two})); err != nil {
			t.Fatal(err)
		}
		connect("c", "d", "e")
		if configs["a"] != configs["c"] || configs["b"] != configs["d"] {
			t.Error("equal trust is not shared")
		}
		if configs["a"] == configs["b"] || configs["a"] == configs["e"] || configs["b"] == configs["e"] {
			t.Error("different trust is shared")
		}
	})
}
