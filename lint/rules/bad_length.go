package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var badLength = &lint.Rule{
	Name:       schema.RuleBadLength,
	ParserOnly: true,
	Severity:   schema.Error,
	Summary:    "the string is empty or too long",
	Why:        `A string has at most 253 bytes, a name at least one.`,
	LWS: `The parser delivers strings in pieces of 254 bytes, and lws keeps the last piece: 46 of 300
bytes, none of 254. An empty name of a streamtype or backoff scheme crashes it (4.1.6 to
5.0.0).`,
	Bad:  `{ "s": [ { "": { "endpoint": "example.com", "http_method": "GET", "port": 8443 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443 } } ] }`,
}
