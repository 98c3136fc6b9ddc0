package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var leadingText = &lint.Rule{
	Name:     "leading-text",
	Severity: schema.Warning,
	Fixes:    lint.SafeFix,
	Summary:  `the policy does not start with "{"`,
	Why: `A comment at the top stands after the first "{", not before it. Not even an empty
line may stand there.`,
	LWS: `If the first byte of a policy in memory is not "{", lws takes all of it for the
name of a file, and fails (4.3.10 to 5.0.0). 4.1 and 4.2 read such a policy, and all
versions do if they are given the name of its file (5.0.0, read from the source).`,
	Bad: `# policy of the door bell
{ "s": [] }`,
	Good: `{ # policy of the door bell
  "s": [] }`,
	Check: func(p *lint.Pass) {
		root := &p.Policy.Document.Root
		before := strings.TrimPrefix(root.Before, "\ufeff") // a byte order mark is a syntax error
		if root.Kind != schema.ObjectKind || before == "" {
			return
		}
		with := p.Versions(since(4, 3))
		if with == "" {
			return
		}
		at := root.Span
		at.Start, at.End = len(root.Before)-len(before), len(root.Before)
		d := p.Reportf(at, `this stands before the first "{": lws %s takes such a policy in memory for the name of a file`, with)
		edits := []schema.Edit{{Span: at}}
		if strings.TrimSpace(before) != "" {
			at.Start, at.End = root.Span.Start+1, root.Span.Start+1
			edits = append(edits, schema.Edit{Span: at, NewText: " " + before})
		}
		d.Fixes = []schema.Fix{{Message: `start with "{"`, Edits: edits, Safe: true}}
	},
}
