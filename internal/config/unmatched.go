package config

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/internal/ignore"
	"github.com/secure-streams/sspolicy/schema"
)

// A pattern names fragments.
type pattern struct {
	text string
	at   schema.Span
}

// Unmatched returns a warning for each pattern of fragments that matches none of the
// files, nor any other below the folder of the configuration. Folders that it cannot read
// may have a match.
func (c *Config) Unmatched(files []string) (found []schema.Diagnostic) {
	for _, f := range c.fragments {
		for _, p := range f.patterns {
			if !c.matched(p, files) {
				found = append(found, schema.Diagnostic{Rule: Rule, Severity: schema.Warning, Span: p.at,
					Message: "no fragment matches " + schema.QuoteName(p.text)})
			}
		}
	}
	return found
}

// matched reports whether a pattern matches one of the files or any other fragment.
func (c *Config) matched(p pattern, files []string) bool {
	var l ignore.List
	_ = l.Add(p.text) // the reader has checked it
	matches := func(file string) bool { return mayBeFragment(file) && c.covers(&l, file) }
	if slices.ContainsFunc(files, matches) {
		return true
	}
	found := false
	for _, folder := range l.Folders() {
		root := filepath.Join(c.dir, filepath.FromSlash(folder)) + string(filepath.Separator) // which may be a link
		_ = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				found = !errors.Is(err, fs.ErrNotExist)
			case d.IsDir() && d.Name() == ".git":
				return fs.SkipDir
			case !d.IsDir():
				found = matches(file)
			}
			if found {
				return fs.SkipAll
			}
			return nil
		})
	}
	return found
}

// mayBeFragment reports whether a file can be a fragment by its name. Configurations and
// tests are not policies, and patterns do not concern standard input.
func mayBeFragment(file string) bool {
	return filepath.Base(file) != Name && !strings.HasSuffix(file, TestSuffix) && file != "<stdin>"
}
