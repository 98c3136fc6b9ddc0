package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var shortString = &lint.Rule{
	Name:     "short-string",
	Severity: schema.Info,
	Summary:  "lws may keep a string of one character inside a number",
	Why: `To save memory, lws searches all data that it has stored so far, including numbers and
flags, for the bytes of a string. If it finds them it keeps no copy, so the string changes with
the number. Instead of the path "/", use a longer path that the server accepts, but not "", for
which lws may use a byte of a pointer. The rule reports this once in a file.

It is a warning where flags of the same streamtype change the string.`,
	LWS: `With the flags opportunistic, nailed_up, urgent_tx, urgent_rx and long_poll before it,
http_url "/" becomes "?" when tls follows. In a policy of 60 streamtypes, two to four had another http_url
than "/", and two to six one with the bytes of an address in place of "" (4.1.6, 4.3.10 and 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "/" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "index.html" } } ] }`,
	Check: func(p *lint.Pass) {
		var first *schema.Diagnostic // of those that depend on numbers: one per file
		for _, d := range streams(p) {
			for i, s := range d.Settings {
				v := &s.Member.Value
				if s.Key == nil || v.Kind != schema.String || s.Key.Member == "" || s.Key.Ref != schema.Top || s.Key.Name == "protocol" || len(v.Text()) > 3 {
					continue
				}
				text := v.Text()
				becomes, by := foldedFlags(d.Settings, i, text)
				switch {
				case becomes != "":
					g := p.Reportf(v.Span, "lws keeps %s inside the flags before it: %s changes it to %s", schema.Quote(text), by, schema.Quote(becomes))
					g.Severity = schema.Warning
				case len(text) != 1:
				case first == nil:
					first = p.Reportf(v.Span, "lws may store %s in the bytes of a number, and change it with that number", schema.Quote(text))
				default:
					first.Related = append(first.Related, schema.Related{Span: v.Span, Message: schema.Quote(text) + " too"})
				}
			}
		}
	},
}

// foldedFlags checks whether lws merges text with equal bytes in the flags set before it, a
// 32-bit integer with the lowest byte first. It returns the text after later flags have
// been set, and the first flag that changes it.
func foldedFlags(settings []*schema.Setting, i int, text string) (becomes, by string) {
	var flags uint32
	for _, s := range settings[:i] {
		flags |= flagOf(s)
	}
	at := func(flags uint32, n int) byte { return byte(flags >> (8 * n)) }
	for from := 0; text != "" && from+len(text) < 4; from++ {
		match := at(flags, from+len(text)) == 0
		for n := range len(text) {
			match = match && text[n] == at(flags, from+n)
		}
		if !match {
			continue
		}
		final := flags
		for _, s := range settings[i+1:] {
			final |= flagOf(s)
			if by == "" && final>>(8*from) != flags>>(8*from) {
				by = s.Member.Key
			}
		}
		var b []byte
		for n := from; n < 4 && at(final, n) != 0; n++ {
			b = append(b, at(final, n))
		}
		if string(b) != text {
			return string(b), by
		}
		return "", ""
	}
	return "", ""
}

// flagOf returns the flag that a setting sets, if any.
func flagOf(s *schema.Setting) uint32 {
	if s.Key == nil || s.Key.Flag == "" || s.Key.Is("boolean") && s.Member.Value.Raw() != "true" {
		return 0
	}
	return 1 << s.Key.Bit
}
