package credentials_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// write writes files into a folder.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFiles checks what Files reads, when, and what it rejects.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"auth.0": "secret\r\n\n", "auth.1": " a b \nc\n", "auth.2": "\n", "auth.3": strings.Repeat("s", 256<<10+1),
		"device_serial": strings.Repeat("s", 256<<10), "aws_secret.3": "aws",
	})
	if err := os.Mkdir(filepath.Join(dir, "firmware_version"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(filepath.Join(dir, "device_type")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("auth.0", filepath.Join(dir, "mqtt_password")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("mqtt_username", filepath.Join(dir, "mqtt_username")); err != nil {
		t.Fatal(err)
	}
	f := &credentials.Files{Dir: dir}
	for _, tt := range []struct {
		b     policy.Blob
		index int
		text  string
		err   error
	}{
		{policy.BlobAuth, 0, "secret", nil},
		{policy.BlobAuth, 1, " a b \nc", nil}, // Setup.Secret refuses it
		{policy.BlobAuth, 2, "", nil},         // Setup.Secret counts it as missing
		{policy.BlobAuth, 3, "", transport.ErrBadCredentials},
		{policy.BlobAuth, 4, "", transport.ErrNoCredentials},
		{policy.BlobDeviceSerial, 0, strings.Repeat("s", 256<<10), nil},
		{policy.BlobDeviceSerial, 1, "", transport.ErrNoCredentials},
		{policy.BlobFirmwareVersion, 0, "", transport.ErrBadCredentials},
		{policy.BlobDeviceType, 0, "", transport.ErrBadCredentials},
		{policy.BlobMQTTPassword, 0, "secret", nil},
		{policy.BlobMQTTUsername, 0, "", syscall.ELOOP},
		{policy.BlobMQTTClientID, 0, "", transport.ErrNoCredentials},
		{policy.BlobAWSSecret, 3, "aws", nil},
	} {
		if text, err := f.Blob(t.Context(), tt.b, tt.index); text != tt.text || !errors.Is(err, tt.err) {
			t.Errorf("%v %d is %q, %v, want %q, %v", tt.b, tt.index, text, err, tt.text, tt.err)
		}
	}
	if _, err := new(credentials.Files).Blob(t.Context(), policy.BlobAuth, 0); !errors.Is(err, transport.ErrNoCredentials) {
		t.Errorf("no Dir: %v", err)
	}
}

// TestFilesSetBlob checks that SetBlob and other programs can replace a file.
func TestFilesSetBlob(t *testing.T) {
	dir := t.TempDir()
	f := &credentials.Files{Dir: dir}
	write(t, dir, map[string]string{"auth.0": "old"})
	if err := os.Mkdir(filepath.Join(dir, "firmware_version"), 0o700); err != nil {
		t.Fatal(err)
	}
	if text, err := f.Blob(t.Context(), policy.BlobAuth, 0); text != "old" {
		t.Errorf("the file is %q, %v", text, err)
	}
	write(t, dir, map[string]string{"auth.0": "new"})
	if text, err := f.Blob(t.Context(), policy.BlobAuth, 0); text != "new" {
		t.Errorf("a changed file is %q, %v", text, err)
	}
	if err := f.SetBlob(policy.BlobAuth, 0, "kept"); err != nil {
		t.Error(err)
	}
	if text, err := f.Blob(t.Context(), policy.BlobAuth, 0); text != "kept" {
		t.Errorf("after SetBlob the text is %q, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "auth.0")); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file has %v, %v", info.Mode(), err)
	}
	if err := f.SetBlob(policy.BlobAuth, 4, "secret"); !errors.Is(err, transport.ErrNoCredentials) {
		t.Errorf("SetBlob without a file name: %v", err)
	}
	if err := f.SetBlob(policy.BlobFirmwareVersion, 0, "secret"); err == nil || strings.Contains(err.Error(), "secret") { // a directory
		t.Errorf("SetBlob over a directory: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); left != nil {
		t.Errorf("temporary files remain: %v", left)
	}
}

// TestFilesExposed checks which files others may read.
func TestFilesExposed(t *testing.T) {
	dir := t.TempDir()
	f := &credentials.Files{Dir: dir}
	write(t, dir, map[string]string{"auth.0": "secret", "auth.1": "secret"})
	if err := os.Symlink("auth.0", filepath.Join(dir, "mqtt_password")); err != nil {
		t.Fatal(err)
	}
	if got := f.Exposed(); got != nil {
		t.Errorf("files with mode 0600 are exposed: %v", got)
	}
	for _, name := range []string{"auth.0", "client_key.7", "README"} {
		write(t, dir, map[string]string{name: "x"})
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprint(f.Exposed()), fmt.Sprint([]string{dir + "/auth.0", dir + "/client_key.7", dir + "/mqtt_password"}); got != want {
		t.Errorf("exposed are %v, want %v", got, want)
	}
}

// pemOf returns a PEM block.
func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// selfSigned returns a certificate for a key.
func selfSigned(key crypto.Signer) []byte {
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1)}
	return teststream.Must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))
}

// TestCertificateSources checks each encoding of a certificate and its key, in
// files and in the environment, and that unusable ones are refused.
func TestCertificateSources(t *testing.T) {
	ec := teststream.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	rsaKey := teststream.Must(rsa.GenerateKey(rand.Reader, 2048))
	ecCert, rsaCert := selfSigned(ec), selfSigned(rsaKey)
	pkcs8, sec1 := teststream.Must(x509.MarshalPKCS8PrivateKey(ec)), teststream.Must(x509.MarshalECPrivateKey(ec))
	for _, tt := range []struct {
		name, cert, key string
		chain           int
		err             error
	}{
		{"PEM, PKCS 8", pemOf("CERTIFICATE", ecCert), pemOf("PRIVATE KEY", pkcs8), 1, nil},
		{"PEM, a chain with text between", "leaf\n" + pemOf("CERTIFICATE", ecCert) + "CA\n" + pemOf("CERTIFICATE", rsaCert), pemOf("EC PARAMETERS", []byte{6, 1, 1}) + pemOf("EC PRIVATE KEY", sec1), 2, nil},
		{"PEM, PKCS 1", pemOf("CERTIFICATE", rsaCert), pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), 1, nil},
		{"DER, PKCS 8", string(ecCert), string(pkcs8), 1, nil},
		{"DER, SEC 1", string(ecCert), string(sec1), 1, nil},
		{"DER, PKCS 1", string(rsaCert), string(x509.MarshalPKCS1PrivateKey(rsaKey)), 1, nil},
		{"certificate and key in both", pemOf("PRIVATE KEY", pkcs8) + pemOf("CERTIFICATE", ecCert), pemOf("CERTIFICATE", ecCert) + pemOf("PRIVATE KEY", pkcs8), 1, nil},
		{"key of another certificate", string(ecCert), string(x509.MarshalPKCS1PrivateKey(rsaKey)), 0, transport.ErrBadCredentials},
		{"encrypted", string(ecCert), pemOf("ENCRYPTED PRIVATE KEY", []byte("secret")), 0, transport.ErrBadCredentials},
		{"no certificate", "secret", string(pkcs8), 0, transport.ErrBadCredentials},
		{"no key", string(ecCert), "secret", 0, transport.ErrBadCredentials},
		{"too long", string(ecCert), strings.Repeat("s", 256<<10+1), 0, transport.ErrBadCredentials},
		{"certificate alone", string(ecCert), "", 0, transport.ErrBadCredentials},
		{"key alone", "", string(pkcs8), 0, transport.ErrBadCredentials},
		{"nothing", "", "", 0, transport.ErrNoCredentials},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"client_cert.254": tt.cert, "client_key.254": tt.key, "server_cert.my-web": tt.cert, "server_key.my-web": tt.key} {
			if text != "" {
				write(t, dir, map[string]string{name: text})
			}
		}
		sources := []transport.Credentials{&credentials.Files{Dir: dir}}
		if !strings.ContainsRune(tt.cert+tt.key, 0) && tt.name != "too long" {
			t.Setenv("T_CLIENT_CERT_254", tt.cert)
			t.Setenv("T_CLIENT_KEY_254", tt.key)
			t.Setenv("T_SERVER_CERT_MY_WEB", tt.cert)
			t.Setenv("T_SERVER_KEY_MY_WEB", tt.key)
			sources = append(sources, &credentials.Env{Prefix: "T_"})
		}
		for _, source := range sources {
			cert, err := source.ClientCertificate(t.Context(), 254)
			if !errors.Is(err, tt.err) || err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%s, %T: %v, want %v", tt.name, source, err, tt.err)
			}
			if (cert == nil) != (tt.err != nil) || cert != nil && len(cert.Certificate) != tt.chain {
				t.Errorf("%s, %T: %v", tt.name, source, cert)
			}
			if again, _ := source.ClientCertificate(t.Context(), 254); again != cert {
				t.Errorf("%s, %T: the same text was parsed again", tt.name, source)
			}
			server, err := source.ServerCertificate(t.Context(), "my-web")
			if !errors.Is(err, tt.err) || (server == nil) != (cert == nil) || server != nil && !bytes.Equal(server.Certificate[0], cert.Certificate[0]) {
				t.Errorf("%s, %T: the certificate of a server: %v", tt.name, source, err)
			}
			for _, name := range []string{"", "web", "../my-web", "my-web/.", "a\x00"} {
				if _, err := source.ServerCertificate(t.Context(), name); !errors.Is(err, transport.ErrNoCredentials) {
					t.Errorf("%s, %T: the certificate of server %q: %v", tt.name, source, name, err)
				}
			}
			if _, err := source.ClientCertificate(t.Context(), 255); !errors.Is(err, transport.ErrNoCredentials) {
				t.Errorf("%s, %T: certificate 255: %v", tt.name, source, err)
			}
		}
	}
}

// TestCertificateRenewed checks that a changed certificate needs its own key.
func TestCertificateRenewed(t *testing.T) {
	ec := teststream.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	rsaKey := teststream.Must(rsa.GenerateKey(rand.Reader, 2048))
	rsaCert := selfSigned(rsaKey)
	dir := t.TempDir()
	f := &credentials.Files{Dir: dir}
	write(t, dir, map[string]string{"client_cert.0": string(selfSigned(ec)), "client_key.0": string(teststream.Must(x509.MarshalPKCS8PrivateKey(ec)))})
	old := teststream.Must(f.ClientCertificate(t.Context(), 0))
	write(t, dir, map[string]string{"client_cert.0": string(rsaCert)})
	if _, err := f.ClientCertificate(t.Context(), 0); !errors.Is(err, transport.ErrBadCredentials) {
		t.Errorf("new certificate with the old key: %v", err)
	}
	write(t, dir, map[string]string{"client_key.0": string(x509.MarshalPKCS1PrivateKey(rsaKey))})
	if cert := teststream.Must(f.ClientCertificate(t.Context(), 0)); cert == old || !bytes.Equal(cert.Certificate[0], rsaCert) {
		t.Error("the certificate of the old files is returned")
	}
}

// TestSources checks Env, Chain and HexAuth.
func TestSources(t *testing.T) {
	t.Setenv("T_AUTH_0", "token")
	t.Setenv("T_DEVICE_SERIAL", "serial")
	t.Setenv("T_AUTH_1", "")
	env := &credentials.Env{Prefix: "T_"}
	memory := new(credentials.Memory)
	memory.SetBlob(policy.BlobAuth, 0, "later")
	memory.SetBlob(policy.BlobAuth, 1, "second\xff")
	memory.SetClientCertificate(3, &tls.Certificate{})
	errSource := errors.New("source is down")
	failing := credentials.Funcs{
		BlobFunc:              func(context.Context, policy.Blob, int) (string, error) { return "", errSource },
		ClientCertificateFunc: func(context.Context, int) (*tls.Certificate, error) { return nil, errSource },
	}
	empty := credentials.Funcs{BlobFunc: func(context.Context, policy.Blob, int) (string, error) { return "", nil }}
	for _, tt := range []struct {
		name   string
		source transport.Credentials
		b      policy.Blob
		index  int
		text   string
		err    error
	}{
		{"a variable", env, policy.BlobAuth, 0, "token", nil},
		{"a variable without an index", env, policy.BlobDeviceSerial, 0, "serial", nil},
		{"an empty variable", env, policy.BlobAuth, 1, "", transport.ErrNoCredentials},
		{"no variable", env, policy.BlobAuth, 2, "", transport.ErrNoCredentials},
		{"another prefix", &credentials.Env{}, policy.BlobAuth, 0, "", transport.ErrNoCredentials},
		{"the first of a chain", credentials.Chain{env, memory}, policy.BlobAuth, 0, "token", nil},
		{"the second", credentials.Chain{env, empty, memory}, policy.BlobAuth, 1, "second\xff", nil},
		{"none", credentials.Chain{env, memory}, policy.BlobAuth, 2, "", transport.ErrNoCredentials},
		{"no source", credentials.Chain{}, policy.BlobAuth, 0, "", transport.ErrNoCredentials},
		{"a failing source", credentials.Chain{failing, memory}, policy.BlobAuth, 0, "", errSource},
		{"a failing source behind another", credentials.Chain{memory, failing}, policy.BlobAuth, 0, "later", nil},
		{"hex", credentials.HexAuth{memory}, policy.BlobAuth, 1, "7365636f6e64ff", nil},
		{"hex of none", credentials.HexAuth{memory}, policy.BlobAuth, 3, "", transport.ErrNoCredentials},
		{"hex is for tokens", credentials.HexAuth{env}, policy.BlobDeviceSerial, 0, "serial", nil},
	} {
		if text, err := tt.source.Blob(t.Context(), tt.b, tt.index); text != tt.text || !errors.Is(err, tt.err) {
			t.Errorf("%s: %q, %v, want %q, %v", tt.name, text, err, tt.text, tt.err)
		}
	}
	for _, tt := range []struct {
		source transport.Credentials
		err    error
	}{
		{credentials.Chain{env, memory}, nil},
		{credentials.HexAuth{memory}, nil},
		{credentials.Chain{env}, transport.ErrNoCredentials},
		{credentials.Chain{failing, memory}, errSource},
	} {
		if cert, err := tt.source.ClientCertificate(t.Context(), 3); !errors.Is(err, tt.err) || (cert == nil) != (tt.err != nil) {
			t.Errorf("%v, %v", cert, err)
		}
	}
}

// TestBasicAuth checks the examples of RFC 7617, and names that cannot be encoded.
func TestBasicAuth(t *testing.T) {
	for _, tt := range []struct {
		user, password, want string
	}{
		{"Aladdin", "open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
		{"test", "123\u00a3", "dGVzdDoxMjPCow=="},
		{"", "a:b", "OmE6Yg=="},
		{"a:b", "secret", ""},
		{"a\n", "secret", ""},
		{"a", "secret\x00", ""},
	} {
		got, err := credentials.BasicAuth(tt.user, tt.password)
		if got != tt.want || errors.Is(err, transport.ErrBadCredentials) != (tt.want == "") || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q, %q: %q, %v", tt.user, tt.password, got, err)
		}
	}
}
