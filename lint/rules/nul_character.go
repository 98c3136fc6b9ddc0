package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var nulCharacter = &lint.Rule{
	Name:     "nul-character",
	Severity: schema.Error,
	Summary:  "a string contains a NUL character",
	Why:      `lws stores C strings, which end at a NUL.`,
	LWS: `lws and policy2c lose the text after \u0000 (4.1.6 to 5.0.0). Only the stored length of a
metadata value includes it.`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com\u0000.org", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, v := range unusual(p).escaped {
			if strings.Contains(schema.Unquote(v.raw), "\x00") {
				p.Reportf(v.at, `lws ends the string at \u0000`)
			}
		}
	},
}
