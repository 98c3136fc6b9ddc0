package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/extract"
	"github.com/secure-streams/sspolicy/internal/project"
	"github.com/secure-streams/sspolicy/schema"
)

// settle is how long files must be unchanged before they are checked, since editors
// save in several steps.
const settle = 50 * time.Millisecond

// A watch caches the findings of files that have not changed since the last check. A nil
// watch caches nothing.
type watch struct {
	watcher         *fsnotify.Watcher
	checked         map[string]checkedFile
	bases           map[string]bool // the files of the policies under fragments
	files, findings int             // of the last check
}

type checkedFile struct {
	text     string
	policies []*extract.Policy
	found    []schema.Diagnostic
}

// known returns the cached findings of a file with this text.
func (w *watch) known(file string, text []byte) (checkedFile, bool) {
	if w == nil {
		return checkedFile{}, false
	}
	f, ok := w.checked[file]
	ok = ok && f.text == string(text)
	if ok {
		w.count(f)
	}
	return f, ok
}

// follow watches the base of a fragment. It must be called before the base is read, so that
// no change is missed.
func (w *watch) follow(f *project.Fragment) {
	if w == nil || f == nil || f.Base == "" {
		return
	}
	w.bases[filepath.Clean(f.Base)] = true
	_ = w.watcher.Add(filepath.Dir(f.Base)) // the report names a base that cannot be read
}

// add caches the findings of a file, unless it is a fragment, which depends on its base.
func (w *watch) add(t target, f checkedFile) {
	if w == nil {
		return
	}
	w.count(f)
	for _, p := range f.policies {
		if project.FragmentOf(p.Document, t.config) != nil {
			delete(w.checked, t.file)
			return
		}
	}
	w.checked[t.file] = f
}

func (w *watch) count(f checkedFile) {
	w.files++
	w.findings += len(f.found)
}

// repeat checks the files, and again whenever one changes, until the program is
// interrupted.
func (c *lintCmd) repeat(p *program) error {
	ctx, stop := interrupted()
	defer stop()
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("--watch: %w", err)
	}
	defer w.Close()
	for _, file := range slices.Concat(c.Files, c.Overlay) {
		if err := watchFolders(w, file); err != nil {
			return err
		}
		if settings, err := config.Find(filepath.Dir(file)); err == nil && settings != "" {
			if err := w.Add(filepath.Dir(settings)); err != nil {
				return fmt.Errorf("--watch: %s: %w", settings, err)
			}
		}
	}
	c.watch = &watch{watcher: w, checked: map[string]checkedFile{}, bases: map[string]bool{}}
	changed := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed.C:
			c.report(p)
		case err := <-w.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("--watch: %w", err)
			}
			clear(c.watch.checked) // anything may have changed
			for _, file := range slices.Concat(c.Files, c.Overlay) {
				if err := watchFolders(w, file); err != nil {
					complain(p.stderr, err)
				}
			}
			changed.Reset(settle)
		case e := <-w.Events:
			if info, err := os.Stat(e.Name); err == nil && info.IsDir() && c.within(e.Name) {
				if err := watchFolders(w, e.Name); err != nil {
					complain(p.stderr, err)
				}
				changed.Reset(settle) // the new folder may contain policies
			}
			if e.Op == fsnotify.Chmod || !c.depends(e.Name) {
				continue
			}
			if name := filepath.Base(e.Name); name == config.Name || name == ".gitignore" || name == filepath.Base(c.Config) {
				clear(c.watch.checked)
			}
			changed.Reset(settle)
		}
	}
}

// watchFolders watches the folder of a file, or a folder and its subfolders, since
// an editor may replace a file.
func watchFolders(w *fsnotify.Watcher, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fileError(file, err)
	}
	if !info.IsDir() {
		return w.Add(filepath.Dir(file))
	}
	return filepath.WalkDir(file, func(dir string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fileError(dir, err)
		case !d.IsDir():
			return nil
		case d.Name() == ".git":
			return fs.SkipDir
		}
		if err := w.Add(dir); err != nil {
			return fmt.Errorf("--watch: %s: %w", dir, err)
		}
		return nil
	})
}

// within reports whether a folder is in one that is searched for policies.
func (c *lintCmd) within(dir string) bool {
	return slices.ContainsFunc(c.Files, func(file string) bool {
		rel, err := filepath.Rel(file, dir)
		info, statErr := os.Stat(file)
		return err == nil && statErr == nil && info.IsDir() && filepath.IsLocal(rel)
	})
}

// depends reports whether findings may depend on a file, by its name.
func (c *lintCmd) depends(file string) bool {
	for _, f := range slices.Concat(c.Files, c.Overlay, []string{c.Config, c.Baseline}) {
		if filepath.Clean(f) == filepath.Clean(file) {
			return true
		}
	}
	name := filepath.Base(file)
	return c.watch.bases[filepath.Clean(file)] || name == ".gitignore" || strings.EqualFold(filepath.Ext(name), ".json") || extract.Holds(name)
}

// report checks the files once, after clearing the screen of a terminal. It also reports
// the absence of findings.
func (c *lintCmd) report(p *program) {
	if isTerminal(p.stdout) {
		fmt.Fprint(p.stdout, "\x1b[H\x1b[2J\x1b[3J")
	}
	c.watch.files, c.watch.findings = 0, 0
	err := c.once(p)
	var e *exitError
	switch {
	case err == nil && c.watch.findings == 0:
		fmt.Fprintf(p.stderr, "files: %d, no findings\n", c.watch.files)
	case errors.As(err, &e) && e.err == nil:
	case err != nil:
		complain(p.stderr, err)
	}
}
