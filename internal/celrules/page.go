package celrules

import (
	"fmt"
	"strings"
)

// ViewPage returns the page of what expressions see.
func ViewPage() string {
	var b strings.Builder
	b.WriteString("# What rules of your own see\n\n" +
		"The variables of the expressions in [rules of your own](custom-rules.md), and their fields. A field that the policy does not set is empty: `\"\"`, `0`, `false`, " +
		"`[]` or `{}`; `has()` tells whether the policy sets it. A link to a definition that there is not is an object whose fields are empty.\n\n" +
		"`policy` and `now`, the time that lint checks for, are in every expression, and the target of the rule by its name.\n")
	for _, c := range classes {
		fmt.Fprintf(&b, "\n## %s\n\n%s%s.\n\n| field | type | |\n|---|---|---|\n", c.name, strings.ToUpper(c.summary[:1]), c.summary[1:])
		for _, name := range fieldNames(c) {
			f := fields()[c][name]
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, strings.ReplaceAll(f.typ.String(), "sspolicy.", ""), strings.ReplaceAll(strings.ReplaceAll(f.doc, "\n", " "), "|", `\|`))
		}
	}
	return b.String()
}
