package apilogin

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A cookieFilter finds a cookie.
type cookieFilter struct {
	name  string
	plain string
}

func newCookieFilter(name string) cookieFilter { return cookieFilter{name, plain(name)} }

// strip removes the cookie from a request, in any form that a server might accept
// as it: other case or punctuation, encoded, quoted, after a comma. So it may
// remove another cookie too.
func (f cookieFilter) strip(h http.Header) {
	h.Del("Cookie2")
	var keep []string
	for _, line := range h["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			if pair = textproto.TrimString(pair); pair != "" && !f.in(pair) {
				keep = append(keep, pair)
			}
		}
	}
	if len(keep) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = []string{strings.Join(keep, "; ")}
}

// in reports whether a pair of a Cookie header may be the cookie.
func (f cookieFilter) in(pair string) bool {
	for range 4 { // several servers may decode it in turn
		d := unescape(pair)
		if d == pair {
			break
		}
		pair = d
	}
	for _, piece := range strings.FieldsFunc(pair, func(r rune) bool { return strings.ContainsRune(",;&", r) }) {
		name, _, _ := strings.Cut(piece, "=")
		name, _, _ = strings.Cut(name, "[") // an element of an array, for PHP
		if plain(name) == f.plain {
			return true
		}
	}
	return false
}

// plain returns the letters and digits of a name, in lower case.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(name))
}

// unescape decodes valid escapes and leaves the rest unchanged.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if d, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(d)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// insert adds the cookie to a request.
func (f cookieFilter) insert(h http.Header, value string) {
	pair := f.name + "=" + value
	if rest := h.Get("Cookie"); rest != "" {
		pair = rest + "; " + pair
	}
	h["Cookie"] = []string{pair}
}

// take removes the cookie from an answer. It returns the value that the last one
// sets, and whether there was one; an empty value deletes the session.
func (f cookieFilter) take(h http.Header) (value string, ok bool) {
	h["Set-Cookie"] = slices.DeleteFunc(h["Set-Cookie"], func(line string) bool {
		name, _, _ := strings.Cut(line, ";")
		if !f.in(name) {
			return false
		}
		c, err := http.ParseSetCookie(line)
		if err != nil || c.Name != f.name {
			return true
		}
		value, ok = c.Value, true
		if c.Quoted {
			value = `"` + value + `"`
		}
		if c.MaxAge < 0 || !c.Expires.IsZero() && c.Expires.Before(time.Now()) && c.MaxAge == 0 {
			value = ""
		}
		return true
	})
	if len(h["Set-Cookie"]) == 0 {
		delete(h, "Set-Cookie")
	}
	return value, ok
}
