package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var lwsOverlaySection = &lint.Rule{
	Name:     overlay.RuleLWSSection,
	Severity: schema.Warning,
	Firm:     true,
	Summary:  "a definition or setting of a fragment does not change the policy",
	Why: `Only streamtypes of a fragment change the policy in use. Refer to the definition later
in the fragment, or set a new policy.`,
	LWS: `A backoff scheme of a fragment does not replace the one of the same name in the policy.
via-socks5 and metrics have no effect (5.0.0; the metrics are read).`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad:        `{ "retry": [ { "default": { "backoff": [ 10 ] } } ] }`,
	Good:       `{ "retry": [ { "fast": { "backoff": [ 10 ] } } ], "s": [ { "api": { "retry": "fast" } } ] }`,
}
