package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var syntax = &lint.Rule{
	Name:     schema.RuleSyntax,
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Firm:     true,
	Summary:  "lws cannot read the text as a policy",
	Why: `A policy is one JSON object (RFC 8259), in which "#" begins a comment up to the end of the
line. The parser continues after an error, so that one run shows all of them.`,
	LWS: `lws stops at the first error and logs only that parsing failed. A truncated text is
worse: lws uses the part that it has read (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com" "http_method": "GET", "port": 8443 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443 } } ] }`,
}
