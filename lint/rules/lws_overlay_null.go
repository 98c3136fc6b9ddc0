package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var lwsOverlayNull = &lint.Rule{
	Name:     overlay.RuleLWSNull,
	Severity: schema.Warning,
	Firm:     true,
	Summary:  "null does not remove a setting",
	Why:      `lws reads null as a value. Write the intended value.`,
	LWS: `null sets a number to 0 and a string to "", which differs from a missing value
(5.0.0).`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad:        `{ "s": [ { "api": { "port": null } } ] }`,
	Good:       `{ "s": [ { "api": { "port": 8443 } } ] }`,
}
