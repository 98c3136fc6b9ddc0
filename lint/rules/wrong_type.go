package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var wrongType = &lint.Rule{
	Name:     schema.RuleWrongType,
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "the value has the wrong type",
	Why:      `It is a warning where lws reads the value as intended.`,
	LWS: `Only true sets a flag; "true" and 1 do not. lws reads the leading digits of a string as a
number. It ignores a section that is an object instead of an array (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443, "tls": "true" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443, "tls": true } } ] }`,
}
