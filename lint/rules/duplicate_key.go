package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var duplicateKey = &lint.Rule{
	Name:     schema.RuleDuplicateKey,
	Severity: schema.Error,
	Summary:  "a key stands twice in one object",
	Why: `One of the two values is lost, and it depends on the program which one. The
sections at the top of a policy may be repeated; their entries are joined.`,
	LWS: `The last value counts; of flags such as tls it is enough if one is true; lists
such as metadata are joined, but http_resp_map is replaced (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 80, "port": 8443 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443 } } ] }`,
}
