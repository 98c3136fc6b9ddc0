package credentials_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestPrint checks that fmt and log/slog print no secret of a source, nor of a value that
// contains one.
func TestPrint(t *testing.T) {
	memory := new(credentials.Memory)
	memory.SetBlob(policy.BlobAuth, 0, "secret")
	key := teststream.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	dir := t.TempDir()
	write(t, dir, map[string]string{"auth.0": "secret", "client_cert.0": string(selfSigned(key)), "client_key.0": string(teststream.Must(x509.MarshalPKCS8PrivateKey(key)))})
	t.Setenv("T_AUTH_0", "secret")
	t.Setenv("T_CLIENT_CERT_0", pemOf("CERTIFICATE", selfSigned(key)))
	t.Setenv("T_CLIENT_KEY_0", pemOf("PRIVATE KEY", teststream.Must(x509.MarshalPKCS8PrivateKey(key))))
	files, env := &credentials.Files{Dir: dir}, &credentials.Env{Prefix: "T_"}
	funcs := credentials.Funcs{BlobFunc: memory.Blob}
	named := &credentials.Named{Lookup: func(name string) string { text, _ := os.ReadFile(filepath.Join(dir, name)); return string(text) }}
	if text := teststream.Must(named.Blob(t.Context(), policy.BlobAuth, 0)); text != "secret" {
		t.Errorf("Named has %q", text)
	}
	teststream.Must(named.ClientCertificate(t.Context(), 0))
	chain := credentials.Chain{memory, files, env, funcs}
	memory.SetClientCertificate(0, teststream.Must(files.ClientCertificate(t.Context(), 0)))
	for _, source := range chain[:3] { // fill the caches
		source.Blob(t.Context(), policy.BlobAuth, 0)
		source.ClientCertificate(t.Context(), 0)
	}
	private := []string{"secret", fmt.Sprintf("%x", "secret"), fmt.Sprint([]byte("secret")),
		new(big.Int).SetBytes(teststream.Must(key.Bytes())).String(), fmt.Sprintf("%x", teststream.Must(key.Bytes())), fmt.Sprint(teststream.Must(x509.MarshalPKCS8PrivateKey(key)))}
	o := runtime.Options{Credentials: chain}
	c, err := runtime.NewContext(&policy.Policy{}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Shutdown(context.Background())
	for _, v := range []any{memory, files, env, named, funcs, chain, credentials.HexAuth{Credentials: memory}, o, &o, c,
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
