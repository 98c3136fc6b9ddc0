package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var duplicateKey = &lint.Rule{
	Name:     schema.RuleDuplicateKey,
	Severity: schema.Error,
	Summary:  "an object has a key twice",
	Why: `Only one of the two values is used, and programs differ in which. The sections at the top of
a policy may be repeated; their entries are joined.`,
	LWS: `The last value counts. A flag such as tls is set if one of its values is true. Lists such as
metadata are joined; http_resp_map is replaced (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 80, "port": 8443 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443 } } ] }`,
}
