package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/extract"
	"github.com/secure-streams/sspolicy/internal/ignore"
	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

// fileFlags name policies and their configuration.
type fileFlags struct {
	Config string   `placeholder:"FILE" help:"The configuration for all policies. The default is the nearest .sspolicy.json in or above the folder of each policy; none turns it off."`
	Detect bool     `help:"Skip named files that would be skipped in a folder: ignored files, and files that are not policies."`
	Files  []string `arg:"" name:"file" help:"The policies, and folders to search for policies: *.json files that hold streamtypes, without those that .gitignore files or the configuration exclude."`

	extracted *extractFlags // also find policies in other files; nil if the command does not
}

// A target is a policy and the configuration for it.
type target struct {
	file   string
	config *config.Config
}

// targets returns the policies that the flags name, without duplicates. They are in
// the order of the flags; those of a folder are sorted. Mistakes in a configuration
// are reported on standard error.
func (f *fileFlags) targets(p *program) ([]target, error) {
	return (&search{program: p, flags: f, what: "policies", wants: f.isPolicy}).run()
}

// A search collects targets.
type search struct {
	*program
	flags   *fileFlags
	what    string                                   // what to search for in folders
	wants   func(file string, c *config.Config) bool // whether a file is such
	ignored ignore.Tree
	configs map[string]*config.Config // by folder
	seen    map[string]bool           // by identity
	targets []target
}

// run returns the targets.
func (s *search) run() ([]target, error) {
	s.configs, s.seen = map[string]*config.Config{}, map[string]bool{}
	for _, file := range s.flags.Files {
		if err := s.add(file); err != nil {
			return nil, err
		}
	}
	return s.targets, nil
}

// add adds a file, or the matching files in a folder.
func (s *search) add(file string) error {
	if file != "-" {
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			return s.folder(file)
		}
	}
	c, err := s.config(file)
	if err != nil {
		return err
	}
	if s.flags.Detect && file != "-" {
		abs, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		if ignored, err := s.ignored.Covers(abs); err != nil {
			return err
		} else if ignored || c.Excludes(file) || !s.wants(file, c) {
			return nil
		}
	}
	s.append(file, c)
	return nil
}

// append adds a file unless it is a duplicate.
func (s *search) append(file string, c *config.Config) {
	if id := identity(file); !s.seen[id] {
		s.seen[id] = true
		s.targets = append(s.targets, target{file, c})
	}
}

// folder adds the matching files below a folder. It does not follow symbolic links.
func (s *search) folder(dir string) error {
	found := false
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return fileError(file, err)
		}
		if file == dir {
			return nil
		}
		abs, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		ignored, err := s.ignored.Match(abs, d.IsDir())
		switch {
		case err != nil:
			return err
		case d.IsDir() && (ignored || d.Name() == ".git"):
			return fs.SkipDir
		case ignored || !d.Type().IsRegular() || !strings.EqualFold(filepath.Ext(file), ".json") && (s.flags.extracted == nil || !extract.Holds(file)):
			return nil
		}
		c, err := s.config(file)
		if err != nil {
			return err
		}
		if !c.Excludes(file) && s.wants(file, c) {
			found = true
			s.append(file, c)
		}
		return nil
	})
	if err == nil && !found && !s.flags.Detect {
		return fmt.Errorf("%s: no %s in this folder", dir, s.what)
	}
	return err
}

// config returns the configuration for a file.
func (s *search) config(file string) (*config.Config, error) {
	dir := filepath.Dir(file) // for "-": the working directory
	if s.flags.Config != "" {
		dir = ""
	}
	if c := s.configs[dir]; c != nil {
		return c, nil
	}
	c, err := s.load(dir)
	s.configs[dir] = c
	return c, err
}

// load reads the named configuration, or the nearest one of a folder.
func (s *search) load(dir string) (*config.Config, error) {
	return s.configuration(s.flags.Config, dir)
}

// nearest returns the nearest configuration of a document.
func (p *program) nearest(d *schema.Document) (*config.Config, error) {
	return p.configuration("", filepath.Dir(d.Source.Name))
}

// configuration reads the configuration in a file or, if file is "", the nearest
// one of a folder. "none" stands for an empty one. Mistakes are reported on
// standard error.
func (p *program) configuration(file, dir string) (*config.Config, error) {
	read := p.read
	if file == "" {
		found, err := config.Find(dir)
		if err != nil {
			return nil, err
		}
		file = relative(found)
		read = func(file string) ([]byte, error) { return readfile.Regular(file, schema.MaxSize) }
	}
	text := []byte("{}")
	if file != "" && file != "none" {
		var err error
		if text, err = read(file); err != nil {
			return nil, fileError(file, err)
		}
	}
	c, found := config.Parse(file, text)
	if len(found) > 0 {
		return nil, errors.Join(report.Write(p.stderr, report.FormatText, found), &exitError{code: exitUsage})
	}
	return c, nil
}

// ownRules returns the rules that the configurations of targets add, without
// duplicates.
func ownRules(targets []target) (own []*lint.Rule) {
	seen := map[*config.Config]bool{}
	for _, t := range targets {
		if seen[t.config] {
			continue
		}
		seen[t.config] = true
		for _, r := range t.config.OwnRules() {
			if lint.Lookup(own, r.Name) == nil {
				own = append(own, r)
			}
		}
	}
	return own
}

// relative returns the name of a file relative to the working directory, if it is
// below it.
func relative(file string) string {
	if wd, err := os.Getwd(); err == nil && file != "" {
		if rel, err := filepath.Rel(wd, file); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return file
}

// isPolicy reports whether a file looks like a policy, or is a fragment according
// to its configuration and not a test file. A file that cannot be opened counts as a
// policy, so that its reader reports the error.
func (f *fileFlags) isPolicy(file string, c *config.Config) bool {
	if _, _, fragment := c.Fragment(file); fragment && !isTests(file, c) {
		return true
	}
	text, err := readFile(file)
	if _, tooLarge := errors.AsType[*readfile.TooLargeError](err); err != nil {
		return !tooLarge
	}
	if f.extracted != nil && extract.Holds(file) {
		if codegen.Generated(text) {
			return false // its source is the policy
		}
		policies, err := f.extracted.policies(file, text)
		return err == nil && slices.ContainsFunc(policies, func(p *extract.Policy) bool { return looksLikePolicy(p.Document) })
	}
	return looksLikePolicy(schema.Parse(file, text))
}

// looksLikePolicy reports whether a document contains streamtypes, or another
// section together with a second key of a policy.
func looksLikePolicy(d *schema.Document) bool {
	keys, sections := 0, 0
	for _, m := range d.Corrected().Root.Members() {
		if m.Key == "$schema" || schema.LookupKey(schema.Top, m.Key) == nil {
			continue
		}
		keys++
		if m.Value.Kind == schema.ArrayKind {
			sections++
		}
		if m.Key == string(schema.Streams) && slices.ContainsFunc(m.Value.Elems(), isDefinition) {
			return true
		}
	}
	return sections > 0 && keys > 1
}

// isDefinition reports whether an element of a section has the form
// {"name": {...}}.
func isDefinition(e *schema.Element) bool {
	return slices.ContainsFunc(e.Value.Members(), func(m *schema.Member) bool { return m.Value.Kind == schema.ObjectKind })
}
