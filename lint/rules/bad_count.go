package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var badCount = &lint.Rule{
	Name:     schema.RuleBadCount,
	Severity: schema.Error,
	Summary:  "the list has too few or too many entries",
	Why: `A backoff scheme has at most 8 waits, a trust store 1 to 6 certificates, a
streamtype 255 metadata items and 16 mapped statuses.`,
	LWS: `lws refuses too many certificates or statuses; 4.1 to 4.3 also refuse a ninth wait. It
counts 256 metadata items as none. It accepts an empty trust store, and crashes when a
streamtype uses it (4.1.6 to 5.0.0).`,
	Bad:  `{ "trust_stores": [ { "name": "empty", "stack": [] } ] }`,
	Good: `{ "certs": [ { "ca": "MIIB" } ], "trust_stores": [ { "name": "one", "stack": [ "ca" ] } ] }`,
}
