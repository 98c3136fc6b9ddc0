package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var outOfRange = &lint.Rule{
	Name:     schema.RuleOutOfRange,
	Severity: schema.Error,
	Summary:  "the number is too small or too large for the key",
	Why:      `The message has the number that lws uses instead.`,
	LWS: `lws keeps the lowest 8, 16 or 32 bits of the number, without an error: the port 70000
becomes 4464 (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 70000 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 7000 } } ] }`,
}
