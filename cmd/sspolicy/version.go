package main

import (
	"fmt"
	"runtime/debug"
)

type versionCmd struct{}

// Run executes the command.
func (versionCmd) Run(p *program) error {
	_, err := fmt.Fprintf(p.stdout, "sspolicy %s\n", version())
	return err
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "(unknown)"
}
