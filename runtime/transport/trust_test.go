package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// certs are credentials with client certificates only.
type certs map[int]*tls.Certificate

func (c certs) Blob(context.Context, policy.Blob, int) (string, error) {
	return "", ErrNoCredentials
}

func (c certs) ClientCertificate(_ context.Context, index int) (*tls.Certificate, error) {
	return c[index], nil
}

func (c certs) ServerCertificate(context.Context, string) (*tls.Certificate, error) {
	return nil, ErrNoCredentials
}

// TestTrustShared checks that setups with the same store and client certificate
// share a config, and that others share none.
func TestTrustShared(t *testing.T) {
	root, clients := testcert.New("root"), testcert.New("clients")
	one, twin := root.Store(), root.Store()
	one.Name, twin.Name = "one", "twin"
	creds := certs{0: clients.Client(2), 1: clients.Client(3)}
	env := newEnv(t, Config{Credentials: creds})
	get := func(st policy.StreamType) (*tls.Config, error) {
		return newSetup(t, env, &st).TLS(t.Context())
	}

	configs := map[string]*tls.Config{}
	seen := map[*tls.Config]string{}
	for name, st := range map[string]policy.StreamType{
		"one":     {TrustStore: one},
		"twin":    {TrustStore: twin},
		"system":  {},
		"client":  {TrustStore: one, ClientCert: 1},
		"client2": {TrustStore: one, ClientCert: 2},
	} {
		config, err := get(st)
		if config == nil || seen[config] != "" {
			t.Errorf("%s has the config of %q: %v", name, seen[config], err)
			continue
		}
		configs[name], seen[config] = config, name
		for other := range seen {
			if other != config && other.ClientSessionCache == config.ClientSessionCache {
				t.Errorf("%s and %s share sessions", name, seen[other])
			}
		}
		checkConfig(t, name, config, &st)
	}
	for name, st := range map[string]policy.StreamType{
		"one":    {TrustStore: new(*one)}, // as in a new policy
		"system": {},
		"client": {TrustStore: one, ClientCert: 1},
	} {
		if config, err := get(st); config != configs[name] {
			t.Errorf("a second setup of %s has another config: %v", name, err)
		}
	}
	if configs["one"].RootCAs != configs["client"].RootCAs {
		t.Error("two configs of one store have different roots")
	}
	if config, err := get(policy.StreamType{TrustStore: one, ClientCert: 3}); config != nil || !errors.Is(err, ErrNoCredentials) {
		t.Errorf("a missing certificate: %v, %v", config, err)
	}
}

// checkConfig checks that a config belongs to a streamtype.
func checkConfig(t *testing.T, name string, config *tls.Config, st *policy.StreamType) {
	t.Helper()
	if config.MinVersion != tls.VersionTLS12 || config.InsecureSkipVerify || (config.RootCAs == nil) != (st.TrustStore == nil) {
		t.Errorf("%s: version %x, skip %v, roots %v", name, config.MinVersion, config.InsecureSkipVerify, config.RootCAs)
	}
	if (config.GetClientCertificate != nil) != (st.ClientCert != 0) {
		t.Errorf("%s: client certificate %v", name, config.GetClientCertificate != nil)
	}
}

// TestTrustRenewed checks that another client certificate creates another config, and that
// reloading the same one does not.
func TestTrustRenewed(t *testing.T) {
	root, clients := testcert.New("root"), testcert.New("clients")
	creds := certs{0: clients.Client(2)}
	setup := newSetup(t, newEnv(t, Config{Credentials: creds}), &policy.StreamType{TrustStore: root.Store(), ClientCert: 1})
	get := func() *tls.Config {
		t.Helper()
		config, err := setup.TLS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	before := get()
	again := *creds[0]
	creds[0] = &again
	if get() != before {
		t.Error("the same certificate made another config")
	}
	if cert, err := before.GetClientCertificate(nil); cert != &again {
		t.Errorf("the config does not have the latest certificate: %v", err)
	}
	creds[0] = clients.Client(4)
	renewed := get()
	if renewed == before {
		t.Error("another certificate made no other config")
	}
	if cert, err := renewed.GetClientCertificate(nil); cert != creds[0] {
		t.Errorf("the config does not have the latest certificate: %v", err)
	}
	creds[0] = nil
	if config, err := setup.TLS(t.Context()); config != nil || !errors.Is(err, ErrNoCredentials) {
		t.Errorf("a removed certificate is still used: %v", err)
	}
}

// TestTrustReleased checks that a store is dropped with its last user.
func TestTrustReleased(t *testing.T) {
	store := testcert.New("root").Store()
	env := newEnv(t, Config{})
	use := func() (*Setup, *tls.Config) {
		s := newSetup(t, env, &policy.StreamType{TrustStore: store})
		var config *tls.Config
		for range 2 { // the second call does not count
			var err error
			if config, err = s.TLS(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return s, config
	}
	users := func() int {
		env.trust.mu.Lock()
		defer env.trust.mu.Unlock()
		if tr := env.trust.stores[store]; tr != nil {
			return tr.users
		}
		return 0
	}
	a, before := use()
	b, _ := use()
	if n := users(); n != 2 {
		t.Errorf("%d users, want 2", n)
	}
	env.Drop(a)
	env.Drop(a)
	if n := users(); n != 1 {
		t.Errorf("%d users after the first release, want 1", n)
	}
	if _, config := use(); config != before {
		t.Error("the config was made again while it was in use")
	} else if n := users(); n != 2 {
		t.Errorf("%d users, want 2", n)
	}
	env.Drop(b)
	env.Drop(newSetup(t, env, &policy.StreamType{TrustStore: store})) // without a use
	if n := users(); n != 1 {
		t.Errorf("%d users, want 1", n)
	}
}

// TestTrustErrors checks that a store which cannot be used is an error, each time.
func TestTrustErrors(t *testing.T) {
	good := testcert.New("root").Store().Stack[0]
	for _, tt := range []struct {
		stack []*policy.Cert
		cert  string
	}{
		{nil, ""},
		{[]*policy.Cert{good, nil}, ""},
		{[]*policy.Cert{good, {Name: "broken", DER: "no certificate"}}, "broken"},
	} {
		s := newSetup(t, newEnv(t, Config{}), &policy.StreamType{TrustStore: &policy.TrustStore{Name: "store", Stack: tt.stack}})
		for range 2 {
			config, err := s.TLS(t.Context())
			var trustError *TrustError
			if config != nil || !errors.As(err, &trustError) || trustError.Store != "store" || trustError.Cert != tt.cert {
				t.Errorf("%v: %v, %v", tt.stack, config, err)
			}
		}
	}
}
