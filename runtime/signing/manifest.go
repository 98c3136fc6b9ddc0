package signing

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A Manifest describes a policy. Times are in whole seconds.
type Manifest struct {
	Product  string            // product that the policy is for; may be empty
	Version  uint64            // from 1 to MaxVersion
	IssuedAt time.Time         // when it was signed, which devices use as a lower limit of the current time
	NotAfter time.Time         // the last time at which a device accepts it
	Size     int64             // of the policy, in bytes
	SHA256   [sha256.Size]byte // of the policy
}

// NewManifest returns a manifest with the size and hash of a policy.
func NewManifest(policy []byte) Manifest {
	return Manifest{Size: int64(len(policy)), SHA256: sha256.Sum256(policy)}
}

// Check returns an error, ErrSize or ErrHash, if policy is not the policy of the
// manifest.
func (m Manifest) Check(policy []byte) error {
	if int64(len(policy)) != m.Size {
		return fmt.Errorf("%w: not the policy that was signed: it has %d bytes instead of %d", ErrSize, len(policy), m.Size)
	}
	if sha256.Sum256(policy) != m.SHA256 {
		return ErrHash
	}
	return nil
}

// CheckTime returns ErrExpired if now is after NotAfter.
func (m Manifest) CheckTime(now time.Time) error {
	if m.NotAfter.Before(now) {
		return fmt.Errorf("%w: not_after is %s, and it is %s", ErrExpired, m.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// Sign returns the manifest as a JWS: one line, without a line break.
func (m Manifest) Sign(k *PrivateKey) (string, error) {
	if err := m.check(); err != nil {
		return "", err
	}
	return k.sign(typeManifest, m.payload())
}

// A manifestJSON is the payload of a manifest.
type manifestJSON struct {
	Product  string `json:"product"`
	Version  uint64 `json:"version"`
	IssuedAt int64  `json:"issued_at"`
	NotAfter int64  `json:"not_after"`
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"`
}

// payload returns the canonical form of the manifest.
func (m Manifest) payload() []byte {
	return marshal(manifestJSON{m.Product, m.Version, m.IssuedAt.Unix(), m.NotAfter.Unix(), m.Size, hex.EncodeToString(m.SHA256[:])})
}

// check checks the values.
func (m Manifest) check() error {
	if err := CheckProduct(m.Product); err != nil {
		return err
	}
	if err := checkVersion(m.Version); err != nil {
		return err
	}
	if err := checkTime("issued_at", m.IssuedAt); err != nil {
		return err
	}
	if err := checkTime("not_after", m.NotAfter); err != nil {
		return err
	}
	if m.NotAfter.Before(m.IssuedAt) {
		return malformed("not_after is before issued_at")
	}
	if m.Size < 0 || m.Size > MaxSize {
		return malformed("the size %d is out of range", m.Size)
	}
	return nil
}

// CheckProduct returns an error if product is not a valid name: at most MaxProduct
// bytes of printable ASCII, without characters that JSON may escape.
func CheckProduct(product string) error {
	if len(product) > MaxProduct {
		return malformed("the product is longer than %d bytes", MaxProduct)
	}
	if strings.ContainsFunc(product, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`"\<>&`, r) }) {
		return malformed(`the product is %q: want printable ASCII without "\<>&`, product)
	}
	return nil
}

func checkVersion(v uint64) error {
	if v < 1 || v > MaxVersion {
		return malformed("the version %d is not from 1 to %d", v, uint64(MaxVersion))
	}
	return nil
}

func checkTime(name string, t time.Time) error {
	if s := t.Unix(); s < 1 || s > maxTime {
		return malformed("%s is not between the years 1970 and 9999", name)
	}
	return nil
}

// ParseManifest returns the manifest of a bundle without checking a signature. It
// is for tools: a device must use [State.Accept].
func ParseManifest(bundle []byte) (Manifest, error) {
	all, err := parseBundle(bundle)
	if err != nil {
		return Manifest{}, err
	}
	last := all[len(all)-1]
	if last.typ != typeManifest {
		return Manifest{}, malformed("the last line is not a manifest")
	}
	return parseManifest(last.payload)
}

// parseManifest parses a payload.
func parseManifest(payload []byte) (Manifest, error) {
	var j manifestJSON
	if err := json.Unmarshal(payload, &j); err != nil {
		return Manifest{}, malformed("the payload of the manifest: %v", err)
	}
	m := Manifest{j.Product, j.Version, time.Unix(j.IssuedAt, 0).UTC(), time.Unix(j.NotAfter, 0).UTC(), j.Size, [sha256.Size]byte{}}
	if n, err := hex.Decode(m.SHA256[:], []byte(j.SHA256[:min(len(j.SHA256), 2*sha256.Size)])); err != nil || n != sha256.Size {
		return Manifest{}, malformed("sha256 is not %d bytes in hexadecimal", sha256.Size)
	}
	if err := m.check(); err != nil {
		return Manifest{}, err
	}
	if !bytes.Equal(m.payload(), payload) {
		return Manifest{}, malformed("the payload of the manifest is not in canonical form: %s", m.payload())
	}
	return m, nil
}

// marshal returns the JSON of a value whose encoding cannot fail.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("signing: " + err.Error())
	}
	return b
}
