package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var laxSyntax = &lint.Rule{
	Name:     schema.RuleLaxSyntax,
	Severity: schema.Warning,
	Fixes:    lint.SafeFix,
	Summary:  "lws reads this as it was meant, but it is not JSON",
	Why:      `Editors, and every other program that reads JSON, refuse such a policy.`,
	LWS: `lws passes over a comma before a closing "]" (but not before a "}"), over one
"}" too many before a "]", and over zeros before a number (4.3.10 and 5.0.0).`,
	Bad:  `{ "retry": [ { "default": { "backoff": [ 1000, ] } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ] }`,
}
