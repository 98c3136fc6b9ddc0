package signing

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

// The key of RFC 7515, appendix A.3.
const rfcKey = `{"kty":"EC","crv":"P-256",
 "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
 "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
 "d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
}`

// TestKey reads and writes keys.
func TestKey(t *testing.T) {
	k, err := ParsePrivateKey([]byte(rfcKey))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`))
	if id := k.Public().ID(); id != encode(sum[:]) {
		t.Errorf("the thumbprint is %s", id)
	}
	private, err := k.JWK()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParsePrivateKey(private)
	if err != nil || !again.key.Equal(k.key) {
		t.Errorf("%s: %v", private, err)
	}
	public, err := ParsePublicKey(k.Public().JWK())
	if err != nil || public.ID() != k.Public().ID() || !bytes.Contains(k.Public().JWK(), []byte(public.ID())) {
		t.Errorf("%s: %v", k.Public().JWK(), err)
	}
}

// TestKeyErrors checks that bad keys are refused, without the secret in the error.
func TestKeyErrors(t *testing.T) {
	const secret = "jpsQnnGQmL"
	public := func(old, new string) string {
		s := strings.Replace(rfcKey, ` "d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"`, ` "use":"sig"`, 1)
		r := strings.Replace(s, old, new, 1)
		if old != "" && r == s {
			t.Errorf("%s is not in the key", old)
		}
		return r
	}
	if _, err := ParsePublicKey([]byte(public("", ""))); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                                     "not a JWK",
		"[]":                                   "not a JWK",
		"-----BEGIN PUBLIC KEY-----":           "not a JWK",
		"untrusted comment: minisign":          "not a JWK",
		public("EC", "RSA"):                    "kty",
		public("P-256", "P-521"):               "crv",
		public(`"crv":"P-256",`, ""):           "crv is missing",
		public(`"use":"sig"`, `"use":"enc"`):   "use",
		public(`"use":"sig"`, `"alg":"ES512"`): "alg",
		public(`"use":"sig"`, `"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"`): "occurs twice",
		public("f83O", "f83P"):      "not a point",
		public("VEU", "VEV"):        "x is not 32 bytes",
		public("VEU", "VEU="):       "x is not 32 bytes",
		public("VEU", `VE\u0055\n`): "x is not 32 bytes",
		public(`"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"`, "7"): "x is 7",
		public("", "") + "{}": "data after",
		rfcKey:                "private",
		strings.Repeat(" ", maxKeyFile) + public("", ""): "longer than",
	} {
		if _, err := ParsePublicKey([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	other, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	d, _ := other.key.Bytes()
	for text, want := range map[string]string{
		public("", ""): "public",
		strings.Replace(rfcKey, "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI", encode(d), 1):                     "does not belong",
		strings.Replace(rfcKey, "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI", encode(make([]byte, 32)), 1):      "not a private key",
		strings.Replace(rfcKey, `"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"`, fmt.Sprintf("[%q]", secret), 1): "want a string",
		strings.Replace(rfcKey, "E9LI", "E9L", 1):                                                                "d is not 32 bytes",
	} {
		if _, err := ParsePrivateKey([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
