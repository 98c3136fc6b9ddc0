package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

// overlayBase is the policy that the examples of rules about fragments change.
const overlayBase = `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "api": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                    "http_url": "v1", "opportunistic": true, "retry": "default" } } ] }`

var overlayUnknownStreamtype = &lint.Rule{
	Name:     overlay.RuleUnknownStreamtype,
	Severity: schema.Error,
	Firm:     true,
	Summary:  "a fragment changes a streamtype that the policy does not have",
	Why: `The name is probably misspelt. Names match exactly. To add a streamtype, use
"sspolicy overlay --allow-new".`,
	LWS: `lws's own overlay compares only up to the length of the name in the fragment. If it
finds no streamtype, it creates one that no program can open (4.1.6 to 5.0.0).`,
	Base: overlayBase,
	Bad:  `{ "s": [ { "aip": { "port": 8443 } } ] }`,
	Good: `{ "s": [ { "api": { "port": 8443 } } ] }`,
}
