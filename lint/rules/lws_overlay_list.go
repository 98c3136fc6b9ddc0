package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var lwsOverlayList = &lint.Rule{
	Name:     overlay.RuleLWSList,
	Severity: schema.Warning,
	Firm:     true,
	Summary:  "lws does not merge a list by name",
	Why: `lws adds metadata of a fragment to the policy, even if an item of that name exists.
Existing streams have no room for the new items, and overrun their memory. http_resp_map replaces
the map of the policy, and an empty list changes nothing.`,
	LWS:        `The new items come first, and their number wraps at 256 (5.0.0).`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad:        `{ "s": [ { "api": { "metadata": [ { "token": "x-token:" } ] } } ] }`,
	Good:       `{ "s": [ { "api": { "port": 8443 } } ] }`,
}
