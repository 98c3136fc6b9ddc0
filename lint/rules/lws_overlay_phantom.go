package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var lwsOverlayPhantom = &lint.Rule{
	Name:     overlay.RuleLWSPhantom,
	Severity: schema.Error,
	Firm:     true,
	Summary:  "an unknown key in a fragment captures the keys after it",
	Why: `The key is misspelt, or this version of lws does not have it. lws reads it as a
streamtype, which gets every later key of the object: a new one, or one of the policy whose name
begins with the key.`,
	LWS: `After {"oportunistic": true, "port": 99} the port is unchanged (5.0.0; read in 4.1.6 to
4.5.8). See unknown-key and dotted-name.`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad:        `{ "s": [ { "api": { "prot": 1, "port": 8443 } } ] }`,
	Good:       `{ "s": [ { "api": { "port": 8443 } } ] }`,
}
