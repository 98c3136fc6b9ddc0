package minisig

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/signing"
)

var policy = []byte(`{ "release": "7" }`)

// signature returns a key and a signature of policy.
func signature(t testing.TB, file string) (public, private, sig []byte) {
	t.Helper()
	private, public, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	m := signing.NewManifest(policy)
	m.Product, m.Version, m.IssuedAt, m.NotAfter = "station", 7, time.Unix(1800000000, 0), time.Unix(1900000000, 0)
	if sig, err = Sign(private, policy, file, m); err != nil {
		t.Fatal(err)
	}
	return public, private, sig
}

// TestVerify checks that changed texts are rejected.
func TestVerify(t *testing.T) {
	public, private, sig := signature(t, "dir/version:9\tproduct:x\n.json")
	m, err := Verify(public, policy, sig)
	if err != nil || m.Product != "station" || m.Version != 7 || m.NotAfter.Unix() != 1900000000 {
		t.Errorf("%+v, %v", m, err)
	}
	other, _, _ := signature(t, "policy.json")
	replace := func(old, new string) []byte {
		if !bytes.Contains(sig, []byte(old)) {
			t.Errorf("%q is not in the signature", old)
		}
		return bytes.Replace(sig, []byte(old), []byte(new), 1)
	}
	for name, tt := range map[string]struct {
		key, policy, sig []byte
		want             error
	}{
		"another policy":  {public, []byte("{}"), sig, signing.ErrSignature},
		"another key":     {other, policy, sig, signing.ErrUnknownKey},
		"another version": {public, policy, replace("\tversion:7", "\tversion:8"), signing.ErrSignature},
		"another product": {public, policy, replace("\tproduct:station", "\tproduct:gateway"), signing.ErrSignature},
		"cut off":         {public, policy, sig[:len(sig)/2], signing.ErrMalformed},
		"empty":           {public, policy, nil, signing.ErrMalformed},
		"no key":          {private, policy, sig, nil},
	} {
		if _, err := Verify(tt.key, tt.policy, tt.sig); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := Sign(public, policy, "policy.json", m); err == nil {
		t.Error("signed with a public key")
	}
	m.Product = "a\tversion:9"
	if _, err := Sign(private, policy, "policy.json", m); err == nil {
		t.Error("signed a product that looks like a version")
	}
}

// FuzzVerify checks that only the signature, in any spelling of its untrusted comment, is
// accepted.
func FuzzVerify(f *testing.F) {
	public, _, sig := signature(f, "policy.json")
	trusted := strings.Split(string(sig), "\n")[2]
	f.Add(sig)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Verify(public, policy, b); err == nil && !bytes.Contains(b, []byte(trusted)) {
			t.Errorf("accepted: %s", b)
		}
	})
}
