package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var wrongType = &lint.Rule{
	Name:     schema.RuleWrongType,
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "the value is not of the type that the key takes",
	Why:      `It is only a warning where lws makes of the value what was meant.`,
	LWS: `A flag is set by true alone: by "true" or 1 it is not. Of a string, a number is
read as far as there are digits. A section that is an object instead of an array
is ignored (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443, "tls": "true" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443, "tls": true } } ] }`,
}
