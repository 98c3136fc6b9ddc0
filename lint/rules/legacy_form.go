package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var legacyForm = &lint.Rule{
	Name:     schema.RuleLegacyForm,
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "no version of lws reads this form, although lws documents it",
	Why: `The example in lws's README has a trust store in the form {"name": ["cert"]}, and the
protocol h1get. Neither works.`,
	LWS: `lws ignores a trust store in that form, and then refuses the streamtype that names it. It
refuses the protocol (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1get" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET" } } ] }`,
}
