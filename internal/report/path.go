package report

import (
	"net/url"
	"path/filepath"
	"strings"
)

// stdin is the name of the Source of standard input.
const stdin = "<stdin>"

// path returns the name of a file for programs: with slashes, without "./", and relative
// if it is below the working directory.
func (r *Report) path(name string) string {
	if name == stdin {
		return name
	}
	name = filepath.Clean(name)
	if r.Dir != "" && filepath.IsAbs(name) {
		if rel, err := filepath.Rel(r.Dir, name); err == nil && filepath.IsLocal(rel) {
			name = rel
		}
	}
	return filepath.ToSlash(name)
}

// uri returns the name of a file as a URI reference. It is never empty.
func (r *Report) uri(name string) string {
	path := r.path(name)
	if name != stdin && filepath.IsAbs(filepath.FromSlash(path)) {
		u := url.URL{Scheme: "file", Path: "/" + strings.TrimPrefix(path, "/")} // C:/ becomes /C:/
		return u.String()
	}
	u := url.URL{Path: path}
	return strings.ReplaceAll(u.EscapedPath(), ":", "%3A") // a colon would end a scheme
}
