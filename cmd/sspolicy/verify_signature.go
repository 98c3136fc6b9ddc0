package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/secure-streams/sspolicy/internal/minisig"
	"github.com/secure-streams/sspolicy/runtime/signing"
)

// signatureFlags are the flags of verify for signatures.
type signatureFlags struct {
	Key            []string  `sep:"none" xor:"what" placeholder:"KEY.pub" help:"Check the signature with this public key. May be repeated: any one of the keys signs."`
	MinimumVersion uint64    `placeholder:"N" help:"With --key: refuse an older version."`
	At             *dateFlag `placeholder:"DATE" help:"With --key: the time at which the policy would be accepted (now)."`
	Product        *string   `placeholder:"P" help:"With --key: refuse another product."`
	Threshold      int       `placeholder:"K" help:"With --key: how many of the keys a rotation needs (more than half)."`
}

// used reports whether flags other than --key are set.
func (f *signatureFlags) used() bool {
	return f.MinimumVersion != 0 || f.At != nil || f.Product != nil || f.Threshold != 0
}

// verifySignature checks the signature of a policy.
func (f *signatureFlags) verifySignature(p *program, policyFile, file string) error {
	policy, err := p.read(policyFile)
	if err != nil {
		return fileError(policyFile, err)
	}
	signature, err := p.read(file)
	if err != nil {
		return fileError(file, err)
	}
	var keys [][]byte
	for _, k := range f.Key {
		text, err := p.read(k)
		if err != nil {
			return fileError(k, err)
		}
		keys = append(keys, text)
	}
	verify := f.verifyJWS
	if minisig.Is(keys[0]) {
		verify = f.verifyMinisign
	}
	m, err := verify(keys, policy, signature)
	if err == nil {
		err = f.check(m, policy)
	}
	if _, ok := errors.AsType[signing.Refusal](err); ok {
		return &exitError{exitFindings, fmt.Errorf("%s: %w", displayName(file), err)}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s is signed: %s\n", displayName(policyFile), statement(m))
	return err
}

// verifyJWS checks a bundle, and returns its manifest.
func (f *signatureFlags) verifyJWS(keys [][]byte, _, bundle []byte) (signing.Manifest, error) {
	m, err := signing.ParseManifest(bundle)
	if err != nil {
		return m, err
	}
	c := signing.Config{Product: valueOr(f.Product, m.Product), Threshold: f.Threshold, MinVersion: f.MinimumVersion}
	for i, text := range keys {
		k, err := signing.ParsePublicKey(text)
		if err != nil {
			return m, fileError(f.Key[i], err)
		}
		c.Keys = append(c.Keys, k)
	}
	s, err := signing.New(c)
	if err != nil {
		return m, usage("--key, --threshold: %w", err)
	}
	s, err = s.Restore(bundle)
	m, _ = s.Manifest()
	return m, err
}

// verifyMinisign verifies a minisign signature with the first of keys that it
// names.
func (f *signatureFlags) verifyMinisign(keys [][]byte, policy, signature []byte) (m signing.Manifest, err error) {
	for i, text := range keys {
		m, err = minisig.Verify(text, policy, signature)
		if _, ok := errors.AsType[signing.Refusal](err); err != nil && !ok {
			return m, fileError(f.Key[i], err)
		}
		if !errors.Is(err, signing.ErrUnknownKey) {
			break
		}
	}
	switch {
	case err != nil:
	case m.Version < f.MinimumVersion:
		err = fmt.Errorf("%w: version %d", signing.ErrRollback, m.Version)
	case f.Product != nil && m.Product != *f.Product:
		err = fmt.Errorf("%w: %q instead of %q", signing.ErrProduct, m.Product, *f.Product)
	}
	return m, err
}

// check checks the time and the policy of a manifest.
func (f *signatureFlags) check(m signing.Manifest, policy []byte) error {
	now := cmp.Or(f.At, &dateFlag{time.Now()}).Time
	if !m.NotAfter.IsZero() {
		if err := m.CheckTime(now); err != nil {
			return err
		}
	}
	return m.Check(policy)
}
