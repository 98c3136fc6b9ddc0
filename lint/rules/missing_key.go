package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var missingKey = &lint.Rule{
	Name:     schema.RuleMissingKey,
	Severity: schema.Error,
	Summary:  "a key that an entry must have is missing",
	Why:      `An entry of trust_stores, metrics or auth needs a name, and a trust store its stack.`,
	LWS: `A trust store without a stack is accepted, and lws crashes when a streamtype
uses it; without a name its certificates go into the store before it, or lws
crashes (4.1.6 to 5.0.0).`,
	Bad:  `{ "auth": [ { "type": "sigv4", "blob": 0 } ] }`,
	Good: `{ "auth": [ { "name": "aws", "type": "sigv4", "blob": 0 } ] }`,
}
