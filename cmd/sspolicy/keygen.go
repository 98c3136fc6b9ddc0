package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/secure-streams/sspolicy/internal/minisig"
	"github.com/secure-streams/sspolicy/runtime/signing"
)

type keygenCmd struct {
	Format string `enum:"jwk,minisign" default:"jwk" help:"jwk is for devices (the default): an ECDSA key on P-256, as lws reads it. minisign is for files that people check."`
	Output string `short:"o" required:"" placeholder:"KEY" help:"Write the private key to KEY, and the public one to KEY.pub. Neither may exist."`
}

// Help returns the description for "sspolicy keygen --help".
func (keygenCmd) Help() string {
	return "Makes a key for sign. Only its owner can read KEY: keep it off devices, and keep a copy. Devices get KEY.pub."
}

// Run executes the command.
func (c *keygenCmd) Run(p *program) error {
	if c.Output == "-" {
		return usage("--output: keys are written to files")
	}
	public := c.Output + ".pub"
	for _, file := range []string{c.Output, public} {
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return fileError(file, err)
			}
			return fmt.Errorf("%s exists: keygen replaces no key", file)
		}
	}
	private, shared, id, err := c.generate()
	if err != nil {
		return err
	}
	if err := create(c.Output, private, 0o600); err != nil {
		return err
	}
	if err := create(public, shared, 0o644); err != nil {
		return errors.Join(err, os.Remove(c.Output))
	}
	_, err = fmt.Fprintf(p.stdout, "%s and %s: key %s\n", c.Output, public, id)
	return err
}

// generate returns a key, and its name.
func (c *keygenCmd) generate() (private, public []byte, id string, err error) {
	if c.Format == "minisign" {
		private, public, err = minisig.GenerateKey()
		return private, public, "of minisign", err
	}
	k, err := signing.GenerateKey()
	if err != nil {
		return nil, nil, "", err
	}
	private, err = k.JWK()
	return private, k.Public().JWK(), k.Public().ID(), err
}

// create writes a new file. It fails if the file exists.
func create(file string, text []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return fileError(file, err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fileError(file, err), os.Remove(file))
	}
	return nil
}
