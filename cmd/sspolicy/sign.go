package main

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/alecthomas/kong"

	"github.com/secure-streams/sspolicy/internal/minisig"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/signing"
	"github.com/secure-streams/sspolicy/schema"
)

// validity is how long a manifest is valid without --not-after.
const validity = 90 * 24 * time.Hour

type signCmd struct {
	Key       string    `required:"" placeholder:"KEY" help:"The private key."`
	Format    string    `enum:"jws,minisign" default:"jws" help:"jws is a manifest for devices (the default), minisign a signature for people."`
	Product   *string   `placeholder:"P" help:"The product that the policy is for. The default is that of the policy."`
	Version   *uint64   `placeholder:"N" help:"The version, from 1: devices refuse an older one. The default is the release of the policy, which must be an integer then."`
	NotAfter  *dateFlag `placeholder:"DATE" help:"The time until which devices accept the policy: 2027-01-31 or 2027-01-31T12:00:00Z. The default is in 90 days."`
	Rotations string    `placeholder:"FILE" help:"jws: write the rotations of keys in this file before the manifest."`
	Output    string    `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	File      string    `arg:"" help:"The policy."`
}

// Help returns the description for "sspolicy sign --help".
func (signCmd) Help() string {
	return "Writes a signature beside the policy, which is not changed. It covers product, version, not_after, size and SHA-256. A policy with errors is refused."
}

// Validate checks the command line.
func (c *signCmd) Validate() error {
	switch {
	case c.Version != nil && (*c.Version < 1 || *c.Version > signing.MaxVersion):
		return fmt.Errorf("--version: want 1 to %d", uint64(signing.MaxVersion))
	case c.Product != nil && signing.CheckProduct(*c.Product) != nil:
		return fmt.Errorf("--product: %w", signing.CheckProduct(*c.Product))
	}
	if c.Rotations != "" && c.Format != "jws" {
		return errors.New("--rotations is for --format jws")
	}
	return checkOutput(c.Output, c.File, c.Key, c.Rotations)
}

// checkOutput returns an error if output would replace one of inputs.
func checkOutput(output string, inputs ...string) error {
	for _, input := range inputs {
		if output != "" && output != "-" && identity(output) == identity(input) {
			return fmt.Errorf("--output: %s is an input", output)
		}
	}
	return nil
}

// Run executes the command.
func (c *signCmd) Run(p *program) error {
	key, err := p.read(c.Key)
	if err != nil {
		return fileError(c.Key, err)
	}
	if minisig.Is(key) != (c.Format == "minisign") {
		return usage("--key: %s is not a key for --format %s", c.Key, c.Format)
	}
	doc, compiled, err := p.compile(c.File, nil, "", lint.Options{}, schema.Error)
	if err != nil {
		return err
	}
	text := []byte(doc.String())
	now := time.Now()
	m, err := c.manifest(text, compiled, now)
	if err != nil {
		return err
	}
	if m.NotAfter.Before(now) {
		fmt.Fprintf(p.stderr, "sspolicy: --not-after is in the past: no device accepts the signature\n")
	}
	signature, err := c.sign(key, text, m)
	if err != nil {
		return fileError(c.Key, err)
	}
	if c.Rotations != "" {
		rotations, err := p.read(c.Rotations)
		if err != nil {
			return fileError(c.Rotations, err)
		}
		signature = slices.Concat(bytes.TrimSuffix(rotations, []byte("\n")), []byte("\n"), signature)
		if _, err := signing.ParseManifest(signature); err != nil {
			return &exitError{exitFindings, fileError(c.Rotations, err)}
		}
	}
	if err := p.put(c.Output, signature); err != nil {
		return err
	}
	if c.Output != "" && c.Output != "-" {
		_, err = fmt.Fprintf(p.stdout, "%s: %s\n", displayName(c.File), statement(m))
	}
	return err
}

// manifest returns the manifest of a policy.
func (c *signCmd) manifest(text []byte, compiled *policy.Policy, now time.Time) (signing.Manifest, error) {
	m := signing.NewManifest(text)
	m.Product = valueOr(c.Product, compiled.Product)
	switch n, err := strconv.ParseUint(compiled.Release, 10, 64); {
	case c.Version != nil:
		m.Version = *c.Version
	case err == nil && strconv.FormatUint(n, 10) == compiled.Release && 1 <= n && n <= signing.MaxVersion:
		m.Version = n
	default:
		why := "the policy has no release"
		if compiled.Release != "" {
			why = fmt.Sprintf("the release of the policy, %q, is not a version", compiled.Release)
		}
		return m, usage("%s: give one from 1 to %d with --version, above that of the last policy that devices accepted", why, uint64(signing.MaxVersion))
	}
	m.IssuedAt, m.NotAfter = now.UTC(), now.UTC().Add(validity)
	if c.NotAfter != nil {
		m.NotAfter = c.NotAfter.Time
		if m.NotAfter.Before(m.IssuedAt) {
			m.IssuedAt = m.NotAfter // no device accepts it, but it can be verified
		}
	}
	return m, nil
}

// sign returns the signature of a policy.
func (c *signCmd) sign(key, text []byte, m signing.Manifest) ([]byte, error) {
	if c.Format == "minisign" {
		return minisig.Sign(key, text, c.File, m)
	}
	private, err := signing.ParsePrivateKey(key)
	if err != nil {
		return nil, err
	}
	line, err := m.Sign(private)
	return []byte(line + "\n"), err
}

// statement describes a manifest.
func statement(m signing.Manifest) string {
	until := "without not_after"
	if !m.NotAfter.IsZero() {
		until = "not after " + m.NotAfter.Format(time.RFC3339)
	}
	return fmt.Sprintf("product %q, version %d, %s", m.Product, m.Version, until)
}

// A dateFlag is a time, or a date, which means midnight in UTC.
type dateFlag struct{ time.Time }

// Decode implements kong.MapperValue.
func (d *dateFlag) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("date", &text); err != nil {
		return err
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			if t.Unix() < 1 {
				return errors.New("want a time after 1970")
			}
			d.Time = t.UTC()
			return nil
		}
	}
	return fmt.Errorf("%q is not a date such as 2027-01-31 or 2027-01-31T12:00:00Z", text)
}

// unsigned parses a flag for a non-negative integer.
func unsigned(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("number", &text); err != nil {
		return err
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is not an integer from 0, or out of range", text)
	}
	target.SetUint(n)
	return nil
}
