package system

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"runtime/debug"
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/internal/atomicfile"
	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/signing"
)

// A signedPolicy is a policy with the state of a device that has accepted it. In
// File it is the bundle of the state, an empty line and the text.
type signedPolicy struct {
	state  *signing.State // nil without Signing
	text   []byte
	policy *policy.Policy
}

// file returns the contents of File.
func (s *signedPolicy) file() []byte {
	if s.state == nil {
		return s.text
	}
	return slices.Concat(s.state.Bundle(), []byte("\n"), s.text)
}

// initSigning sets the state of a device that has accepted nothing.
func (f *Fetcher) initSigning() error {
	c := *f.o.Signing
	if c.NotBefore.IsZero() {
		c.NotBefore = buildTime()
	}
	state, err := signing.New(c)
	if err != nil {
		return err
	}
	if f.o.Now == nil {
		f.o.Now = time.Now
	}
	f.initial = state
	f.state.Store(&state)
	return nil
}

// buildTime returns the time of the commit that the program was built from, or zero.
func buildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			t, _ := time.Parse(time.RFC3339, s.Value)
			return t
		}
	}
	return time.Time{}
}

// Manifest returns the manifest of the accepted policy, if there is one. It
// includes File after the first Fetch or Restore. It may be called at any time. An
// old NotAfter shows that fetches have failed for a long time.
func (f *Fetcher) Manifest() (m signing.Manifest, ok bool) {
	if s := f.state.Load(); s != nil {
		return s.Manifest()
	}
	return signing.Manifest{}, false
}

// fetchManifest returns the state after the bundle of the server, or nil if its
// policy is the current one.
func (f *Fetcher) fetchManifest(ctx context.Context) (*signing.State, error) {
	r, err := f.get(ctx, FetchPolicyManifest, signing.MaxBundle)
	if err != nil {
		return nil, err
	}
	old := f.state.Load()
	state, err := old.Accept(r.Body, f.o.Now())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if m, _ := state.Manifest(); m.Size > int64(f.o.MaxSize) {
		return nil, fmt.Errorf("%w: %w: %d bytes, more than %d", ErrRefused, signing.ErrSize, m.Size, f.o.MaxSize)
	}
	if bytes.Equal(state.Bundle(), old.Bundle()) && f.current != nil && f.c.Policy() == f.current {
		return nil, nil
	}
	return &state, nil
}

// read reads File, and removes the temporary files of killed writers. With Signing
// it sets the state.
func (f *Fetcher) read() (*signedPolicy, error) {
	raw, err := f.readFile()
	if err != nil {
		f.isRead = errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrRefused)
		return nil, err
	}
	_ = atomicfile.Clean(f.o.File)
	f.isRead = true
	if f.o.Signing == nil {
		return &signedPolicy{text: raw}, nil
	}
	bundle, text, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		return nil, fmt.Errorf("%w: %w: a file without a bundle", ErrRefused, signing.ErrMalformed)
	}
	state, err := f.initial.Restore(bundle)
	if old := f.state.Load().Bundle(); old != nil && !bytes.Equal(old, state.Bundle()) {
		return nil, fmt.Errorf("%w: %w: another one was accepted since the start of the program", ErrRefused, signing.ErrRollback)
	}
	f.state.Store(&state) // valid even if the text is damaged, or the manifest is too old
	if err == nil {
		m, _ := state.Manifest()
		err = m.Check(text)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return &signedPolicy{state: &state, text: text}, nil
}

// readFile returns the contents of File.
func (f *Fetcher) readFile() ([]byte, error) {
	if f.o.File == "" {
		return nil, fmt.Errorf("%w: FetcherOptions.File is empty", fs.ErrNotExist)
	}
	file, err := readfile.Open(f.o.File)
	if errors.Is(err, readfile.ErrNotRegular) {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	} else if err != nil {
		return nil, err
	}
	defer file.Close()
	limit := min(int64(f.o.MaxSize), math.MaxInt64-signing.MaxBundle-2)
	if f.o.Signing != nil {
		limit += signing.MaxBundle + 1
	}
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%w: %w: %w: more than %d bytes", ErrRefused, signing.ErrSize, runtime.ErrTooLong, limit)
	}
	return text, err
}
