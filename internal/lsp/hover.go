package lsp

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/internal/explain"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

// hover describes the element at a position, and the rules that it breaks.
func (s *server) hover(_ context.Context, snap *snapshot, p positionParams) (any, error) {
	t, offset := snap.scan(), snap.text.offset(p.Position)
	if snap.isConfig() {
		return s.hoverConfig(snap, offset)
	}
	h := hoverText{server: s, snap: snap, tree: t}
	at := h.describe(offset)
	for _, g := range snap.findings() {
		if rule := s.configFor(snap).Lookup(g.Rule); rule != nil && holds(g.Span, offset) {
			if at == nil {
				at = &g.Span
			}
			h.part("%s", ruleText(rule))
		}
	}
	if len(h.parts) == 0 {
		return nil, nil
	}
	r := snap.span(*at)
	return hover{markup{"markdown", strings.Join(h.parts, "\n\n---\n\n")}, &r}, nil
}

// ruleText explains a rule in Markdown.
func ruleText(r *lint.Rule) string {
	return fmt.Sprintf("**%s**: %s. %s", r.Name, r.Summary, strings.ReplaceAll(r.Why, "\n", " "))
}

type hoverText struct {
	*server
	snap  *snapshot
	tree  *tree
	parts []string
}

func (h *hoverText) part(format string, args ...any) {
	h.parts = append(h.parts, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// describe describes the element at an offset, and returns its span.
func (h *hoverText) describe(offset int) *schema.Span {
	for _, c := range h.tree.doc.Source.Comments {
		if holds(c, offset) {
			return h.comment(c, offset)
		}
	}
	p := h.tree.at(offset)
	switch section, ok := p.section(); {
	case ok:
		h.part("%s", h.key(schema.LookupKey(schema.Top, string(section))))
		return &p.member.Name.Span
	case p.onDef:
		h.definition(p.def)
		return &p.def.NameSpan
	case p.ref != nil:
		h.reference(p.ref)
		return &p.ref.Span
	case p.def != nil && p.def.Section == schema.Certs && p.value != nil:
		h.definition(p.def)
		return &p.value.Span
	case p.setting != nil && p.setting.Key != nil:
		h.part("%s", h.key(p.setting.Key)+h.value(p.def, p.setting))
		span := p.setting.Member.Name.Span
		if p.value != nil && !p.onName {
			span = p.value.Span
		}
		return &span
	}
	return nil
}

// comment adds the page of the rule that a comment names at an offset.
func (h *hoverText) comment(c schema.Span, offset int) *schema.Span {
	word := func(b byte) bool { return 'a' <= b && b <= 'z' || '0' <= b && b <= '9' || b == '-' || b == '/' }
	text := c.Source.Text
	start, end := offset, offset
	for start > c.Start && word(text[start-1]) {
		start--
	}
	for end < c.End && word(text[end]) {
		end++
	}
	rule := h.configFor(h.snap).Lookup(text[start:end])
	if rule == nil {
		return nil
	}
	h.part("%s", explain.Rule(rule))
	return &schema.Span{Source: c.Source, Start: start, End: end}
}

// key describes a key.
func (h *hoverText) key(k *schema.Key) string {
	name := k.Name
	if k.Section != schema.Top {
		name = string(k.Section) + "." + name
	}
	text := "**" + name + "**\n\n" + explain.Key(k)
	var without []string
	for _, v := range h.options(h.snap).LWS {
		if !k.In(v) {
			without = append(without, v.String())
		}
	}
	if len(without) > 0 {
		text += "- ignored by lws " + strings.Join(without, ", ") + ", which this project must work with\n"
	}
	return text
}

// value describes how lws interprets the value of a setting.
func (h *hoverText) value(def *schema.Definition, set *schema.Setting) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	k, v := set.Key, &set.Member.Value
	if def != nil && def.Section == schema.Streams {
		if protocol := def.Protocol(); !k.Serves(protocol) {
			add("The protocol of this streamtype, %s, does not use it.", protocol)
		}
		if server := def.Bool("server"); k.Role == "client" && server || k.Role == "server" && !server {
			add("Only a %s uses it.", k.Role)
		}
	}
	if def != nil {
		if last := def.Get(k.Name); last != set && !k.Joined() {
			add("lws takes the last %s of this %s, in line %d.", k.Name, def.Section.Noun(), last.Member.Name.Span.Position().Line)
		}
	}
	switch text := v.Text(); {
	case v.Kind == schema.Number && k.Is("integer"):
		if wrapped := schema.Wrap(v.Raw(), k); k.Width > 0 && wrapped != "" && wrapped != v.Raw() {
			add("lws keeps %s.", wrapped)
		} else if d := duration(text, k.Unit); d != "" {
			add("%s %s is %s.", text, k.Unit, d)
		}
	case v.Kind == schema.String && len(k.Enum) > 0 && !slices.Contains(k.Enum, text):
		if replacement := k.Replacement(text); len(replacement) > 0 {
			var list []string
			for key, value := range replacement {
				list = append(list, fmt.Sprintf("%s %v", key, value))
			}
			slices.Sort(list)
			add("lws has no value %s; it probably means %s.", text, strings.Join(list, ", "))
		}
	}
	lines = append(lines, versions(set)...)
	if base := h.baseValue(def, k); base != nil {
		add("In the base: `%s`", short(base))
	}
	if len(lines) == 0 {
		return ""
	}
	return "\n" + strings.Join(lines, "\n\n") + "\n"
}

// versions describes which versions of lws ignore a setting or a part of it.
func versions(set *schema.Setting) (lines []string) {
	k, v := set.Key, &set.Member.Value
	var effects []string
	by := map[string][]string{}
	for _, version := range schema.Versions {
		effect := ""
		switch {
		case !k.In(version):
			effect = "ignores " + k.Name
		case v.Kind == schema.String && !k.ValueIn(v.Text(), version):
			effect = "does not know the value " + markdown(v.Text())
		case k.Section == schema.Retry && k.Name == "backoff" && len(stringsOf(set)) > 1 && !version.KeepsBackoff():
			effect = "keeps only the first wait when it reads the policy; C tables keep all"
		default:
			continue
		}
		if by[effect] == nil {
			effects = append(effects, effect)
		}
		by[effect] = append(by[effect], version.String())
	}
	for _, effect := range effects {
		lines = append(lines, fmt.Sprintf("lws %s %s.", strings.Join(by[effect], ", "), effect))
	}
	return lines
}

// baseValue returns the value of a setting in the base of a fragment, or nil.
func (h *hoverText) baseValue(def *schema.Definition, k *schema.Key) *schema.Value {
	base := h.base(h.snap)
	if base == nil || def == nil {
		return nil
	}
	for _, d := range base.policy.Lookup(def.Section, def.Name) {
		if set := d.Get(k.Name); set != nil {
			return &set.Member.Value
		}
	}
	return nil
}

// short returns a value as one line of limited length.
func short(v *schema.Value) string {
	const most = 200
	text := []rune(string(overlay.Plain(v)))
	if len(text) > most {
		text = append(text[:most], '…')
	}
	return string(text)
}

// duration formats a number with a unit of time as a duration. It returns "" if that is not
// clearer.
func duration(number, unit string) string {
	n, err := strconv.ParseInt(number, 10, 64)
	units := map[string]time.Duration{"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second}
	if u := units[unit]; err == nil && u > 0 && n > 0 && n < int64(1<<62/u) {
		if d := time.Duration(n) * u; d.String() != number+unit {
			return d.String()
		}
	}
	return ""
}

// definition describes a definition: a certificate, the certificates of a trust store, or
// the source text.
func (h *hoverText) definition(d *schema.Definition) {
	place := ""
	if d.NameSpan.Source != h.tree.doc.Source {
		place = ", in the base"
	}
	switch d.Section {
	case schema.Certs:
		h.part("**%s**%s\n\n%s", markdown(d.String()), place, certificate(d))
	case schema.TrustStores:
		text := "**" + markdown(d.String()) + "**" + place + "\n\n"
		for _, name := range stringsOf(d.Get("stack")) {
			text += "- " + markdown(name)
			if c := h.lookup(schema.Certs, name); c != nil {
				text += ": " + strings.ReplaceAll(certificate(c), "\n", "; ")
			} else {
				text += ": not defined"
			}
			text += "\n"
		}
		h.part("%s", text)
	default:
		h.part("**%s**%s\n\n```json\n%s\n```", markdown(d.String()), place, short(d.Value))
	}
}

// stringsOf returns the strings of a setting: those of a list, or a single one.
func stringsOf(set *schema.Setting) (names []string) {
	if set == nil {
		return nil
	}
	if set.Member.Value.Kind == schema.String {
		return []string{set.Member.Value.Text()}
	}
	for _, e := range set.Member.Value.Elems() {
		names = append(names, e.Value.Text())
	}
	return names
}

// certificate describes the certificate or key of an entry of certs.
func certificate(d *schema.Definition) string {
	der, err := schema.DecodeCert(d.Value.Text())
	if err != nil {
		return "Not base64: " + err.Error()
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Sprintf("%d bytes that are not a certificate", len(der))
	}
	text := fmt.Sprintf("subject %s\nissuer %s\nvalid %s to %s", markdown(c.Subject.String()), markdown(c.Issuer.String()),
		c.NotBefore.UTC().Format(time.DateOnly), c.NotAfter.UTC().Format(time.DateOnly))
	if left := time.Until(c.NotAfter); left < 0 {
		text += ", expired"
	} else {
		text += fmt.Sprintf(", %d days left", int(left.Hours()/24))
	}
	if c.IsCA {
		text += "\nmay issue certificates"
	}
	return text
}

// reference describes what a reference refers to, by name and in lws.
func (h *hoverText) reference(r *schema.Reference) {
	target := r.Target
	if target == nil {
		target = h.lookup(r.Key.Ref, r.Name)
	}
	switch {
	case target != nil && r.Target == nil && r.Later == target:
		h.part("%s, in line %d, is defined after this reference, so lws does not find it.", markdown(target.String()), target.NameSpan.Position().Line)
	case target == nil:
		h.part("No %s %s", r.Key.Ref.Noun(), markdown(schema.QuoteName(r.Name)))
		return
	}
	h.definition(target)
	if base := h.base(h.snap); base != nil {
		return // lws resolves the references after it has applied the fragment
	}
	if def := h.tree.policy.Resolve().Definition[r]; def != nil && def != target {
		h.part("lws takes %s, in line %d: it compares names up to the length of the reference.", markdown(def.String()), def.NameSpan.Position().Line)
	}
}

// lookup returns the definition of a name in the document, or in its base.
func (h *hoverText) lookup(s schema.Section, name string) *schema.Definition {
	return lookup(s, name, h.tree, h.base(h.snap))
}

// lookup returns the last definition of a name in the first tree that has one.
func lookup(s schema.Section, name string, trees ...*tree) *schema.Definition {
	for _, t := range trees {
		if t == nil {
			continue
		}
		if defs := t.policy.Lookup(s, name); len(defs) > 0 {
			return defs[len(defs)-1]
		}
	}
	return nil
}

// base returns the base of a fragment, or nil.
func (s *server) base(snap *snapshot) *tree {
	file := snap.base()
	if file == "" {
		return nil
	}
	d, err := s.read(file)
	if err != nil {
		return nil // reported as a finding
	}
	return newTree(d)
}

var escapeMarkdown = strings.NewReplacer("\\", "\\\\", "*", "\\*", "_", "\\_", "`", "\\`", "<", "&lt;", "[", "\\[")

// markdown escapes text for Markdown.
func markdown(s string) string { return escapeMarkdown.Replace(s) }
