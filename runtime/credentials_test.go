package runtime_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestCredentials checks that what is not there, or can not stand in a header,
// is not used.
func TestCredentials(t *testing.T) {
	errSource := errors.New("source is down")
	memory := new(credentials.Memory)
	memory.SetBlob(policy.BlobAuth, 1, "one")
	memory.SetBlob(policy.BlobAuth, 2, "")
	memory.SetBlob(policy.BlobAuth, 3, "secret\r\nx: y")
	memory.SetBlob(policy.BlobDeviceSerial, 0, "secret\x00")
	failing := credentials.Funcs{BlobFunc: func(context.Context, policy.Blob, int) (string, error) { return "secret", errSource }}
	for _, tt := range []struct {
		source runtime.Credentials
		b      policy.Blob
		index  int
		text   string
		err    error
	}{
		{memory, policy.BlobAuth, 1, "one", nil},
		{memory, policy.BlobAuth, 0, "", runtime.ErrNoCredentials},
		{memory, policy.BlobAuth, 2, "", runtime.ErrNoCredentials},
		{memory, policy.BlobAuth, 3, "", runtime.ErrBadCredentials},
		{memory, policy.BlobDeviceSerial, 0, "", runtime.ErrBadCredentials},
		{memory, policy.BlobDeviceType, 0, "", runtime.ErrNoCredentials},
		{new(credentials.Memory), policy.BlobAuth, 0, "", runtime.ErrNoCredentials},
		{credentials.Funcs{}, policy.BlobAuth, 0, "", runtime.ErrNoCredentials},
		{failing, policy.BlobAuth, 0, "", errSource},
		{nil, policy.BlobAuth, 0, "", runtime.ErrNoCredentials},
	} {
		got, err := "", error(nil)
		withLink(t, tt.source, 0, func(l transport.Link) { got, err = l.Blob(tt.b, tt.index) })
		if got != tt.text || !errors.Is(err, tt.err) || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%v %d is %q, %v", tt.b, tt.index, got, err)
		}
	}
}

// withLink runs f in an attempt.
func withLink(t *testing.T, source runtime.Credentials, clientCert uint8, f func(transport.Link)) {
	t.Helper()
	done := make(chan struct{})
	c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{
		{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1, ClientCert: clientCert}}}, runtime.Options{
		Credentials: source,
		Transports: []transport.Transport{&fake{func(_ context.Context, l transport.Link) error {
			f(l)
			close(done)
			return errFake
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.NewStream("s", runtime.Handlers{})
	if err != nil {
		t.Fatal(err)
	}
	s.Connect()
	<-done
}

// TestCloseFromCredentials checks that Close does not wait for the call that it
// comes from.
func TestCloseFromCredentials(t *testing.T) {
	for _, clientCert := range []uint8{0, 1} {
		var c *runtime.Context
		source := credentials.Funcs{
			BlobFunc:              func(context.Context, policy.Blob, int) (string, error) { return "x", c.Close() },
			ClientCertificateFunc: func(context.Context, int) (*tls.Certificate, error) { return nil, c.Close() },
		}
		withLink(t, source, clientCert, func(l transport.Link) {
			c = l.Context()
			returned := make(chan struct{})
			go func() {
				defer close(returned)
				if clientCert == 0 {
					l.Blob(policy.BlobAuth, 0)
				} else {
					l.TLSConfig()
				}
			}()
			select {
			case <-returned:
			case <-time.After(5 * time.Second):
				t.Error("Close hangs")
			}
		})
	}
}

// TestClientCertificate checks that no TLS is spoken without the certificate
// that the policy wants, or with one that is no good.
func TestClientCertificate(t *testing.T) {
	owner := testcert.New("clients")
	good, other := *owner.Client(1), *owner.Client(2)
	crossed, noKey, noDER, broken := good, good, good, good
	crossed.PrivateKey = other.PrivateKey
	noKey.PrivateKey = nil
	noDER.Certificate = nil
	broken.Certificate = [][]byte{[]byte("no certificate")}
	errSource := errors.New("source is down")
	for _, tt := range []struct {
		name string
		cert *tls.Certificate
		err  error // of the source
		want error
	}{
		{"good", &good, nil, nil},
		{"none", nil, nil, runtime.ErrNoCredentials},
		{"no certificate in it", &noDER, nil, runtime.ErrNoCredentials},
		{"not a certificate", &broken, nil, runtime.ErrBadCredentials},
		{"no key", &noKey, nil, runtime.ErrBadCredentials},
		{"another's key", &crossed, nil, runtime.ErrBadCredentials},
		{"an error", &good, errSource, errSource},
	} {
		source := credentials.Funcs{ClientCertificateFunc: func(_ context.Context, index int) (*tls.Certificate, error) {
			if index != 6 {
				t.Errorf("asked for certificate %d", index)
			}
			return tt.cert, tt.err
		}}
		withLink(t, source, 7, func(l transport.Link) {
			config, err := l.TLSConfig()
			if !errors.Is(err, tt.want) || (config == nil) != (tt.want != nil) {
				t.Errorf("%s: %v, %v", tt.name, config, err)
			}
		})
	}
}

// TestSecretsArePrivate checks that credentials do not get out by the usual
// ways of printing.
func TestSecretsArePrivate(t *testing.T) {
	memory := new(credentials.Memory)
	memory.SetBlob(policy.BlobAuth, 0, "secret")
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	dir := t.TempDir()
	write(t, dir, map[string]string{"auth.0": "secret", "client_cert.0": string(selfSigned(key)), "client_key.0": string(must(x509.MarshalPKCS8PrivateKey(key)))})
	t.Setenv("T_AUTH_0", "secret")
	t.Setenv("T_CLIENT_CERT_0", pemOf("CERTIFICATE", selfSigned(key)))
	t.Setenv("T_CLIENT_KEY_0", pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))))
	files, env := &credentials.Files{Dir: dir}, &credentials.Env{Prefix: "T_"}
	funcs := credentials.Funcs{BlobFunc: memory.Blob}
	chain := credentials.Chain{memory, files, env, funcs}
	memory.SetClientCertificate(0, must(files.ClientCertificate(t.Context(), 0)))
	for _, source := range chain[:3] { // what is kept of them is in them
		source.Blob(t.Context(), policy.BlobAuth, 0)
		source.ClientCertificate(t.Context(), 0)
	}
	private := []string{"secret", fmt.Sprintf("%x", "secret"), fmt.Sprint([]byte("secret")),
		new(big.Int).SetBytes(must(key.Bytes())).String(), fmt.Sprintf("%x", must(key.Bytes())), fmt.Sprint(must(x509.MarshalPKCS8PrivateKey(key)))}
	o := runtime.Options{Credentials: chain}
	c, err := runtime.NewContext(&policy.Policy{}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, v := range []any{memory, files, env, funcs, chain, credentials.HexAuth{Credentials: memory}, o, &o, c,
		struct{ m *credentials.Memory }{memory}, struct{ f *credentials.Files }{files}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%q", "%x"} {
			s := fmt.Sprintf(verb, v)
			for _, p := range private {
				if strings.Contains(s, p) {
					t.Errorf("%s of a %T prints %q: %s", verb, v, p, s)
				}
			}
		}
	}
	var text strings.Builder
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "creds", chain, "o", o)
	slog.New(slog.NewJSONHandler(&text, nil)).Info("x", "creds", chain)
	if strings.Contains(text.String(), "secret") {
		t.Errorf("slog prints the token: %s", text.String())
	}
}
