// Package ignore matches file names against the patterns of .gitignore files.
package ignore

import (
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// A List holds patterns; the last one that matches a name decides. The zero List
// ignores nothing.
type List struct {
	patterns []pattern
}

type pattern struct {
	glob   string // matched against the whole name
	negate bool
	dir    bool // matches only folders
}

// Parse reads a .gitignore file. Patterns that are malformed never match, as in
// Git.
func Parse(text string) *List {
	l := &List{}
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		line = trim(strings.TrimRight(line, "\r\n"))
		if line != "" && line[0] != '#' {
			_ = l.Add(line)
		}
	}
	return l
}

// trim removes trailing blanks of a line, except one after a backslash.
func trim(line string) string {
	for strings.HasSuffix(line, " ") && !strings.HasSuffix(line, `\ `) {
		line = line[:len(line)-1]
	}
	return line
}

// Add appends a pattern. It returns an error and adds nothing if the pattern is
// malformed.
func (l *List) Add(text string) error {
	var p pattern
	glob := text
	glob, p.negate = strings.CutPrefix(glob, "!")
	glob, p.dir = strings.CutSuffix(glob, "/")
	anchored := strings.Contains(glob, "/")
	glob = strings.TrimPrefix(glob, "/")
	// Git has no alternatives in braces.
	p.glob = braces.Replace(glob)
	if !anchored {
		p.glob = "**/" + p.glob
	}
	if glob == "" || !doublestar.ValidatePattern(p.glob) {
		return fmt.Errorf("malformed pattern %q", text)
	}
	l.patterns = append(l.patterns, p)
	return nil
}

var braces = strings.NewReplacer(`\{`, `\{`, `\}`, `\}`, `{`, `\{`, `}`, `\}`)

// Folders returns the folders, without wildcards, in which the names that the
// patterns match begin: "." for a pattern without a folder.
func (l *List) Folders() (all []string) {
	for _, p := range l.patterns {
		if folder, _ := doublestar.SplitPattern(p.glob); !p.negate {
			all = append(all, folder)
		}
	}
	return all
}

// Match reports whether the patterns ignore a file or folder, and whether any of
// them matches. The name is relative to the folder of the list and uses slashes.
// Match does not consider parent folders.
func (l *List) Match(name string, dir bool) (ignored, decided bool) {
	for i := len(l.patterns) - 1; i >= 0; i-- {
		p := l.patterns[i]
		if p.dir && !dir {
			continue
		}
		if ok, _ := doublestar.Match(p.glob, name); ok {
			return !p.negate, true
		}
	}
	return false, false
}

// Covers reports whether the patterns ignore a file or one of its parent folders.
func (l *List) Covers(name string) bool {
	for i := range len(name) {
		if name[i] != '/' {
			continue
		}
		if ignored, _ := l.Match(name[:i], true); ignored {
			return true
		}
	}
	ignored, _ := l.Match(name, false)
	return ignored
}
