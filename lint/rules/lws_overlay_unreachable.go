package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var lwsOverlayUnreachable = &lint.Rule{
	Name:     overlay.RuleLWSUnreachable,
	Severity: schema.Error,
	Firm:     true,
	Summary:  "a fragment adds a streamtype, which no program can open",
	Why: `lws reads it, but finds only streamtypes of the policy in use. Set a new policy
instead.`,
	LWS: `After the overlay, a stream of that type cannot be created, and a later fragment cannot
change it either (5.0.0).`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad:        `{ "s": [ { "new": { "port": 8443 } } ] }`,
	Good:       `{ "s": [ { "api": { "port": 8443 } } ] }`,
}
