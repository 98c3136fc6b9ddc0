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
	Summary:  "a fragment defines or removes something that lws's own overlay could not",
	Why: `The result is a policy like any other. A device that is to apply the fragment with
lws_ss_policy_overlay gets something else: "sspolicy overlay --mode lws=5.0" shows it.`,
	LWS: `Only streamtypes of a fragment reach the policy in use. Backoff schemes, certificates and
trust stores of a fragment are known only to later references in the fragment itself, and a
scheme of the same name does not replace that of the base. via-socks5 and metrics have no
effect (5.0.0).`,
	Base: overlayBase,
	Bad:  `{ "retry": [ { "default": { "backoff": [ 10 ] } } ] }`,
	Good: `{ "s": [ { "api": { "timeout_ms": 10 } } ] }`,
}
