package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A probe is a transport whose attempts call try and fail. It counts its open
// connectors.
type probe struct {
	try  func(ctx context.Context, s *transport.Setup) // may be nil
	open atomic.Int32

	mu     sync.Mutex
	setups map[string]*transport.Setup // the latest, by streamtype
}

func (*probe) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolRaw} }

func (p *probe) Prepare(s *transport.Setup) (transport.Connector, error) {
	p.open.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.setups == nil {
		p.setups = make(map[string]*transport.Setup)
	}
	p.setups[s.Stream.Name] = s
	return probeConnector{p, s}, nil
}

func (p *probe) setup(name string) *transport.Setup {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.setups[name]
}

type probeConnector struct {
	p     *probe
	setup *transport.Setup
}

var errProbe = errors.New("the probe connects to nothing")

func (c probeConnector) Run(ctx context.Context, _ transport.Link) error {
	if c.p.try != nil {
		c.p.try(ctx, c.setup)
	}
	return errProbe
}

func (c probeConnector) Close() error { c.p.open.Add(-1); return nil }

// newContext returns a context that ends with the test. Each streamtype gets the
// endpoint "h:1" over raw.
func newContext(t *testing.T, o runtime.Options, types ...*policy.StreamType) *runtime.Context {
	t.Helper()
	for _, st := range types {
		st.Protocol, st.Endpoint, st.Port = policy.ProtocolRaw, "h", 1
	}
	return teststream.NewContext(t, o, types...)
}

// newStream returns a stream of the named type whose first attempt has begun.
func newStream(t *testing.T, c *runtime.Context, name string) *runtime.Stream {
	t.Helper()
	s, err := c.NewStream(name, runtime.Handlers{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Connect(); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTrustLifetime checks that a context keeps connectors and trust stores for 30 s after
// their last stream.
func TestTrustLifetime(t *testing.T) {
	const linger = 30 * time.Second
	synctest.Test(t, func(t *testing.T) {
		one, other := testcert.New("one").Store(), testcert.New("other").Store()
		p := &probe{}
		c := newContext(t, runtime.Options{Transports: []transport.Transport{p}},
			&policy.StreamType{Name: "a", TrustStore: one}, &policy.StreamType{Name: "b", TrustStore: one},
			&policy.StreamType{Name: "other", TrustStore: other})
		run := func(name string) (*runtime.Stream, *tls.Config) {
			s := newStream(t, c, name)
			synctest.Wait()
			config, err := p.setup(name).TLS(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return s, config
		}
		open := func(want int32, when string) {
			t.Helper()
			synctest.Wait()
			if n := p.open.Load(); n != want {
				t.Errorf("%s there are %d connectors, want %d", when, n, want)
			}
		}
		a, first := run("a")
		b, shared := run("b")
		if first != shared {
			t.Error("two streamtypes with one store have different configs")
		}
		third, _ := run("other")
		b.Destroy()
		third.Destroy()
		open(3, "at once after the streams")
		time.Sleep(linger + time.Second)
		open(1, "with one stream left")
		b, shared = run("b")
		if first != shared {
			t.Error("the config was made again while it was in use")
		}
		open(2, "with two streams")
		a.Destroy()
		b.Destroy()
		time.Sleep(linger / 2)
		a, shared = run("a")
		if first != shared {
			t.Error("the config was made again while it was kept")
		}
		a.Destroy()
		time.Sleep(linger + time.Second)
		open(0, "without streams")
		if _, again := run("a"); again == first {
			t.Error("the config outlived its users")
		}
		open(1, "with a new stream")
		c.Shutdown(t.Context())
		open(0, "after Shutdown")
	})
}

// TestSwakeValidity checks which timers of a stream wake the system.
func TestSwakeValidity(t *testing.T) {
	for _, swake := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var mu sync.Mutex
			var wakes []time.Duration // since start; -1 for none
			p := &probe{}
			c := newContext(t, runtime.Options{
				Transports: []transport.Transport{p},
				Wake: func(at time.Time) {
					mu.Lock()
					defer mu.Unlock()
					if at.IsZero() {
						wakes = append(wakes, -1)
					} else {
						wakes = append(wakes, at.Sub(start))
					}
				},
			}, &policy.StreamType{
				Name: "s", SwakeValidity: swake,
				Retry: &policy.Retry{Backoff: []time.Duration{time.Minute}, Conceal: 1, ValidPing: time.Second, ValidHangup: 2 * time.Second},
			})
			s, err := c.NewStream("s", runtime.Handlers{})
			if err != nil {
				t.Fatal(err)
			}
			s.StartTimeout(5 * time.Second) // does not wake
			s.Connect()                     // waits for a minute
			synctest.Wait()
			time.Sleep(10 * time.Second)
			v := p.setup("s").Watch(func() {}, func() {})
			time.Sleep(500 * time.Millisecond)
			v.Stop()
			synctest.Wait()
			c.Shutdown(t.Context())
			want := "[]"
			if swake {
				want = "[1m0s 11s 1m0s -1ns]"
			}
			mu.Lock()
			defer mu.Unlock()
			if got := fmt.Sprint(wakes); got != want {
				t.Errorf("swake_validity %v: wakes at %s, want %s", swake, got, want)
			}
		})
	}
}

// TestCloseInWake checks that Options.Wake may close the context.
func TestCloseInWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probe{}
		var c *runtime.Context
		called := false
		c = newContext(t, runtime.Options{Transports: []transport.Transport{p}, Wake: func(time.Time) { called = true; c.Close() }},
			&policy.StreamType{Name: "s", SwakeValidity: true})
		newStream(t, c, "s")
		synctest.Wait()
		p.setup("s").Watch(func() {}, func() {})
		synctest.Wait()
		if err := c.Shutdown(t.Context()); err != nil || !called {
			t.Errorf("Wake called: %v; Shutdown: %v", called, err)
		}
	})
}

// TestCloseFromCredentials checks that a source of credentials may close the
// context that calls it.
func TestCloseFromCredentials(t *testing.T) {
	for _, clientCert := range []uint8{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			var c *runtime.Context
			calls := 0
			closing := func() error { calls++; return c.Close() }
			var got error
			p := &probe{try: func(ctx context.Context, s *transport.Setup) {
				if clientCert == 0 {
					_, got = s.Secret(ctx, policy.BlobAuth, 0)
				} else {
					_, got = s.TLS(ctx)
				}
			}}
			c = newContext(t, runtime.Options{Transports: []transport.Transport{p}, Credentials: credentials.Funcs{
				BlobFunc:              func(context.Context, policy.Blob, int) (string, error) { return "x", closing() },
				ClientCertificateFunc: func(context.Context, int) (*tls.Certificate, error) { return nil, closing() },
			}}, &policy.StreamType{Name: "s", ClientCert: clientCert})
			newStream(t, c, "s")
			synctest.Wait()
			c.Shutdown(t.Context())
			if calls != 1 || errors.Is(got, runtime.ErrNoCredentials) != (clientCert != 0) {
				t.Errorf("client_cert %d: %d calls, %v", clientCert, calls, got)
			}
		})
	}
}
