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
	Summary:  "the fragment ends too early, or goes on after its end",
	Why: `lws applies a fragment as far as it has been read, and reports no error for one that is cut
off. It ignores the text after the object.`,
	LWS: `A text that is cut off is applied up to the last complete value, and the call returns -1.
The number of bytes after the object is what it returns otherwise (5.0.0).`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad:        `{ "s": [ { "api": { "port": 8443 } } ]`,
	Good:       `{ "s": [ { "api": { "port": 8443 } } ] }`,
}
