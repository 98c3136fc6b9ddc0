package celrules

import (
	"fmt"
	"strings"
)

// ViewPage returns the page that documents the objects of expressions.
func ViewPage() string {
	var b strings.Builder
	b.WriteString("# Fields in your own rules\n\n" +
		"These are the variables of the expressions in [your own rules](custom-rules.md), and their fields. A field that the policy does not set is empty: `\"\"`, `0`, `false`, " +
		"`[]` or `{}`; `has()` reports whether the policy sets it. A reference without a definition is an object with empty fields.\n\n" +
		"Every expression can use `policy`, `now` (the time of the check), and the target of the rule under its name.\n")
	for _, c := range classes {
		fmt.Fprintf(&b, "\n## %s\n\n%s%s.\n\n| field | type | |\n|---|---|---|\n", c.name, strings.ToUpper(c.summary[:1]), c.summary[1:])
		for _, name := range fieldNames(c) {
			f := fields()[c][name]
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, strings.ReplaceAll(f.typ.String(), "sspolicy.", ""), strings.ReplaceAll(strings.ReplaceAll(f.doc, "\n", " "), "|", `\|`))
		}
	}
	return b.String()
}
