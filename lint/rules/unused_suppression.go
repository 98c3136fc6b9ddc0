package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var unusedSuppression = &lint.Rule{
	Name:     lint.RuleUnusedSuppression,
	Severity: schema.Warning,
	Summary:  "a comment suppresses a finding that does not exist",
	Why:      `The mistake has been fixed, or the comment is on the wrong line.`,
	LWS:      `lws skips comments from "#" to the end of the line (4.3.10 and 5.0.0).`,
	Bad: `{ # sspolicy:ignore unknown-key -- read by our own tools
  "s": [] }`,
	Good: `{ "extra": 1, # sspolicy:ignore unknown-key -- read by our own tools
  "s": [] }`,
	Firm: true,
}
