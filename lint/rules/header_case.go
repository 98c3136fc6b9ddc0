package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var headerCase = &lint.Rule{
	Name:     "header-case",
	Severity: schema.Info,
	Summary:  "the name of a header has capitals, so that lws does not find it in a response",
	Why: `It is no matter for what is sent. For a header that is to be taken from the response,
write small letters: the case of a header's name means nothing in HTTP.`,
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
					p.Reportf(m.Value.Span, "lws finds no header of a response by a name with capitals: %s would do", schema.Quote(lowerASCII(name)))
				}
			})
		}
	},
}

// lowerASCII returns s with its ASCII letters in lower case. Unlike
// strings.ToLower it makes no ASCII letter of another one, such as U+212A.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}
