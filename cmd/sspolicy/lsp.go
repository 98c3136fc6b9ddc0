package main

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"runtime/debug"

	"github.com/secure-streams/sspolicy/internal/lsp"
)

type lspCmd struct {
	Stdio bool `help:"Use standard input and output. This is the only transport; some editors pass the flag."`
}

// Help returns the description for "sspolicy lsp --help".
func (lspCmd) Help() string {
	return "A language server (LSP 3.17) for editors: findings while typing, fixes, completion, hover, names, formatting. docs/editors.md has set-ups."
}

// stdio is the client connected to standard input and output.
type stdio struct {
	io.Reader
	io.Writer
	close func() error
}

func (s stdio) Close() error { return s.close() }

// Run executes the command.
func (c *lspCmd) Run(p *program) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // each keystroke makes a new tree
	}
	client := stdio{p.stdin, p.stdout, func() error { return nil }}
	if closer, ok := p.stdin.(io.Closer); ok {
		client.close = closer.Close // ends a pending read
	}
	err := lsp.Serve(context.Background(), client, version(), log.New(p.stderr, "sspolicy lsp: ", 0))
	if errors.Is(err, lsp.ErrExit) {
		return &exitError{exitFindings, err}
	}
	return err
}
