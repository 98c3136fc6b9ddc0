package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var overlayNoEffect = &lint.Rule{
	Name:     overlay.RuleNoEffect,
	Severity: schema.Warning,
	Firm:     true,
	Summary:  "a fragment removes something that the policy does not have, or has an empty list",
	Why: `null removes a setting of the policy, but the policy has none of this name. Entries of
metadata and http_resp_map are replaced by name, so an empty list changes nothing: null removes
the list.`,
	LWS:  `null sets a number to 0 and a string to "", and an empty list does nothing (5.0.0).`,
	Base: overlayBase,
	Bad:  `{ "s": [ { "api": { "timeout_ms": null } } ] }`,
	Good: `{ "s": [ { "api": { "retry": null } } ] }`,
}
