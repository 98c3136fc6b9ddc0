package main

import (
	"cmp"
	"errors"

	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/schema"
)

// checkFlags are the flags of the commands that report on policies.
type checkFlags struct {
	LWS []schema.Version `name:"lws" complete:"versions" placeholder:"VERSION" help:"The lws versions that the policies must work with, 4.1 to 5.0 (${lws})."`
	reportFlags
	fileFlags
}

// A checker returns the findings in a file.
type checker func(target) ([]schema.Diagnostic, error)

// check reports the findings of all policies, as returned by run. It continues
// after a file that cannot be read. The command fails on findings of a level: that
// of the flag, else of the configuration, else the default.
func (c *checkFlags) check(p *program, targets []target, level report.Level, run checker) error {
	if c.LWS != nil && len(c.LWS) == 0 {
		return usage("--lws: missing version")
	}
	var files, names []string
	for _, t := range targets {
		files = append(files, t.file)
	}
	collectLate(memoryToCheck, files...)
	outs, err := c.outputs(p, files)
	if err != nil {
		return err
	}
	levels := map[string]report.Level{} // by the name of the source
	var all []schema.Diagnostic
	var unread error
	for _, t := range targets {
		file := displayName(t.file)
		levels[file] = cmp.Or(c.FailLevel, report.Level(t.config.FailLevel), level)
		found, err := run(t)
		if err != nil {
			unread = errors.Join(unread, err)
			continue
		}
		names = append(names, file)
		for _, g := range found { // including those in fragments
			if name := g.Span.Source.Name; levels[name] == "" {
				levels[name] = levels[file]
			}
		}
		all = append(all, found...)
	}
	fails := func(d schema.Diagnostic) bool { return levels[d.Span.Source.Name].Fails(d.Severity) }
	if err := c.write(p, outs, names, ownRules(targets), all, fails); err != nil {
		return err
	}
	if err := c.reportUnmatched(p, targets, files); err != nil {
		return err
	}
	if unread != nil {
		return unread
	}
	for _, d := range all {
		if fails(d) {
			return errFindings
		}
	}
	return nil
}

// reportUnmatched warns of patterns of fragments that match no file. It does not fail:
// fragments may be generated.
func (c *checkFlags) reportUnmatched(p *program, targets []target, files []string) error {
	if c.Quiet {
		return nil
	}
	var found []schema.Diagnostic
	seen := map[string]bool{} // a configuration is read for each folder
	for _, t := range targets {
		if !seen[t.config.File] {
			seen[t.config.File] = true
			found = append(found, t.config.Unmatched(files)...)
		}
	}
	return report.Write(p.stderr, report.FormatText, found)
}

// versions returns the versions of lws to check for: those of the flag, else of the
// configuration.
func (c *checkFlags) versions(cfg *config.Config) []schema.Version {
	if c.LWS != nil {
		return c.LWS
	}
	return cfg.LWS
}
