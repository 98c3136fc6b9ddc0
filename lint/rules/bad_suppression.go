package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var badSuppression = &lint.Rule{
	Name:     lint.RuleBadSuppression,
	Severity: schema.Error,
	Fixes:    lint.UnsafeFix,
	Summary:  "a comment that should suppress findings does not",
	Why: `A comment suppresses findings on its line or on the line below:

    # sspolicy:ignore RULE, ... -- REASON

or, for the whole file, with sspolicy:ignore-file. The reason is required: it is for the next reader.
Rules about policies that lws cannot read cannot be suppressed.`,
	LWS: `lws skips comments from "#" to the end of the line (4.3.10 and 5.0.0).`,
	Bad: `{ # sspolicy:ignore unknown-key
  "s": [] }`,
	Good: `{ "extra": 1, # sspolicy:ignore unknown-key -- read by our own tools
  "s": [] }`,
	Firm: true,
}
