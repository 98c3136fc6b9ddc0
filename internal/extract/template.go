package extract

import (
	"regexp"
	"strings"
)

// placeholder matches a placeholder in the normalized form.
var placeholder = regexp.MustCompile(`@[A-Za-z_][A-Za-z0-9_]*@`)

var (
	atName     = regexp.MustCompile(`^@([A-Za-z_][A-Za-z0-9_]*)@`)
	dollarName = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
	verb       = regexp.MustCompile(`^%[-+ 0#]*(?:[0-9]+|\*)?(?:\.(?:[0-9]+|\*))?(?:hh|h|ll|l|z|j|t)?([cdiouxXsfgeG])`)
)

// fill returns the text with placeholders replaced: by their value, or by @NAME@.
func (m *mapping) fill(mode Mode, values map[string]string) *mapping {
	if mode == None {
		return m
	}
	text := m.text.String()
	out := &mapping{src: m.src, escaped: m.escaped}
	verbs := mode == Printf || mode == Auto && hasVerb(text)
	done := 0
	replace := func(start, end int, name, with string) {
		if value, ok := values[name]; ok {
			with = value
		}
		out.slice(m, done, start)
		at := m.span(start, end)
		out.add(with, at.Start, at.End, -1)
		done = end
	}
	scan(text, func(at int, quoted bool) int {
		rest := text[at:]
		switch rest[0] {
		case '@':
			if found := atName.FindStringSubmatch(rest); found != nil && mode != Printf {
				replace(at, at+len(found[0]), found[1], found[0])
				return len(found[0])
			}
		case '$':
			if found := dollarName.FindStringSubmatch(rest); found != nil && mode != Printf {
				if _, defined := values[found[1]]; defined || !quoted {
					replace(at, at+len(found[0]), found[1], "@"+found[1]+"@")
					return len(found[0])
				}
			}
		case '%':
			if strings.HasPrefix(rest, "%%") && verbs {
				replace(at, at+2, "%%", "%")
				return 2
			}
			if found := verb.FindStringSubmatch(rest); found != nil && verbs {
				replace(at, at+len(found[0]), found[0], "@"+found[1]+"@")
				return len(found[0])
			}
		}
		return 1
	})
	out.slice(m, done, len(text))
	return out
}

// scan calls f for each byte outside of comments that no earlier call has consumed; f
// returns the number of bytes it consumes.
func scan(text string, f func(at int, quoted bool) int) {
	quoted := false
	for at := 0; at < len(text); {
		switch c := text[at]; {
		case c == '\\' && quoted:
			at += 2
			continue
		case c == '"':
			quoted = !quoted
		case c == '\n':
			quoted = false
		case c == '#' && !quoted:
			end := strings.IndexByte(text[at:], '\n')
			if end < 0 {
				return
			}
			at += end
			continue
		}
		at += f(at, quoted)
	}
}

// hasVerb reports whether a text is certainly a printf format: a verb stands for a value,
// or is a whole string.
func hasVerb(text string) (found bool) {
	scan(text, func(at int, quoted bool) int {
		v := verb.FindString(text[at:])
		found = found || v != "" && (!quoted || text[at-1] == '"' && strings.HasPrefix(text[at+len(v):], `"`))
		return 1
	})
	return found
}
