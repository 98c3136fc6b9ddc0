// Package explain describes rules, keys and states. The texts come from the rules, the
// key table and the documentation of package runtime; the pages in docs are made of
// them too.
package explain

//go:generate go run ./gen

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// states has a paragraph for each state of a stream: a line with its name, then its
// documentation in package runtime. Command gen writes it.
//
//go:embed states.txt
var states string

// Explain describes the rule, key or state of this name in Markdown. It returns "" for
// an unknown name. A key may have its section, as in retry.conceal.
func Explain(name string) string {
	var parts []string
	if r := rules.Lookup(name); r != nil {
		parts = append(parts, Rule(r))
	}
	for _, s := range Sections() {
		for _, k := range schema.Keys(s) {
			if name == k.Name || name == string(s)+"."+k.Name {
				parts = append(parts, "# "+keyTitle(k)+"\n\n"+Key(k))
			}
		}
	}
	for paragraph := range strings.SplitSeq(states, "\n\n") {
		if state, text, _ := strings.Cut(paragraph, "\n"); strings.EqualFold(state, strings.TrimPrefix(name, "LWSSSCS_")) {
			parts = append(parts, "# "+state+"\n\n"+strings.TrimSpace(text)+"\n")
		}
	}
	return strings.Join(parts, "\n")
}

// Names returns all names that Explain describes.
func Names() []string {
	var names []string
	for _, r := range rules.All() {
		names = append(names, r.Name)
	}
	for _, s := range Sections() {
		for _, k := range schema.Keys(s) {
			names = append(names, k.Name)
		}
	}
	for paragraph := range strings.SplitSeq(states, "\n\n") {
		state, _, _ := strings.Cut(paragraph, "\n")
		names = append(names, state)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Sections returns the sections whose entries have keys, in the order of KeyPage.
func Sections() []schema.Section {
	return []schema.Section{schema.Top, schema.Retry, schema.TrustStores, schema.Auth, schema.Metrics, schema.Streams}
}

// Rule returns the page of a rule.
func Rule(r *lint.Rule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s: %s.\n\n%s\n", r.Name, title(r.Severity.String()), r.Summary, r.Why)
	if r.LWS != "" {
		fmt.Fprintf(&b, "\n## What lws does\n\n%s\n", r.LWS)
	}
	switch r.Fixes {
	case lint.SafeFix:
		b.WriteString("\n`sspolicy lint --fix` can fix this.\n")
	case lint.UnsafeFix:
		b.WriteString("\n`sspolicy lint --unsafe-fixes` can fix this.\n")
	case lint.MixedFix:
		b.WriteString("\n`sspolicy lint --fix` can fix some cases, `--unsafe-fixes` more.\n")
	}
	if r.Group != "" {
		fmt.Fprintf(&b, "\nThis rule is off by default. It is in the group `%s`, which `--with %s` turns on.\n", r.Group, r.Group)
	}
	if r.Firm {
		b.WriteString("\nThis rule cannot be suppressed.\n")
	}
	versions := ""
	if len(r.Versions) > 0 {
		var list []string
		for _, v := range r.Versions {
			list = append(list, v.String())
		}
		versions = " (with `--lws " + strings.Join(list, ",") + "`)"
	}
	if r.LWSOverlay {
		b.WriteString("\nThis rule concerns lws's own overlays: only `sspolicy overlay --mode lws=VERSION` checks it.\n")
	} else if r.Base != "" {
		b.WriteString("\nThis rule concerns fragments: `sspolicy overlay`, and commands with `--overlay`, check it.\n")
	}
	if r.Base != "" {
		fmt.Fprintf(&b, "\n## Policy\n\n%s\n", code(r.Base))
	}
	if r.Bad != "" {
		fmt.Fprintf(&b, "\n## Wrong%s\n\n%s\n", versions, code(r.Bad))
	}
	if r.Good != "" {
		fmt.Fprintf(&b, "\n## Right\n\n%s\n", code(r.Good))
	}
	return b.String()
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// maxExample is the maximum length of a line in an example: certificates are long.
const maxExample = 160

func code(policy string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.Trim(policy, "\n"), "\n") {
		if r := []rune(line); len(r) > maxExample {
			line = string(r[:maxExample-20]) + " … " + string(r[len(r)-17:])
		}
		b.WriteString("    " + line + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func keyTitle(k *schema.Key) string {
	if k.Section == schema.Top {
		return k.Name
	}
	return string(k.Section) + "." + k.Name
}

// Key describes a key by its row in the key table.
func Key(k *schema.Key) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", k.Description)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "- %s: %s\n", name, value)
		}
	}
	row("type", strings.Join(k.Types, " or "))
	row("values", strings.Join(k.Enum, ", "))
	if k.Minimum != "" && k.Maximum != "" {
		row("range", fmt.Sprintf("%s to %s", k.Minimum, k.Maximum))
	}
	if k.Ref != schema.Top {
		row("names", "an entry of "+string(k.Ref))
	}
	row("protocols", strings.Join(k.Protocols, ", "))
	row("role", k.Role)
	row("C member", k.Member)
	row("C flag", k.Flag)
	if k.Since != "" {
		row("lws", k.Since+" or newer")
	}
	row("documented as", strings.Join(k.Aliases, ", "))
	return b.String()
}

// RuleTable returns the table of all rules, with links to their pages.
func RuleTable() string {
	var b strings.Builder
	b.WriteString("# Rules\n\nThe page of each rule has an example with the mistake and one without it; tests run both.\n[lint.md](../lint.md) describes fixes, suppression and configuration.\n\n")
	b.WriteString("| rule | severity | summary |\n|---|---|---|\n")
	for _, r := range rules.All() {
		fmt.Fprintf(&b, "| [%s](%s.md) | %s | %s |\n", r.Name, r.Name, r.Severity, strings.ReplaceAll(r.Summary, "|", `\|`))
	}
	return b.String()
}

// KeyPage returns the page of all keys.
func KeyPage() string {
	var index, b strings.Builder
	anchors := map[string]int{} // of headings so far: GitHub numbers equal ones
	for _, s := range Sections() {
		heading := "The top of a policy"
		if s != schema.Top {
			heading = "A " + s.Noun() + ", in `" + string(s) + "`"
			heading = strings.Replace(heading, "A auth", "An auth", 1)
		}
		fmt.Fprintf(&b, "\n## %s\n", heading)
		var links []string
		for _, k := range schema.Keys(s) {
			fmt.Fprintf(&b, "\n### %s\n\n%s", k.Name, Key(k))
			anchor := strings.ReplaceAll(strings.ToLower(k.Name), "$", "")
			if n := anchors[anchor]; n > 0 {
				links = append(links, fmt.Sprintf("[%s](#%s-%d)", k.Name, anchor, n))
			} else {
				links = append(links, fmt.Sprintf("[%s](#%s)", k.Name, anchor))
			}
			anchors[anchor]++
		}
		fmt.Fprintf(&index, "| %s | %s |\n", heading, strings.Join(links, ", "))
	}
	return "# Keys\n\nAll keys of a policy. The source is the [JSON Schema](../schema/policy.schema.json).\n\n| | |\n|---|---|\n" +
		index.String() + b.String()
}
