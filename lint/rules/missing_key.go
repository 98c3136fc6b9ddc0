package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var missingKey = &lint.Rule{
	Name:     schema.RuleMissingKey,
	Severity: schema.Error,
	Summary:  "an entry lacks a required key",
	Why:      `An entry of trust_stores, metrics or auth needs a name, and a trust store its stack.`,
	LWS: `lws accepts a trust store without a stack, and crashes when a streamtype uses it.
Without a name, lws adds its certificates to the previous store, or crashes (4.1.6 to 5.0.0).`,
	Bad:  `{ "auth": [ { "type": "sigv4", "blob": 0 } ] }`,
	Good: `{ "auth": [ { "name": "aws", "type": "sigv4", "blob": 0 } ] }`,
}
