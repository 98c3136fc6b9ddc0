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
	Summary:  "the text is not a policy that lws can read",
	Why: `A policy is one JSON object (RFC 8259), in which "#" may start a comment that
runs to the end of its line. The parser goes on after an error, so that one run
shows all of them.`,
	LWS: `lws stops at the first error and says only that parsing failed. A text that
ends too early is worse: it counts as loaded, and what was read so far is in
force (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com" "http_method": "GET", "port": 8443 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443 } } ] }`,
}
