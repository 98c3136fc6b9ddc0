package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var optionsKey = &lint.Rule{
	Name:       "options-key",
	ParserOnly: true,
	Severity:   schema.Error,
	Fixes:      lint.UnsafeFix,
	Summary:    "lws misreads options and does not use it",
	Why:        `No version of lws uses the options. Leave the key out.`,
	LWS: `lws reads the key as a streamtype called options. From 4.4 on that streamtype gets the
options, also of later streamtypes; 4.1 to 4.3 read each option as another streamtype. The last
one gets all following keys (4.1.6 to 5.0.0). policy2c omits options.`,
	Bad:  `{ "s": [ { "a": { "server": true, "protocol": "raw", "options": [ { "level": "1" } ], "port": 7681 } } ] }`,
	Good: `{ "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681 } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			if s := d.Get("options"); s != nil {
				remove(p.Reportf(s.Member.Name.Span, "lws makes a phantom streamtype of options, which gets every later key of %s, and does not use it: remove it", d), d, s)
			}
		}
	},
}
