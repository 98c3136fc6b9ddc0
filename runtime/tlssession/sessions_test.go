package tlssession_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// kinds are the ways in which a server keeps sessions.
func kinds() map[string]*tlssession.Sessions {
	cache := tlssession.NewCache(tlssession.Options{})
	return map[string]*tlssession.Sessions{
		"ids":            {Cache: cache},
		"ids or tickets": {Cache: cache, Keys: new(tlssession.Keys)},
		"tickets":        {Keys: new(tlssession.Keys)},
		"zero":           {},
		"large":          {Cache: tlssession.NewCache(tlssession.Options{MaxSession: 1}), Keys: new(tlssession.Keys)},
	}
}

// TestOpenSSL checks that openssl resumes sessions, by its file of a session and by
// reconnecting.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	all := kinds()
	for _, kind := range []string{"ids", "tickets"} {
		for name := range versions {
			t.Run(kind+" "+name, func(t *testing.T) {
				config := serverConfig()
				all[kind].Server(transport.Scope{}, config)
				addr := listen(t, config)
				file := filepath.Join(t.TempDir(), "session")
				flag := map[string]string{"1.2": "-tls1_2", "1.3": "-tls1_3"}[name]
				if sClient(t, addr, flag, "-sess_out", file) {
					t.Error("resumed without a session")
				}
				if info, err := os.Stat(file); err != nil || info.Size() == 0 {
					t.Fatal("openssl wrote no session", err)
				}
				for range 2 { // the same session twice
					if !sClient(t, addr, flag, "-sess_in", file) {
						t.Error("not resumed")
					}
				}
			})
		}
	}
}

// TestScope checks that a session is resumed only in the scope and under the name
// in which it was made.
func TestScope(t *testing.T) {
	for kind, s := range kinds() {
		for name, version := range versions {
			t.Run(kind+" "+name, func(t *testing.T) {
				one := transport.Scope{Trust: "a", Host: "b"}
				addr := map[transport.Scope]string{}
				for _, scope := range []transport.Scope{one, {Trust: "ab"}, {Trust: "a", Host: "b", Port: 1}, {}} {
					config := serverConfig()
					s.Server(scope, config)
					addr[scope] = listen(t, config)
				}
				for scope, a := range addr {
					client := clientConfig(version)
					dial(t, addr[one], client)
					if got := dial(t, a, client); got != (scope == one) {
						t.Errorf("%+v: resumed %v", scope, got)
					}
				}
				client := clientConfig(version)
				dial(t, addr[one], client)
				other := client.Clone()
				other.ClientSessionCache = oneKey{client.ClientSessionCache, client.ServerName}
				if !dial(t, addr[one], other) {
					t.Error("not resumed under the same name")
				}
				other.ServerName = "other.test"
				if dial(t, addr[one], other) {
					t.Error("resumed under another name")
				}
			})
		}
	}
}

// oneKey is a cache in which all keys share one session.
type oneKey struct {
	tls.ClientSessionCache
	key string
}

func (c oneKey) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get(c.key) }

// TestClientCertificate checks that a session with a client certificate is not resumed
// where the certificate is not trusted, nor one without where a certificate is required.
func TestClientCertificate(t *testing.T) {
	for kind, s := range kinds() {
		t.Run(kind, func(t *testing.T) {
			start := func(auth tls.ClientAuthType, a *testcert.Authority) string {
				config := serverConfig()
				config.ClientAuth, config.ClientCAs = auth, a.Pool()
				s.Server(transport.Scope{}, config)
				return listen(t, config)
			}
			stranger := testcert.New("stranger")
			required, any := start(tls.RequireAndVerifyClientCert, ca), start(tls.VerifyClientCertIfGiven, ca)
			elsewhere := start(tls.RequireAndVerifyClientCert, stranger)
			client := clientConfig(0)
			dial(t, any, client) // without a certificate
			if _, err := tryDial(required, client); err == nil {
				t.Error("resumed without a certificate where it is required")
			}
			client = clientConfig(0)
			cert := ca.Client(7)
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
			dial(t, required, client)
			if !dial(t, any, client) {
				t.Error("not resumed where it is trusted")
			}
			if _, err := tryDial(elsewhere, client); err == nil {
				t.Error("resumed where the certificate is not trusted")
			}
		})
	}
}

// TestHostileTickets checks that a ticket with any content causes at worst a full
// handshake.
func TestHostileTickets(t *testing.T) {
	for kind, s := range kinds() {
		t.Run(kind, func(t *testing.T) {
			config := serverConfig()
			s.Server(transport.Scope{}, config)
			for n := range 300 {
				ticket := make([]byte, n)
				if state, err := config.UnwrapSession(ticket, tls.ConnectionState{}); state != nil || err != nil {
					t.Errorf("%d bytes: %v, %v", n, state, err)
				}
			}
		})
	}
}

// TestTicketsDisabled checks that SessionTicketsDisabled disables sessions.
func TestTicketsDisabled(t *testing.T) {
	c := tlssession.NewCache(tlssession.Options{})
	config := serverConfig()
	config.SessionTicketsDisabled = true
	(&tlssession.Sessions{Cache: c}).Server(transport.Scope{}, config)
	addr, client := listen(t, config), clientConfig(0)
	dial(t, addr, client)
	if dial(t, addr, client) || c.Stats().Inserted != 0 {
		t.Error("resumed")
	}
}
