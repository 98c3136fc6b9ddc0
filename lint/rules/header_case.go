package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var headerCase = &lint.Rule{
	Name:     "header-case",
	Severity: schema.Info,
	Summary:  "the name of a header has capitals, so lws does not find it in a response",
	Why: `Requests are not affected. For a header that is taken from the response write small letters;
the names of headers are case-insensitive.`,
	LWS:  `A metadata item for "X-Id:" stays empty, one for "x-id:" gets the header (4.2.2 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "metadata": [ { "id": "X-Id:" } ] } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "metadata": [ { "id": "x-id:" } ] } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if !http(d.Protocol()) {
				continue
			}
			list(d, "metadata", func(m *schema.Member) {
				if name := m.Value.Text(); m.Value.Kind == schema.String && lowerASCII(name) != name {
					p.Reportf(m.Value.Span, "lws does not find a header of a response by a name with capitals: write %s", schema.Quote(lowerASCII(name)))
				}
			})
		}
	},
}

// lowerASCII returns s with its ASCII letters in lower case. Unlike
// strings.ToLower it does not map other characters, such as U+212A, to ASCII.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}
