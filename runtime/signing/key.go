package signing

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// coordinate is the size in bytes of a coordinate, of a private key, and of each
// half of a signature.
const coordinate = 32

// A PublicKey verifies signatures. It is an immutable ECDSA key on the curve P-256.
// The zero value is not a key.
type PublicKey struct {
	key *ecdsa.PublicKey
	id  string
}

// A PrivateKey makes signatures. It is immutable.
type PrivateKey struct{ key *ecdsa.PrivateKey }

// GenerateKey returns a new key.
func GenerateKey() (*PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &PrivateKey{key}, nil
}

// newPublicKey returns the key of two coordinates, which must be a point on the curve.
func newPublicKey(x, y []byte) (PublicKey, error) {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	if err != nil {
		return PublicKey{}, errors.New("x and y are not a point on the curve P-256")
	}
	k := PublicKey{key: key}
	sum := sha256.Sum256(k.appendJSON(nil))
	k.id = encode(sum[:])
	return k, nil
}

// ID returns the thumbprint of the key (RFC 7638), which is the kid of its
// signatures: 43 characters.
func (k PublicKey) ID() string { return k.id }

// point returns the coordinates of the key.
func (k PublicKey) point() (x, y []byte) {
	point, err := k.key.Bytes()
	if err != nil {
		panic("signing: a public key that is not on its curve") // newPublicKey has checked it
	}
	return point[1 : 1+coordinate], point[1+coordinate:]
}

// appendJSON appends the members that the thumbprint covers, which identify the key.
func (k PublicKey) appendJSON(b []byte) []byte {
	x, y := k.point()
	return fmt.Appendf(b, `{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, encode(x), encode(y))
}

// JWK returns the key as a JSON Web Key (RFC 7517).
func (k PublicKey) JWK() []byte {
	x, y := k.point()
	return fmt.Appendf(nil, `{"alg":"ES256","crv":"P-256","kid":%q,"kty":"EC","use":"sig","x":%q,"y":%q}`+"\n", k.id, encode(x), encode(y))
}

// Public returns the public key.
func (k *PrivateKey) Public() PublicKey {
	point, err := k.key.PublicKey.Bytes()
	if err != nil {
		panic("signing: a private key whose public key is not on its curve")
	}
	public, err := newPublicKey(point[1:1+coordinate], point[1+coordinate:])
	if err != nil {
		panic("signing: " + err.Error())
	}
	return public
}

// JWK returns the key as a JSON Web Key (RFC 7517), which must be kept secret.
func (k *PrivateKey) JWK() ([]byte, error) {
	d, err := k.key.Bytes()
	if err != nil {
		return nil, err
	}
	p := k.Public()
	x, y := p.point()
	return fmt.Appendf(nil, `{"alg":"ES256","crv":"P-256","d":%q,"kid":%q,"kty":"EC","use":"sig","x":%q,"y":%q}`+"\n", encode(d), p.id, encode(x), encode(y)), nil
}

// ParsePublicKey parses a JWK. It ignores a kid: the ID of a key is its thumbprint.
// It rejects a private key, which should not be stored where a public key suffices.
func ParsePublicKey(text []byte) (PublicKey, error) {
	m, public, err := parseJWK(text)
	if err != nil {
		return PublicKey{}, err
	}
	if m["d"] != nil {
		return PublicKey{}, errors.New("this is a private key: use the public one")
	}
	return public, nil
}

// ParsePrivateKey parses a JWK with the private key.
func ParsePrivateKey(text []byte) (*PrivateKey, error) {
	m, public, err := parseJWK(text)
	if err != nil {
		return nil, err
	}
	if m["d"] == nil {
		return nil, errors.New("this is a public key: use the private one")
	}
	d, err := number(m, "d")
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		return nil, errors.New("d is not a private key of the curve P-256")
	}
	if !key.PublicKey.Equal(public.key) {
		return nil, errors.New("d does not belong to x and y")
	}
	return &PrivateKey{key}, nil
}

// parseJWK parses the members of a JWK, and the public key.
func parseJWK(text []byte) (map[string]json.RawMessage, PublicKey, error) {
	if len(text) > maxKeyFile {
		return nil, PublicKey{}, fmt.Errorf("longer than %d bytes: not a JWK", maxKeyFile)
	}
	m, err := members(text)
	if err != nil {
		return nil, PublicKey{}, fmt.Errorf("not a JWK: %w", err)
	}
	for _, want := range []struct {
		name, value string
		required    bool
	}{{"kty", "EC", true}, {"crv", "P-256", true}, {"alg", "ES256", false}, {"use", "sig", false}} {
		raw, ok := m[want.name]
		var value string
		if !ok && !want.required {
			continue
		}
		if err := json.Unmarshal(raw, &value); err != nil || value != want.value {
			return nil, PublicKey{}, fmt.Errorf("%s is %s: only keys with %q are supported", want.name, orNothing(raw), want.value)
		}
	}
	x, err := number(m, "x")
	if err != nil {
		return nil, PublicKey{}, err
	}
	y, err := number(m, "y")
	if err != nil {
		return nil, PublicKey{}, err
	}
	public, err := newPublicKey(x, y)
	return m, public, err
}

func orNothing(raw json.RawMessage) string {
	if raw == nil {
		return "missing"
	}
	return string(raw)
}

// members returns the members of a JSON object. Each name may occur once.
func members(text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("want a JSON object")
	}
	m := map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		key := name.(string) // the Decoder accepts no other
		if _, ok := m[key]; ok {
			return nil, fmt.Errorf("%q occurs twice", key)
		}
		m[key] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("data after the object")
	}
	return m, nil
}

// number returns the integer in a member, as bytes.
func number(m map[string]json.RawMessage, name string) ([]byte, error) {
	var text string
	if err := json.Unmarshal(m[name], &text); err != nil {
		return nil, fmt.Errorf("%s is %s: want a string in base64url", name, describe(name, m[name]))
	}
	b, err := decode(text)
	if err != nil || len(b) != coordinate {
		return nil, fmt.Errorf("%s is not %d bytes in base64url without padding", name, coordinate)
	}
	return b, nil
}

// describe describes a value for an error, without the secret.
func describe(name string, raw json.RawMessage) string {
	if name == "d" {
		return "not usable"
	}
	return orNothing(raw)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode decodes base64url in its canonical form: without padding, line breaks, or
// bits after the last byte.
func decode(text string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if encode(b) != text { // DecodeString skips line breaks, and ignores unused bits
		return nil, errors.New("not the canonical base64url")
	}
	return b, nil
}
