package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var lwsOverlayIncomplete = &lint.Rule{
	Name:     overlay.RuleLWSIncomplete,
	Severity: schema.Error,
	Firm:     true,
	Summary:  "the fragment is truncated, or text follows it",
	Why: `lws applies a fragment while it reads it, and reports no error for a truncated one. It
ignores text after the object.`,
	LWS: `lws applies a truncated text up to the last complete value, and returns -1. Otherwise it
returns the number of bytes after the object (5.0.0).`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad:        `{ "s": [ { "api": { "port": 8443 } } ]`,
	Good:       `{ "s": [ { "api": { "port": 8443 } } ] }`,
}
