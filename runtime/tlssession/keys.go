package tlssession

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/secure-streams/sspolicy/internal/atomicfile"
)

// KeySize is the size of a ticket key in bytes.
const KeySize = 32

// MaxKeys is the maximum number of ticket keys.
const MaxKeys = 64

// ErrKeys is returned when ticket keys are invalid.
var ErrKeys = errors.New("sspolicy: tlssession: invalid ticket keys")

// Keys are the keys of session tickets. The newest encrypts, and all decrypt. Until
// the first Update, Load or Rotate, the zero value has random keys that crypto/tls
// replaces every day. The methods are safe for concurrent use, also during
// handshakes: each handshake uses the keys before a change or those after it.
//
// Update, Load and Rotate replace each other's keys. Keys are written to disk only
// by Save.
type Keys struct {
	mu     sync.Mutex // held during a change
	config tls.Config // only its ticket keys are used
	keys   [][KeySize]byte
}

// Update replaces the keys with those in data, which consists of 1 to MaxKeys keys
// of KeySize bytes, the newest first. If data is invalid, the error wraps ErrKeys
// and the keys do not change.
func (k *Keys) Update(data []byte) error {
	keys, err := parseKeys(data)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.setLocked(keys)
	return nil
}

func parseKeys(data []byte) ([][KeySize]byte, error) {
	if len(data) == 0 || len(data)%KeySize != 0 || len(data) > MaxKeys*KeySize {
		return nil, fmt.Errorf("%w: %d bytes, want 1 to %d times %d", ErrKeys, len(data), MaxKeys, KeySize)
	}
	keys := make([][KeySize]byte, 0, len(data)/KeySize)
	for k := range slices.Chunk(data, KeySize) {
		if bytes.Count(k, []byte{0}) == KeySize {
			return nil, fmt.Errorf("%w: key %d has only zeros", ErrKeys, len(keys)+1)
		}
		keys = append(keys, [KeySize]byte(k))
	}
	return keys, nil
}

func (k *Keys) setLocked(keys [][KeySize]byte) {
	k.keys = keys
	k.config.SetSessionTicketKeys(keys)
}

// Rotate makes a new random key the newest, and keeps the given number of older
// ones.
func (k *Keys) Rotate(older int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var key [KeySize]byte
	rand.Read(key[:])
	keep := min(max(older, 0), MaxKeys-1, len(k.keys))
	k.setLocked(append([][KeySize]byte{key}, k.keys[:keep]...))
}

// Bytes returns the keys in the form that Update accepts. It is empty before the
// first Update, Load or Rotate.
func (k *Keys) Bytes() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Concat(asSlices(k.keys)...)
}

func asSlices(keys [][KeySize]byte) [][]byte {
	s := make([][]byte, len(keys))
	for i := range keys {
		s[i] = keys[i][:]
	}
	return s
}

// Load calls Update with the content of a file, such as one made by "openssl rand
// -out FILE 32". To reload the file, call Load again.
func (k *Keys) Load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("sspolicy: tlssession: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxKeys*KeySize+1))
	if err != nil {
		return fmt.Errorf("sspolicy: tlssession: %w", err)
	}
	if err := k.Update(data); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// Save writes the keys to a file that only its owner can read.
func (k *Keys) Save(file string) error {
	data := k.Bytes()
	if len(data) == 0 {
		return fmt.Errorf("%w: none to save", ErrKeys)
	}
	if err := atomicfile.WritePrivate(file, data); err != nil {
		return fmt.Errorf("sspolicy: tlssession: %w", err)
	}
	return nil
}
