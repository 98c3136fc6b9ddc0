package main

import (
	"github.com/alecthomas/kong"

	"github.com/secure-streams/sspolicy/internal/clidoc"
	"github.com/secure-streams/sspolicy/internal/explain"
	"github.com/secure-streams/sspolicy/schema"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run executes the command.
func (c *completionCmd) Run(p *program, ctx *kong.Context) error {
	words := clidoc.Words{"names": explain.Names()}
	for _, v := range schema.Versions {
		words["versions"] = append(words["versions"], v.String())
	}
	script := map[string]func(*kong.Application, clidoc.Words) string{
		"bash": clidoc.Bash, "zsh": clidoc.Zsh, "fish": clidoc.Fish,
	}[c.Shell]
	return p.output("", write(script(ctx.Model, words)))
}

type manCmd struct{}

// Run executes the command.
func (manCmd) Run(p *program, ctx *kong.Context) error {
	return p.output("", write(clidoc.Man(ctx.Model)))
}
