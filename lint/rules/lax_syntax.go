package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var laxSyntax = &lint.Rule{
	Name:     schema.RuleLaxSyntax,
	Severity: schema.Warning,
	Fixes:    lint.SafeFix,
	Summary:  "lws reads this as intended, but it is not JSON",
	Why:      `Editors and other programs that read JSON refuse such a policy.`,
	LWS: `lws ignores a comma before "]" (but not before "}"), one surplus "}" before "]", and zeros
before a number (4.3.10 and 5.0.0).`,
	Bad:  `{ "retry": [ { "default": { "backoff": [ 1000, ] } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ] }`,
}
