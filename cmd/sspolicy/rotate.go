package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/runtime/signing"
)

type rotateCmd struct {
	Key       []string `required:"" sep:"none" placeholder:"KEY" help:"A private key that signs: of the old set, the new one or both. May be repeated."`
	To        string   `placeholder:"ROTATION" help:"Add signatures to this rotation instead of making a new one."`
	Product   string   `placeholder:"P" help:"The product of the devices."`
	Serial    uint64   `placeholder:"N" help:"The number of this rotation, counted from 1 (1)."`
	Version   uint64   `placeholder:"N" help:"The policy version from which devices continue: usually the current one."`
	Threshold int      `placeholder:"K" help:"The number of new keys that must sign the next rotation (more than half)."`
	Output    string   `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	Public    []string `arg:"" optional:"" name:"key.pub" help:"The public keys of the new set."`
}

// Help returns the description for "sspolicy rotate --help".
func (rotateCmd) Help() string {
	return "Writes a rotation, which devices accept if enough keys of the old set and of the new one have signed it. Owners of keys on different machines pass it on with --to. Devices get the rotations, oldest first, followed by the manifest of a policy, in one file."
}

// Validate checks the command line.
func (c *rotateCmd) Validate() error {
	switch {
	case c.To != "" && (len(c.Public) > 0 || c.Product != "" || c.Serial != 0 || c.Version != 0 || c.Threshold != 0):
		return errors.New("--to: the content of the rotation cannot be changed")
	case c.To == "" && len(c.Public) == 0:
		return errors.New("want the public keys of the new set, or --to")
	case c.To == "" && c.Version == 0:
		return errors.New("want --version with the version of the policy in force")
	}
	return checkOutput(c.Output, slices.Concat(c.Key, c.Public)...)
}

// Run executes the command.
func (c *rotateCmd) Run(p *program) error {
	var lines bytes.Buffer
	r, err := c.rotation(p, &lines)
	if err != nil {
		return err
	}
	for _, file := range c.Key {
		text, err := p.read(file)
		if err != nil {
			return fileError(file, err)
		}
		k, err := signing.ParsePrivateKey(text)
		if err != nil {
			return fileError(file, err)
		}
		line, err := r.Sign(k)
		if err != nil {
			return usage("%w", err)
		}
		fmt.Fprintln(&lines, line)
	}
	if _, err := signing.ParseRotation(lines.Bytes()); err != nil { // such as a key that has signed twice
		return usage("--key: %w", err)
	}
	return p.put(c.Output, lines.Bytes())
}

// rotation returns the rotation to sign, and writes its existing lines to lines.
func (c *rotateCmd) rotation(p *program, lines *bytes.Buffer) (signing.Rotation, error) {
	if c.To != "" {
		text, err := p.read(c.To)
		if err != nil {
			return signing.Rotation{}, fileError(c.To, err)
		}
		r, err := signing.ParseRotation(text)
		if err != nil {
			return r, &exitError{exitFindings, fileError(c.To, err)}
		}
		lines.Write(append(bytes.TrimSuffix(text, []byte("\n")), '\n'))
		return r, nil
	}
	r := signing.Rotation{Product: c.Product, Serial: max(c.Serial, 1), Version: c.Version, IssuedAt: time.Now(), Threshold: c.Threshold}
	if r.Threshold == 0 {
		r.Threshold = len(c.Public)/2 + 1
	}
	for _, file := range c.Public {
		text, err := p.read(file)
		if err != nil {
			return r, fileError(file, err)
		}
		k, err := signing.ParsePublicKey(text)
		if err != nil {
			return r, fileError(file, err)
		}
		r.Keys = append(r.Keys, k)
	}
	return r, nil
}
