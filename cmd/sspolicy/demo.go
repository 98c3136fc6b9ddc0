package main

import (
	"io"

	"github.com/secure-streams/sspolicy/internal/demo"
)

type demoCmd struct {
	Keep string `placeholder:"DIR" help:"Keep the files of the demo in this folder."`
}

// Help returns the description for "sspolicy demo --help".
func (demoCmd) Help() string {
	return "Makes a CA and a TLS server on loopback, and a policy that trusts the CA. Validates and lints the policy, shows a broken variant being refused, compiles it to Go, builds and runs a program with it, and breaks the trust with an overlay. Needs the go command, and a checkout of sspolicy as the working directory."
}

// Run executes the command.
func (c *demoCmd) Run(p *program) error {
	return demo.Run(p.stdout, c.Keep, func(w io.Writer, args ...string) int {
		return run(args, p.stdin, w, w)
	})
}
