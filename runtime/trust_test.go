package runtime

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A grabber is a transport that notes what its streams would use, and counts
// its connectors.
type grabber struct {
	got  map[string]*tls.Config // by streamtype
	err  map[string]error
	open atomic.Int32
}

func (*grabber) Protocols() []Protocol { return []Protocol{ProtocolRaw} }
func (g *grabber) Prepare(*Context, *StreamType) (Connector, error) {
	g.open.Add(1)
	return g, nil
}
func (g *grabber) Close() error { g.open.Add(-1); return nil }
func (g *grabber) Run(_ context.Context, l *Link) error {
	name := l.StreamType().Name
	g.got[name], g.err[name] = l.TLSConfig()
	return errors.New("that is all")
}

// certificate returns a certificate that is its own authority.
func certificate(t testing.TB, serial int64) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestTrustShared checks that trust is shared by those with the same store and
// client certificate only, and given up after the last of them.
func TestTrustShared(t *testing.T) {
	store := func(name string, c *tls.Certificate) *TrustStore {
		return &TrustStore{Name: name, Stack: []*Cert{{Name: name, DER: string(c.Certificate[0])}}}
	}
	root := certificate(t, 1)
	one, twin := store("one", root), store("twin", root)
	creds := new(MemoryCredentials)
	creds.SetClientCertificate(0, certificate(t, 2))
	creds.SetClientCertificate(1, certificate(t, 3))
	var types []*StreamType
	for name, st := range map[string]StreamType{
		"a":       {TrustStore: one},
		"b":       {TrustStore: one},
		"twin":    {TrustStore: twin},
		"system":  {},
		"client":  {TrustStore: one, ClientCert: 1},
		"client2": {TrustStore: one, ClientCert: 1},
		"other":   {TrustStore: one, ClientCert: 2},
		"nobody":  {TrustStore: one, ClientCert: 3},
	} {
		st.Name, st.Protocol, st.Endpoint, st.Port, st.TLS = name, ProtocolRaw, "h", 1, true
		types = append(types, &st)
	}
	synctest.Test(t, func(t *testing.T) {
		g := &grabber{got: map[string]*tls.Config{}, err: map[string]error{}}
		c, err := NewContext(&Policy{StreamTypes: types}, Options{Transports: []Transport{g}, Credentials: creds})
		if err != nil {
			t.Fatal(err)
		}
		stores := func() map[*TrustStore]int {
			c.trust.mu.Lock()
			defer c.trust.mu.Unlock()
			users := map[*TrustStore]int{}
			for store, tr := range c.trust.stores {
				users[store] = tr.users
			}
			return users
		}
		var streams []*Stream
		run := func(name string) *tls.Config {
			s, err := c.NewStream(name, Handlers{})
			if err != nil {
				t.Fatal(err)
			}
			s.Connect()
			synctest.Wait()
			streams = append(streams, s)
			return g.got[name]
		}
		seen := map[*tls.Config]string{}
		for _, name := range []string{"a", "twin", "system", "client", "other"} {
			config := run(name)
			if config == nil || seen[config] != "" {
				t.Errorf("%s has the config of %q: %v", name, seen[config], g.err[name])
				continue
			}
			seen[config] = name
			for other := range seen {
				if other != config && other.ClientSessionCache == config.ClientSessionCache {
					t.Errorf("%s and %s share sessions", name, seen[other])
				}
			}
			if config.MinVersion != tls.VersionTLS12 || config.InsecureSkipVerify || (config.RootCAs == nil) != (name == "system") {
				t.Errorf("%s: version %x, skip %v, roots %v", name, config.MinVersion, config.InsecureSkipVerify, config.RootCAs)
			}
			if (config.GetClientCertificate != nil) != (name == "client" || name == "other") {
				t.Errorf("%s: client certificate %v", name, config.GetClientCertificate != nil)
			}
		}
		if run("b") != g.got["a"] || run("client2") != g.got["client"] || g.got["a"].RootCAs != g.got["client"].RootCAs {
			t.Error("what is the same is not shared")
		}
		if config := run("nobody"); config != nil || !errors.Is(g.err["nobody"], ErrNoCredentials) {
			t.Errorf("a certificate that there is not: %v, %v", config, g.err["nobody"])
		}
		// Another certificate is another config, but not one that only was
		// loaded again.
		before := g.got["client"]
		again := *creds.certs[0]()
		creds.SetClientCertificate(0, &again)
		if run("client") != before {
			t.Error("the same certificate made another config")
		}
		creds.SetClientCertificate(0, certificate(t, 4))
		if run("client") == before {
			t.Error("another certificate made no other config")
		}
		if got, _ := g.got["client"].GetClientCertificate(nil); got != creds.certs[0]() {
			t.Error("the config has not the latest certificate")
		}
		creds.SetClientCertificate(0, nil)
		if config := run("client"); config != nil {
			t.Error("a certificate that was taken away is still used")
		}

		// All go but one that uses "one".
		keep, last := streams[0], streams[1:]
		for _, s := range last {
			s.Destroy()
		}
		synctest.Wait()
		if g.open.Load() != int32(len(types)) || len(stores()) != 3 {
			t.Errorf("at once after the streams %d connectors and %d stores are left", g.open.Load(), len(stores()))
		}
		time.Sleep(linger + time.Second)
		synctest.Wait()
		if g.open.Load() != 1 || len(stores()) != 1 || stores()[one] != 1 {
			t.Errorf("with one stream left there are %d connectors and the stores %v", g.open.Load(), stores())
		}
		roots := g.got["a"].RootCAs
		if run("b"); g.got["b"].RootCAs != roots || g.open.Load() != 2 {
			t.Error("the store was made again while it was in use")
		}
		streams[len(streams)-1].Destroy()
		keep.Destroy()
		time.Sleep(linger / 2)
		run("a").Clone()
		if g.got["a"].RootCAs != roots {
			t.Error("the store was made again while it was still kept")
		}
		streams[len(streams)-1].Destroy()
		time.Sleep(linger + time.Second)
		synctest.Wait()
		if g.open.Load() != 0 || len(stores()) != 0 {
			t.Errorf("without streams there are %d connectors and the stores %v", g.open.Load(), stores())
		}
		run("a")
		if g.got["a"] == nil || g.got["a"].RootCAs == roots || g.open.Load() != 1 {
			t.Error("the store was not made again")
		}
		c.Close()
		if g.open.Load() != 0 || len(stores()) != 0 {
			t.Errorf("after the context there are %d connectors and the stores %v", g.open.Load(), stores())
		}
	})
}
