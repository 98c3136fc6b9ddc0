package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var overlayBeyondLWS = &lint.Rule{
	Name:     overlay.RuleBeyondLWS,
	Severity: schema.Info,
	Firm:     true,
	Summary:  "a fragment defines or removes something that lws's own overlay cannot",
	Why: `The resulting policy is correct. But a device that applies the fragment with
lws_ss_policy_overlay gets a different one: "sspolicy overlay --mode lws=5.0" shows it.`,
	LWS: `Only streamtypes of a fragment change the policy in use. Only later references in the
fragment find its backoff schemes, certificates and trust stores, and a scheme does not replace
one of the base. via-socks5 and metrics have no effect (5.0.0).`,
	Base: overlayBase,
	Bad:  `{ "retry": [ { "default": { "backoff": [ 10 ] } } ] }`,
	Good: `{ "s": [ { "api": { "timeout_ms": 10 } } ] }`,
}
