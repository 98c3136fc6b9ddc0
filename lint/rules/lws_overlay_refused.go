package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var lwsOverlayRefused = &lint.Rule{
	Name:     overlay.RuleLWSRefused,
	Severity: schema.Error,
	Firm:     true,
	Summary:  "lws refuses the fragment",
	Why: `lws_ss_policy_overlay stops there and returns an error. Earlier changes stay, and lws
frees the policy in use, so the device crashes later. Refer only to earlier definitions of the
fragment itself, and begin the text with "{".`,
	LWS: `References of a fragment resolve to definitions of the fragment itself, in retry,
tls_trust_store, use_auth, server_cert and server_key. From 4.3 on, lws uses a text that does not
begin with "{" as the name of a file. Up to 4.3, {} is an error. An empty name crashes (5.0.0;
read in 4.1.6 to 4.5.8).`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad:        `{ "s": [ { "api": { "retry": "default" } } ] }`,
	Good:       `{ "s": [ { "api": { "timeout_ms": 100 } } ] }`,
}
