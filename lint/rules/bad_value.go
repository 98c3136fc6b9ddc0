package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var badValue = &lint.Rule{
	Name:     schema.RuleBadValue,
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "the key does not take this value",
	Why:      `The type is right, but the value has no meaning for the key.`,
	LWS: `lws refuses an unknown protocol. It reads a number up to the first character that is not a
digit, so that 1e3 is 1 (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443, "protocol": "http" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443, "protocol": "h1" } } ] }`,
}
