package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var emptyPolicy = &lint.Rule{
	Name:     "empty-policy",
	Severity: schema.Error,
	Summary:  "the policy is an empty object",
	Why:      `A policy without streamtypes is written { "s": [] }.`,
	LWS:      `4.1 to 4.3 refuse {} (4.1.6, 4.2.2 and 4.3.10).`,
	Bad:      `{}`,
	Good:     `{ "s": [] }`,
	Versions: []schema.Version{{Major: 4, Minor: 3}},
	Check: func(p *lint.Pass) {
		root := &p.Policy.Document.Root
		if root.Kind != schema.ObjectKind || len(root.Members()) > 0 {
			return
		}
		if refuse := p.Versions(before(4, 4)); refuse != "" {
			p.Reportf(root.Span, `lws %s refuses an empty object: write { "s": [] }`, refuse)
		}
	},
}
