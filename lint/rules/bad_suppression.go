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
	Why: `A finding is suppressed by a comment on its line or the line above:

    # sspolicy:ignore RULE, ... -- REASON

or, for the whole file, by sspolicy:ignore-file. The reason is for whoever reads
the policy next, and must not be missing. Rules about what lws crashes on can't
be suppressed.`,
	LWS: `lws reads over comments from "#" to the end of the line (4.3.10 and 5.0.0).`,
	Bad: `{ # sspolicy:ignore unknown-key
  "s": [] }`,
	Good: `{ "extra": 1, # sspolicy:ignore unknown-key -- read by our own tools
  "s": [] }`,
	Firm: true,
}
