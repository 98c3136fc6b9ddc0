package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var notAPolicy = &lint.Rule{
	Name:     schema.RuleNotPolicy,
	Severity: schema.Error,
	Firm:     true,
	Summary:  "the file is not a Secure Streams policy",
	Why: `A policy is a JSON object with at least one key of a policy, such as "s". Other files are
not checked further, and not fixed.`,
	LWS:  `lws ignores unknown keys, and loads a policy without streams (4.1.6 to 5.0.0).`,
	Bad:  `{ "name": "thermometer", "version": "1.0.0" }`,
	Good: `{ "release": "1.0.0", "s": [] }`,
}
