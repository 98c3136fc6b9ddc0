package signing

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Rotation replaces the set of trusted keys. It is valid if enough keys of the
// old set, and enough of the new one, have signed it.
type Rotation struct {
	Product   string
	Serial    uint64      // the serial of the old set plus 1
	Version   uint64      // the policy version from which devices continue
	IssuedAt  time.Time   // the time from which devices continue
	Threshold int         // number of signatures that the next rotation needs
	Keys      []PublicKey // the new set
}

// Sign returns the rotation as a JWS, signed by one key. In a bundle, a rotation
// consists of the lines of all its keys.
func (r Rotation) Sign(k *PrivateKey) (string, error) {
	if err := r.check(); err != nil {
		return "", err
	}
	return k.sign(typeRotation, r.payload())
}

// ParseRotation parses the lines of one rotation without checking a signature. It
// is for tools that add a signature.
func ParseRotation(text []byte) (Rotation, error) {
	all, err := parseBundle(text)
	if err != nil {
		return Rotation{}, err
	}
	for i, s := range all {
		if s.typ != typeRotation || !bytes.Equal(s.payload, all[0].payload) {
			return Rotation{}, malformed("not the lines of one rotation")
		}
		if slices.ContainsFunc(all[:i], func(other statement) bool { return other.kid == s.kid }) {
			return Rotation{}, malformed("key %s has signed a rotation twice", s.kid)
		}
	}
	return parseRotation(all[0].payload)
}

type rotationJSON struct {
	Product   string    `json:"product"`
	Serial    uint64    `json:"serial"`
	Version   uint64    `json:"version"`
	IssuedAt  int64     `json:"issued_at"`
	Threshold int       `json:"threshold"`
	Keys      []keyJSON `json:"keys"`
}

type keyJSON struct {
	Crv string `json:"crv"`
	Kty string `json:"kty"`
	X   string `json:"x"`
	Y   string `json:"y"`
}

// payload returns the canonical form of the rotation.
func (r Rotation) payload() []byte {
	j := rotationJSON{r.Product, r.Serial, r.Version, r.IssuedAt.Unix(), r.Threshold, nil}
	for _, k := range r.Keys {
		x, y := k.point()
		j.Keys = append(j.Keys, keyJSON{"P-256", "EC", encode(x), encode(y)})
	}
	return marshal(j)
}

// check checks the values.
func (r Rotation) check() error {
	if err := CheckProduct(r.Product); err != nil {
		return err
	}
	if err := checkVersion(r.Version); err != nil {
		return err
	}
	if r.Serial < 1 || r.Serial > MaxVersion {
		return malformed("the serial %d is not from 1 to %d", r.Serial, uint64(MaxVersion))
	}
	if err := checkTime("issued_at", r.IssuedAt); err != nil {
		return err
	}
	return checkKeys(r.Keys, r.Threshold)
}

// checkKeys checks a set of keys.
func checkKeys(keys []PublicKey, threshold int) error {
	if len(keys) < 1 || len(keys) > MaxKeys {
		return malformed("%d keys: want 1 to %d", len(keys), MaxKeys)
	}
	for i, k := range keys {
		if k.key == nil {
			return malformed("an empty key")
		}
		if slices.ContainsFunc(keys[:i], func(other PublicKey) bool { return other.id == k.id }) {
			return malformed("key %s occurs twice", k.id)
		}
	}
	if threshold < 1 || threshold > len(keys) {
		return malformed("a threshold of %d with %d keys", threshold, len(keys))
	}
	return nil
}

// parseRotation parses a payload.
func parseRotation(payload []byte) (Rotation, error) {
	var j rotationJSON
	if err := json.Unmarshal(payload, &j); err != nil {
		return Rotation{}, malformed("the payload of the rotation: %v", err)
	}
	if len(j.Keys) > MaxKeys {
		return Rotation{}, malformed("%d keys: want 1 to %d", len(j.Keys), MaxKeys)
	}
	r := Rotation{j.Product, j.Serial, j.Version, time.Unix(j.IssuedAt, 0).UTC(), j.Threshold, nil}
	for i, k := range j.Keys {
		x, errX := decode(k.X)
		y, errY := decode(k.Y)
		if errX != nil || errY != nil || len(x) != coordinate || len(y) != coordinate {
			return Rotation{}, malformed("key %d: x and y are not %d bytes in base64url without padding", i+1, coordinate)
		}
		public, err := newPublicKey(x, y)
		if err != nil {
			return Rotation{}, malformed("key %d: %v", i+1, err)
		}
		r.Keys = append(r.Keys, public)
	}
	if err := r.check(); err != nil {
		return Rotation{}, err
	}
	if !bytes.Equal(r.payload(), payload) {
		return Rotation{}, malformed("the payload of the rotation is not in canonical form")
	}
	return r, nil
}

// confirm checks the lines of a rotation: all of them must be valid, and enough of
// them must be signed by keys of the old set, and enough by keys of the new one.
func (r Rotation) confirm(lines []statement, old []PublicKey, threshold int) error {
	signers := map[string]bool{}
	for _, s := range lines {
		if signers[s.kid] {
			return malformed("key %s has signed a rotation twice", s.kid)
		}
		signers[s.kid] = true
		if err := s.verify(slices.Concat(old, r.Keys)); err != nil {
			return err
		}
	}
	for _, set := range []struct {
		name string
		keys []PublicKey
		want int
	}{{"old", old, threshold}, {"new", r.Keys, r.Threshold}} {
		got := 0
		for _, k := range set.keys {
			if signers[k.id] {
				got++
			}
		}
		if got < set.want {
			return fmt.Errorf("%w: serial %d has %d signatures by keys of the %s set: want %d", ErrRotation, r.Serial, got, set.name, set.want)
		}
	}
	return nil
}

// parseBundle parses the lines of a bundle. The line break of the last line may be
// missing.
func parseBundle(text []byte) ([]statement, error) {
	if len(text) > MaxBundle {
		return nil, malformed("longer than %d bytes", MaxBundle)
	}
	var all []statement
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		s, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		all = append(all, s)
	}
	return all, nil
}
