package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var unknownKey = &lint.Rule{
	Name:     schema.RuleUnknownKey,
	Severity: schema.Error,
	Fixes:    lint.MixedFix,
	Summary:  "the key does not exist",
	Why: `It is usually misspelt. For a comment use "#", for settings of sspolicy the object
x-sspolicy at the top of the policy.`,
	LWS: `In a streamtype, lws reads an unknown key as a new streamtype, a phantom, which gets all
following keys of the original. The same happens in a backoff scheme. Elsewhere lws ignores the
key (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "prot": 443, "tls": true } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 443, "tls": true } } ] }`,
}
