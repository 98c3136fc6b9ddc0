package ignore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/secure-streams/sspolicy/internal/readfile"
)

// File is the name of the files that list what to ignore.
const File = ".gitignore"

// A Tree matches file names against the .gitignore files of a folder tree, reading
// each file once. The zero Tree is ready to use. It is not safe for concurrent use.
type Tree struct {
	lists map[string]*List // by folder; nil where there is no file
	roots map[string]string
}

// Match reports whether .gitignore files ignore a file or folder itself. The
// name is absolute. Files between the root of the repository and the folder of
// the name count, the nearest first.
func (t *Tree) Match(name string, dir bool) (bool, error) {
	root, err := t.root(filepath.Dir(name))
	if err != nil {
		return false, err
	}
	for folder := filepath.Dir(name); ; folder = filepath.Dir(folder) {
		l, err := t.list(folder)
		if err != nil {
			return false, err
		}
		if l != nil {
			rel, err := filepath.Rel(folder, name)
			if err != nil {
				return false, err
			}
			if ignored, decided := l.Match(filepath.ToSlash(rel), dir); decided {
				return ignored, nil
			}
		}
		if folder == root || folder == filepath.Dir(folder) {
			return false, nil
		}
	}
}

// Covers reports whether .gitignore files ignore a file or one of its parent
// folders. The name is absolute.
func (t *Tree) Covers(name string) (bool, error) {
	root, err := t.root(filepath.Dir(name))
	if err != nil {
		return false, err
	}
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return false, err
	}
	at := root
	parts := strings.Split(rel, string(filepath.Separator))
	for i, part := range parts {
		at = filepath.Join(at, part)
		if ignored, err := t.Match(at, i < len(parts)-1); ignored || err != nil {
			return ignored, err
		}
	}
	return false, nil
}

// root returns the folder of the repository that holds dir, or dir if there is
// none.
func (t *Tree) root(dir string) (string, error) {
	if root, ok := t.roots[dir]; ok {
		return root, nil
	}
	root := dir
	for folder := dir; ; folder = filepath.Dir(folder) {
		_, err := os.Lstat(filepath.Join(folder, ".git"))
		if err == nil {
			root = folder
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if folder == filepath.Dir(folder) {
			break
		}
	}
	if t.roots == nil {
		t.roots = map[string]string{}
	}
	t.roots[dir] = root
	return root, nil
}

// maxSize is the maximum size of a file of patterns.
const maxSize = 1 << 20

// list returns the patterns of a folder's own file, or nil.
func (t *Tree) list(dir string) (*List, error) {
	if l, ok := t.lists[dir]; ok {
		return l, nil
	}
	var l *List
	text, err := readfile.Regular(filepath.Join(dir, File), maxSize)
	if err == nil {
		l = Parse(string(text))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if t.lists == nil {
		t.lists = map[string]*List{}
	}
	t.lists[dir] = l
	return l, nil
}
