package farm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/tlssession"
)

// version begins each message.
const version = 1

// maxAge is the maximum difference of a sender's clock, and the maximum delay of a
// message.
const maxAge = 2 * time.Minute

// A message is a message between members.
type message struct {
	from member
	seq  uint64 // increases
	sent time.Time

	ready    bool // the sender can send a snapshot
	hello    bool // the sender wants a snapshot
	snapshot bool // this is a part of one

	sessions []session
	removed  []tlssession.ID
	keys     keySet
}

// A session is a session in a message.
type session struct {
	id      tlssession.ID
	state   []byte
	expires time.Time
}

// A seal encrypts the messages of a farm. Each member has a key of its own, derived
// from that of the farm, so that random nonces do not repeat.
type seal struct {
	key  []byte // of the farm
	self member
	own  cipher.AEAD

	mu    sync.Mutex
	peers map[member]cipher.AEAD
}

func newSeal(key []byte, self member) (*seal, error) {
	s := &seal{key: key, self: self, peers: make(map[member]cipher.AEAD)}
	var err error
	s.own, err = s.derive(self)
	return s, err
}

func (s *seal) derive(m member) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, s.key, m[:], "sspolicy TLS session farm 1", 32)
	if err != nil {
		return nil, fmt.Errorf("sspolicy: farm: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("sspolicy: farm: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// headerSize is the length of the header: version and sender.
const headerSize = 1 + len(member{})

const (
	flagHello    = 1
	flagSnapshot = 2
	flagReady    = 4
)

// encode returns an encrypted message from this member.
func (s *seal) encode(m *message) []byte {
	header := append([]byte{version}, s.self[:]...)
	var b []byte
	flags := byte(0)
	if m.hello {
		flags |= flagHello
	}
	if m.snapshot {
		flags |= flagSnapshot
	}
	if m.ready {
		flags |= flagReady
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, m.seq)
	b = binary.BigEndian.AppendUint64(b, uint64(m.sent.UnixMilli()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.sessions)))
	for _, x := range m.sessions {
		b = appendBytes(b, []byte(x.id))
		b = binary.BigEndian.AppendUint64(b, uint64(x.expires.UnixMilli()))
		b = appendBytes(b, x.state)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.removed)))
	for _, id := range m.removed {
		b = appendBytes(b, []byte(id))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.keys)))
	for _, k := range m.keys {
		b = binary.BigEndian.AppendUint64(b, uint64(k.made.UnixMilli()))
		b = append(b, k.key[:]...)
	}
	return s.own.Seal(header, nil, b, header)
}

func appendBytes(b, x []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(x))), x...)
}

// The errors of decode.
var (
	errOwn      = errors.New("own message")
	errForeign  = errors.New("not a message of this farm")
	errMessage  = errors.New("malformed message")
	errTooLarge = errors.New("message too large")
)

// decode decrypts a message. It checks that a member has sent it, but not when.
func (s *seal) decode(text []byte) (*message, error) {
	switch {
	case len(text) > MaxMessage:
		return nil, errTooLarge
	case len(text) < headerSize || text[0] != version:
		return nil, errForeign
	}
	m := &message{from: member(text[1:headerSize])}
	if m.from == s.self {
		return nil, errOwn
	}
	s.mu.Lock()
	open, known := s.peers[m.from]
	s.mu.Unlock()
	if !known {
		var err error
		if open, err = s.derive(m.from); err != nil {
			return nil, err
		}
	}
	b, err := open.Open(nil, nil, text[headerSize:], text[:headerSize])
	if err != nil {
		return nil, errForeign
	}
	if !known {
		s.mu.Lock()
		if len(s.peers) >= maxPeers {
			clear(s.peers)
		}
		s.peers[m.from] = open
		s.mu.Unlock()
	}
	return m, m.parse(b)
}

// parse parses a decrypted message, possibly from a member of another release.
func (m *message) parse(b []byte) error {
	r := reader{b: b}
	flags := r.bytes(1)
	if r.failed {
		return errMessage
	}
	m.hello, m.snapshot = flags[0]&flagHello != 0, flags[0]&flagSnapshot != 0
	m.ready = flags[0]&flagReady != 0
	m.seq, m.sent = r.uint64(), r.time()
	for n := r.uint32(); n > 0 && !r.failed; n-- {
		m.sessions = append(m.sessions, session{id: tlssession.ID(r.bytes(r.uint32())), expires: r.time(), state: r.bytes(r.uint32())})
	}
	for n := r.uint32(); n > 0 && !r.failed; n-- {
		m.removed = append(m.removed, tlssession.ID(r.bytes(r.uint32())))
	}
	for n := r.uint32(); n > 0 && !r.failed; n-- {
		k := ticketKey{made: r.time()}
		copy(k.key[:], r.bytes(tlssession.KeySize))
		m.keys = append(m.keys, k)
	}
	if r.failed {
		return errMessage
	}
	return nil
}

// A reader parses a message.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) bytes(n uint32) []byte {
	if r.failed || uint64(n) > uint64(len(r.b)) {
		r.failed = true
		return nil
	}
	x := r.b[:n]
	r.b = r.b[n:]
	return x
}

func (r *reader) uint32() uint32 {
	if x := r.bytes(4); x != nil {
		return binary.BigEndian.Uint32(x)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if x := r.bytes(8); x != nil {
		return binary.BigEndian.Uint64(x)
	}
	return 0
}

func (r *reader) time() time.Time { return time.UnixMilli(int64(r.uint64())) }
