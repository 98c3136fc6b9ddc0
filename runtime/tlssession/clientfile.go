package tlssession

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"time"

	"github.com/secure-streams/sspolicy/internal/atomicfile"
	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

const (
	// fileMagic begins a file, and names its format.
	fileMagic = "sspolicy TLS sessions 1\n"

	maxFile = 16 << 20 // bytes

	// saveAfter is the time from a change to the write of the file.
	saveAfter = time.Second
)

// A fileSession is a session in the file.
type fileSession struct {
	Scope  transport.Scope
	Server string
	Ticket []byte
	State  []byte
	Stored time.Time
}

// OpenClients returns the sessions of a file, if it exists. It ignores a file that
// has been modified, or was written with another key or version of Go; the next
// handshakes are then full ones. The caller must call Close, which writes the last
// changes.
func OpenClients(o ClientOptions) (*Clients, error) {
	c := newClients(o)
	if o.File == "" {
		return c, nil
	}
	seal, err := fileSeal(o.Key)
	if err != nil {
		return nil, err
	}
	text, err := readfile.Regular(o.File, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, nil
	case err != nil:
		return nil, fmt.Errorf("sspolicy: TLS sessions: %w", err)
	}
	if err := c.read(seal, text); err != nil && o.Logger != nil {
		o.Logger.Warn("sspolicy: TLS sessions of the file are not used", "file", o.File, "err", err)
	}
	return c, nil
}

// fileSeal returns the cipher of a file.
func fileSeal(key []byte) (cipher.AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("sspolicy: TLS sessions: the key of the file has %d bytes, want %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("sspolicy: TLS sessions: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// fileContext is authenticated with the content of a file.
func fileContext() []byte { return []byte(fileMagic + runtime.Version()) }

// read adds the sessions of a file.
func (c *Clients) read(seal cipher.AEAD, text []byte) error {
	if len(text) < len(fileMagic) || string(text[:len(fileMagic)]) != fileMagic {
		return errors.New("not a file of TLS sessions")
	}
	plain, err := seal.Open(nil, nil, text[len(fileMagic):], fileContext())
	if err != nil {
		return errors.New("it was modified, or written with another key or version of Go")
	}
	var all []fileSession
	if err := json.Unmarshal(plain, &all); err != nil {
		return err
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range all { // most recently used last
		if f.Stored.After(now) || now.Sub(f.Stored) > maxLifetime {
			continue
		}
		state, err := tls.ParseSessionState(f.State)
		if err != nil {
			continue
		}
		s, err := tls.NewResumptionState(f.Ticket, state)
		if err != nil {
			continue
		}
		c.putLocked(&clientSession{clientKey{f.Scope, f.Server}, s, f.Stored})
	}
	return nil
}

// saveLaterLocked schedules a write of the file.
func (c *Clients) saveLaterLocked() {
	if c.o.File == "" || c.save != nil || c.closed {
		return
	}
	c.save = time.AfterFunc(saveAfter, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.save == nil {
			return
		}
		c.save = nil
		if err := c.writeLocked(); err != nil && c.o.Logger != nil {
			c.o.Logger.Error("sspolicy: cannot write the TLS sessions", "err", err)
		}
	})
}

// Close writes the file if the sessions have changed. After Close they are in
// memory only.
func (c *Clients) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.save == nil && !c.failed {
		return nil
	}
	if c.save != nil {
		c.save.Stop()
		c.save = nil
	}
	return c.writeLocked()
}

// writeLocked writes the file.
func (c *Clients) writeLocked() error {
	var all []fileSession
	for e := c.recent.Back(); e != nil; e = e.Prev() {
		s := e.Value.(*clientSession)
		ticket, state, err := s.state.ResumptionState()
		if err != nil || state == nil {
			continue
		}
		b, err := state.Bytes()
		if err != nil {
			continue
		}
		all = append(all, fileSession{s.key.scope, s.key.server, ticket, b, s.stored})
	}
	err := c.writeFile(all)
	if c.failed = err != nil; c.failed {
		return fmt.Errorf("sspolicy: TLS sessions: %w", err)
	}
	return nil
}

func (c *Clients) writeFile(all []fileSession) error {
	seal, err := fileSeal(c.o.Key)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return atomicfile.WritePrivate(c.o.File, seal.Seal([]byte(fileMagic), nil, plain, fileContext()))
}
