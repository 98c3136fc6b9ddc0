package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// newSetup returns the setup of a streamtype with a source of credentials.
func newSetup(t *testing.T, source transport.Credentials, st *policy.StreamType) *transport.Setup {
	t.Helper()
	env := transport.NewHost(transport.Config{Credentials: source})
	t.Cleanup(func() {
		env.Close()
		env.Release()
	})
	s, err := env.Setup(st, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSecret checks that a missing text, or one that is invalid in a header, is an error
// that does not quote it.
func TestSecret(t *testing.T) {
	errSource := errors.New("source is down")
	memory := new(credentials.Memory)
	memory.SetBlob(policy.BlobAuth, 1, "one")
	memory.SetBlob(policy.BlobAuth, 2, "")
	memory.SetBlob(policy.BlobAuth, 3, "secret\r\nx: y")
	memory.SetBlob(policy.BlobDeviceSerial, 0, "secret\x00")
	failing := credentials.Funcs{BlobFunc: func(context.Context, policy.Blob, int) (string, error) { return "secret", errSource }}
	for _, tt := range []struct {
		source transport.Credentials
		b      policy.Blob
		index  int
		text   string
		err    error
	}{
		{memory, policy.BlobAuth, 1, "one", nil},
		{memory, policy.BlobAuth, 0, "", transport.ErrNoCredentials},
		{memory, policy.BlobAuth, 2, "", transport.ErrNoCredentials},
		{memory, policy.BlobAuth, 3, "", transport.ErrBadCredentials},
		{memory, policy.BlobDeviceSerial, 0, "", transport.ErrBadCredentials},
		{memory, policy.BlobDeviceType, 0, "", transport.ErrNoCredentials},
		{new(credentials.Memory), policy.BlobAuth, 0, "", transport.ErrNoCredentials},
		{credentials.Funcs{}, policy.BlobAuth, 0, "", transport.ErrNoCredentials},
		{failing, policy.BlobAuth, 0, "", errSource},
		{nil, policy.BlobAuth, 0, "", transport.ErrNoCredentials},
	} {
		got, err := newSetup(t, tt.source, &policy.StreamType{}).Secret(t.Context(), tt.b, tt.index)
		if got != tt.text || !errors.Is(err, tt.err) || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%v %d is %q, %v", tt.b, tt.index, got, err)
		}
	}
}

// TestClientCertificate checks that there is no TLS without the certificate that
// the policy requires, or with an unusable one.
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
		{"none", nil, nil, transport.ErrNoCredentials},
		{"empty chain", &noDER, nil, transport.ErrNoCredentials},
		{"not a certificate", &broken, nil, transport.ErrBadCredentials},
		{"no key", &noKey, nil, transport.ErrBadCredentials},
		{"key of another certificate", &crossed, nil, transport.ErrBadCredentials},
		{"failing source", &good, errSource, errSource},
	} {
		source := credentials.Funcs{ClientCertificateFunc: func(_ context.Context, index int) (*tls.Certificate, error) {
			if index != 6 {
				t.Errorf("certificate %d requested, want 6", index)
			}
			return tt.cert, tt.err
		}}
		config, err := newSetup(t, source, &policy.StreamType{ClientCert: 7}).TLS(t.Context())
		if !errors.Is(err, tt.want) || (config == nil) != (tt.want != nil) {
			t.Errorf("%s: %v, %v", tt.name, config, err)
		}
	}
}
