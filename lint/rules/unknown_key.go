package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var unknownKey = &lint.Rule{
	Name:     schema.RuleUnknownKey,
	Severity: schema.Error,
	Fixes:    lint.MixedFix,
	Summary:  "there is no such key",
	Why: `Most often it is misspelt. A comment is written with "#", and settings that only
sspolicy knows stand in the object x-sspolicy at the top of the policy.`,
	LWS: `In a streamtype lws makes a new one of the unknown key, a phantom, and gives it
every key that follows: they are lost to the streamtype they stand in. The same
happens in a backoff scheme. Elsewhere the key is ignored (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "prot": 443, "tls": true } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 443, "tls": true } } ] }`,
}
