package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var longNumber = &lint.Rule{
	Name:       "long-number",
	ParserOnly: true,
	Severity:   schema.Error,
	Summary:    "a number has more than 20 digits",
	Why: `No number in a policy needs that many. Leading zeros and the digits of a fraction
and an exponent count too.`,
	LWS:  `The policy is refused (4.1.6 to 5.0.0).`,
	Bad:  `{ "schema-version": 1000000000000000000000, "s": [] }`,
	Good: `{ "schema-version": 1, "s": [] }`,
	Check: func(p *lint.Pass) {
		for _, v := range unusual(p).long {
			n := 0
			for _, c := range []byte(v.raw) {
				if '0' <= c && c <= '9' {
					n++
				}
			}
			if n > 20 {
				p.Reportf(v.at, "this number has %d digits: lws refuses more than 20", n)
			}
		}
	},
}
