package signing

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Config is the signing configuration that a device is built with.
type Config struct {
	// Product is the only product whose manifests and rotations are accepted.
	Product string

	// Keys are the trusted keys: any one of them signs a policy. Two keys allow
	// replacing one without haste. Threshold is the number of them that a rotation
	// needs; 0 means more than half. Serial is the number of rotations that led to
	// them.
	Keys      []PublicKey
	Threshold int
	Serial    uint64

	// MinVersion is the version of the policy in the program: older ones are not
	// accepted.
	MinVersion uint64

	// MaxStep limits how far a version may be ahead of the accepted one, so that
	// the owner of a stolen key cannot use up all versions. 0 means DefaultMaxStep.
	MaxStep uint64

	// NotBefore is a time in the past, such as the time of the build. The clock of
	// the device is used only if it is later.
	NotBefore time.Time
}

// A State is what a device has accepted so far. It is immutable; the zero value
// accepts nothing.
type State struct {
	product   string
	maxStep   uint64
	base      uint64    // MinVersion of the Config
	epoch     time.Time // the latest of Epoch and NotBefore
	keys      []PublicKey
	threshold int
	serial    uint64
	chain     []string // lines of the rotations beyond those of the Config
	line      string   // of the manifest, or ""
	manifest  Manifest
	version   uint64    // minimum version to accept
	floor     time.Time // lower limit of the current time
}

// New returns the state of a device that has accepted nothing beyond its Config.
func New(c Config) (State, error) {
	s := State{product: c.Product, maxStep: c.MaxStep, keys: slices.Clone(c.Keys), threshold: c.Threshold, serial: c.Serial,
		base: c.MinVersion, version: c.MinVersion, epoch: latest(Epoch, c.NotBefore)}
	s.floor = s.epoch
	if s.maxStep == 0 {
		s.maxStep = DefaultMaxStep
	}
	if s.threshold == 0 {
		s.threshold = len(s.keys)/2 + 1
	}
	if err := errors.Join(CheckProduct(c.Product), checkKeys(s.keys, s.threshold)); err != nil {
		return State{}, fmt.Errorf("sspolicy: signing: %w", err)
	}
	if max(c.MinVersion, c.Serial) > MaxVersion {
		return State{}, fmt.Errorf("sspolicy: signing: a version or serial beyond %d", uint64(MaxVersion))
	}
	return s, nil
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Manifest returns the accepted manifest, if there is one.
func (s State) Manifest() (m Manifest, ok bool) { return s.manifest, s.line != "" }

// Keys returns the trusted keys.
func (s State) Keys() []PublicKey { return slices.Clone(s.keys) }

// Serial returns the number of the set of keys.
func (s State) Serial() uint64 { return s.serial }

// Time returns the current time as far as the device knows it: now, or the latest
// certain time if the clock is behind it.
func (s State) Time(now time.Time) time.Time { return latest(s.floor, now) }

// Bundle returns the bundle from which [State.Restore] gets to this state, or nil
// without a manifest. Equal bundles mean equal states of the same Config.
func (s State) Bundle() []byte {
	if s.line == "" {
		return nil
	}
	return []byte(strings.Join(append(slices.Clone(s.chain), s.line), "\n") + "\n")
}

// Accept returns the state after a bundle, or an error that is a Refusal. now is
// the time of the device's clock. The caller fetches the policy afterwards, and
// keeps the new state only if [Manifest.Check] accepts the policy.
//
// Rotations that the state already includes are skipped. Without a new rotation,
// the manifest must not be older than the accepted one; the same version must be
// the same policy. A rotation sets version and time to its own values, so that the
// owners of the keys can undo what a stolen key has signed, but not to values below
// those of the Config.
func (s State) Accept(bundle []byte, now time.Time) (State, error) {
	next, err := s.apply(bundle)
	if err != nil {
		return State{}, err
	}
	if next.serial == s.serial && s.line != "" {
		m, old := next.manifest, s.manifest
		if m.Version == old.Version && m.SHA256 != old.SHA256 {
			return State{}, fmt.Errorf("%w: %d", ErrConflict, m.Version)
		}
		if m.IssuedAt.Before(old.IssuedAt) {
			return State{}, fmt.Errorf("%w: issued at %s, and the accepted one at %s", ErrRollback, m.IssuedAt.Format(time.RFC3339), old.IssuedAt.Format(time.RFC3339))
		}
	}
	if step := next.manifest.Version - next.version; step > next.maxStep {
		return State{}, fmt.Errorf("%w: from %d to %d, more than %d", ErrFastForward, next.version, next.manifest.Version, next.maxStep)
	}
	next.version = next.manifest.Version
	if err := next.manifest.CheckTime(next.Time(now)); err != nil {
		return State{}, err
	}
	return next, nil
}

// Restore returns the state after a bundle that was accepted before, as returned by
// Bundle. Its manifest may have expired. s must be a state returned by New.
//
// If the manifest is not valid for this Config, for example because the policy in
// the program is newer, Restore returns the error and the state after the
// rotations: replaced keys stay replaced.
func (s State) Restore(bundle []byte) (State, error) {
	next, err := s.apply(bundle)
	if err == nil {
		next.version = next.manifest.Version
	}
	return next, err
}

// apply returns the state after the rotations and the manifest of a bundle. Its
// version is the lowest that the manifest may have had. After an error it returns
// the state before the invalid line.
func (s State) apply(bundle []byte) (State, error) {
	all, err := parseBundle(bundle)
	if err != nil {
		return s, err
	}
	s.chain = slices.Clone(s.chain)
	last := len(all) - 1
	if all[last].typ != typeManifest {
		return s, malformed("the last line is not a manifest")
	}
	for i := 0; i < last; {
		n := 1
		for i+n < last && bytes.Equal(all[i+n].payload, all[i].payload) {
			n++
		}
		if err := s.rotate(all[i : i+n]); err != nil {
			return s, fmt.Errorf("line %d: %w", i+1, err)
		}
		i += n
	}
	if err := all[last].verify(s.keys); err != nil {
		return s, err
	}
	m, err := parseManifest(all[last].payload)
	if err != nil {
		return s, err
	}
	if m.Product != s.product {
		return s, fmt.Errorf("%w: %q instead of %q", ErrProduct, m.Product, s.product)
	}
	if m.Version < s.version {
		return s, fmt.Errorf("%w: version %d, and %d was accepted", ErrRollback, m.Version, s.version)
	}
	next := s
	next.line, next.manifest, next.floor = all[last].line, m, latest(s.floor, m.IssuedAt)
	if len(next.Bundle()) > MaxBundle {
		return s, fmt.Errorf("%w: with those before, the rotations are longer than %d bytes: build the program with newer keys", ErrRotation, MaxBundle)
	}
	return next, nil
}

// rotate applies the lines of a rotation, unless the state already includes it.
func (s *State) rotate(lines []statement) error {
	if slices.ContainsFunc(lines, func(l statement) bool { return l.typ != typeRotation }) {
		return malformed("a manifest before the last line")
	}
	r, err := parseRotation(lines[0].payload)
	if err != nil {
		return err
	}
	if r.Product != s.product {
		return fmt.Errorf("%w: %q instead of %q", ErrProduct, r.Product, s.product)
	}
	if r.Serial <= s.serial {
		return nil
	}
	if r.Serial != s.serial+1 {
		return fmt.Errorf("%w: serial %d follows %d", ErrRotation, r.Serial, s.serial)
	}
	if s.threshold < 1 { // the zero State
		return ErrRotation
	}
	if err := r.confirm(lines, s.keys, s.threshold); err != nil {
		return err
	}
	for _, l := range lines {
		s.chain = append(s.chain, l.line)
	}
	s.keys, s.threshold, s.serial = r.Keys, r.Threshold, r.Serial
	s.version, s.floor = max(s.base, r.Version), latest(s.epoch, r.IssuedAt)
	return nil
}
