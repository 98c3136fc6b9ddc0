package main

import (
	"github.com/alecthomas/kong"

	"github.com/secure-streams/sspolicy/internal/clidoc"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run executes the command.
func (c *completionCmd) Run(p *program, ctx *kong.Context) error {
	script := map[string]func(*kong.Application) string{
		"bash": clidoc.Bash, "zsh": clidoc.Zsh, "fish": clidoc.Fish,
	}[c.Shell]
	return p.output("", write(script(ctx.Model)))
}

type manCmd struct{}

// Run executes the command.
func (manCmd) Run(p *program, ctx *kong.Context) error {
	return p.output("", write(clidoc.Man(ctx.Model)))
}
