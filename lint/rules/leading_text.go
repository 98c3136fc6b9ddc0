package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var leadingText = &lint.Rule{
	Name:       "leading-text",
	ParserOnly: true,
	Severity:   schema.Warning,
	Fixes:      lint.SafeFix,
	Summary:    `the policy does not begin with "{"`,
	Why:        `Put a comment at the top after the first "{". Not even an empty line may precede it.`,
	LWS: `If the first byte of a policy in memory is not "{", lws uses the text as the name of a
file, and fails (4.3.10 to 5.0.0). 4.1 and 4.2 read such a policy. All versions read it from a
file (5.0.0, by the source).`,
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
		d := p.Reportf(at, `this text precedes the first "{": lws %s uses such a policy in memory as the name of a file`, with)
		edits := []schema.Edit{{Span: at}}
		if strings.TrimSpace(before) != "" {
			at.Start, at.End = root.Span.Start+1, root.Span.Start+1
			edits = append(edits, schema.Edit{Span: at, NewText: " " + before})
		}
		d.Fixes = []schema.Fix{{Message: `start with "{"`, Edits: edits, Safe: true}}
	},
}
