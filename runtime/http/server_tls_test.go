package http_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// writePair writes the certificate of streamtype "web", with a chain, and its key.
func writePair(t *testing.T, dir string, cert tls.Certificate, chain ...[]byte) {
	t.Helper()
	var text bytes.Buffer
	for _, der := range append([][]byte{cert.Certificate[0]}, chain...) {
		pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	for name, content := range map[string][]byte{
		"server_cert.web": text.Bytes(),
		"server_key.web":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: testcert.KeyDER(cert)}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// withTLS makes a streamtype use TLS.
func withTLS(st *policy.StreamType) { st.TLS = true }

// TestServerCertificateReload renews the certificate of a server, whose chain has an
// intermediate, while a client stays connected.
func TestServerCertificateReload(t *testing.T) {
	middle := system.Intermediate("middle")
	issue := func() tls.Certificate {
		return middle.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")
	}
	dir := t.TempDir()
	first, second := issue(), issue()
	writePair(t, dir, first, middle.Cert.Raw)
	log := make(lines, 10)
	c := teststream.NewContext(t, runtime.Options{
		Transports: []transport.Transport{sshttp.New(sshttp.Server)}, Logger: slog.New(slog.NewTextHandler(log, nil)), Credentials: &credentials.Files{Dir: dir},
	}, serverType(policy.ProtocolH2, withTLS))
	k := &clients{on: teststream.Actions{"TXN": func(s *runtime.Stream) runtime.Result { s.Ack(0); return runtime.OK }}}
	s, err := c.NewStream("web", runtime.Handlers{}, runtime.WithClients(k.accept))
	if err != nil {
		t.Fatal(err)
	}
	connect := func() *http.Client {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: system.Pool()}, ForceAttemptHTTP2: true}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	get := func(client *http.Client, want tls.Certificate) {
		t.Helper()
		resp, err := client.Get("https://" + s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.ProtoMajor != 2 || !bytes.Equal(resp.TLS.PeerCertificates[0].Raw, want.Certificate[0]) {
			t.Errorf("HTTP/%d, certificate %v", resp.ProtoMajor, resp.TLS.PeerCertificates[0].SerialNumber)
		}
	}
	kept := connect()
	get(kept, first)
	writePair(t, dir, second, middle.Cert.Raw)
	get(kept, first) // the connection is still there
	get(connect(), second)
	if len(log) > 0 {
		t.Errorf("logged %s", <-log)
	}
	for range 2 {
		if err := os.WriteFile(filepath.Join(dir, "server_key.web"), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		get(connect(), second)
	}
	if text := <-log; !strings.Contains(text, "cannot be renewed") || len(log) > 0 {
		t.Errorf("logged %q and %d lines", text, len(log))
	}
	writePair(t, dir, first, middle.Cert.Raw)
	get(connect(), first)
}

// TestServerCertificateErrors checks that a server with an unusable certificate opens no
// port.
func TestServerCertificateErrors(t *testing.T) {
	own, other := system.Certify(testcert.Key(), time.Now(), "127.0.0.1"), system.Certify(testcert.Key(), time.Now(), "127.0.0.1")
	in := func(cert, key []byte) func(*policy.StreamType) {
		return func(st *policy.StreamType) {
			st.TLS = true
			if cert != nil {
				st.ServerCert = &policy.Cert{Name: "cert", DER: string(cert)}
			}
			if key != nil {
				st.ServerKey = &policy.Cert{Name: "key", DER: string(key)}
			}
		}
	}
	memory := new(credentials.Memory)
	memory.SetServerCertificate("web", &tls.Certificate{Certificate: own.Certificate, PrivateKey: other.PrivateKey})
	keyless := new(credentials.Memory)
	keyless.SetServerCertificate("web", &tls.Certificate{Certificate: own.Certificate})
	empty := credentials.Funcs{}
	cert, key := own.Certificate[0], testcert.KeyDER(own)
	for _, tt := range []struct {
		name   string
		change func(*policy.StreamType)
		creds  transport.Credentials
		want   error
	}{
		{"none", withTLS, nil, transport.ErrNoCredentials},
		{"no key", in(cert, nil), nil, transport.ErrNoCredentials},
		{"no certificate", in(nil, key), nil, transport.ErrNoCredentials},
		{"another key", in(cert, testcert.KeyDER(other)), nil, transport.ErrBadCredentials},
		{"not a certificate", in([]byte("x"), key), nil, transport.ErrBadCredentials},
		{"not a key", in(cert, cert), nil, transport.ErrBadCredentials},
		{"another key of the credentials", in(cert, key), memory, transport.ErrBadCredentials},
		{"no key of the credentials", in(cert, key), keyless, transport.ErrBadCredentials},
		{"credentials without the certificate", withTLS, empty, transport.ErrNoCredentials},
		{"the policy's after those of the credentials", in(cert, key), empty, nil},
	} {
		c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{sshttp.New(sshttp.Server)}, Credentials: tt.creds}, serverType(policy.ProtocolH1, tt.change))
		var tr teststream.Trace
		s, err := c.NewStream("web", handlers(&tr))
		if !errors.Is(err, tt.want) || (s == nil) != (tt.want != nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if tt.want != nil {
			tr.Want(t, "")
		}
	}
	_, err := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{sshttp.New(sshttp.Server)}}, serverType(policy.ProtocolH1)).
		NewStream("web", runtime.Handlers{}, runtime.WithClientCertificates(runtime.VerifyPeer, nil))
	if !errors.Is(err, transport.ErrUnsupported) {
		t.Errorf("client certificates without TLS: %v", err)
	}
}

// TestServerClientCertificates verifies clients in each mode, over h1 and h2.
func TestServerClientCertificates(t *testing.T) {
	cert := system.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")
	trusted, stranger := testcert.New("clients"), testcert.New("strangers")
	const refused = "refused"
	for _, tt := range []struct {
		name         string
		o            []runtime.StreamOption
		none, of, by string // results without a certificate, with one of a client, and with one of a stranger
	}{
		{"no option", nil, "0", "0", "0"},
		{"none", []runtime.StreamOption{runtime.WithClientCertificates(runtime.VerifyNone, trusted.Pool())}, "0", "0", "0"},
		{"query", []runtime.StreamOption{runtime.WithClientCertificates(runtime.QueryPeer, trusted.Pool())}, "0 missing", "1", "1 invalid"},
		{"auto", []runtime.StreamOption{runtime.WithClientCertificates(runtime.VerifyAuto, trusted.Pool())}, "0 missing", "1", "1 invalid"},
		{"verify", []runtime.StreamOption{runtime.WithClientCertificates(runtime.VerifyPeer, trusted.Pool())}, refused, "1", refused},
	} {
		for _, p := range protocols {
			t.Run(tt.name+" "+p.String(), func(t *testing.T) {
				k := &clients{on: teststream.Actions{"TXN": text(0, func(s *runtime.Stream) string {
					peer := s.Peer()
					out := string(rune('0' + len(peer.TLS.PeerCertificates)))
					if _, ok := errors.AsType[x509.UnknownAuthorityError](peer.VerifyError); ok {
						return out + " invalid"
					}
					if errors.Is(peer.VerifyError, transport.ErrNoPeerCertificate) {
						return out + " missing"
					}
					return out
				})}}
				s := k.listen(t, serverType(p, withTLS, func(st *policy.StreamType) {
					st.ServerCert = &policy.Cert{Name: "cert", DER: string(cert.Certificate[0])}
					st.ServerKey = &policy.Cert{Name: "key", DER: string(testcert.KeyDER(cert))}
				}), tt.o...)
				for i, want := range []string{tt.none, tt.of, tt.by} {
					config := &tls.Config{RootCAs: system.Pool(), ClientSessionCache: tls.NewLRUClientSessionCache(1)}
					if own := []*testcert.Authority{nil, trusted, stranger}[i]; own != nil {
						client := own.Client(7)
						config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return client, nil }
					}
					for range 2 { // the second time the session is resumed
						tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: p == policy.ProtocolH2}
						got := refused
						if resp, err := (&http.Client{Transport: tr}).Get("https://" + s.Addr().String()); err == nil {
							body, _ := io.ReadAll(resp.Body)
							resp.Body.Close()
							got = string(body)
						}
						tr.CloseIdleConnections()
						if got != want {
							t.Errorf("certificate %d: %s, want %s", i, got, want)
						}
					}
				}
			})
		}
	}
}
