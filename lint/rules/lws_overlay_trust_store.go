package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var lwsOverlayTrustStore = &lint.Rule{
	Name:     overlay.RuleLWSTrustStore,
	Severity: schema.Error,
	Firm:     true,
	Summary:  "a trust store of a fragment cannot be used",
	Why: `lws prepares trust stores for TLS only when it sets a policy, so the connection fails.
Put the trust store into the policy.`,
	LWS: `The streamtype refers to the new trust store, which has no vhost (5.0.0; the failure is read
in lib/secure-streams/policy-common.c).`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad: `{ "certs": [ { "test-ca": "` + exampleRoot + `" } ],
  "trust_stores": [ { "name": "test", "stack": [ "test-ca" ] } ],
  "s": [ { "api": { "tls_trust_store": "test" } } ] }`,
	Good: `{ "s": [ { "api": { "port": 8443 } } ] }`,
}
