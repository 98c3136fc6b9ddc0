package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var lwsOverlayTarget = &lint.Rule{
	Name:     overlay.RuleLWSTarget,
	Severity: schema.Error,
	Firm:     true,
	Summary:  "lws changes a different streamtype",
	Why: `lws compares names only up to the length of the name in the fragment, and changes the
newest streamtype that begins with it. Write the whole name. If a newer one begins with it too, no
fragment can change the older one.`,
	LWS:        `{"cap": ...} changes captive_portal_detect (5.0.0; read in 4.1.6 to 4.5.8).`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad:        `{ "s": [ { "ap": { "port": 8443 } } ] }`,
	Good:       `{ "s": [ { "api": { "port": 8443 } } ] }`,
}
