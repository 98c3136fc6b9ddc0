package config

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/secure-streams/sspolicy/internal/celrules"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// An OwnRule is a rule that a project defines in its configuration.
type OwnRule struct {
	*lint.Rule
	Span      schema.Span // of its id
	Versions  celrules.Range
	Good, Bad []*schema.Document // examples; positions are those in the configuration
}

// OwnRules returns the rules that the configuration adds to those of sspolicy.
func (c *Config) OwnRules() (all []*lint.Rule) {
	for _, r := range c.Rules {
		all = append(all, r.Rule)
	}
	return all
}

// AllRules returns the rules of sspolicy and the project's own.
func (c *Config) AllRules() []*lint.Rule { return append(rules.All(), c.OwnRules()...) }

// Lookup returns the rule of this name, or nil.
func (c *Config) Lookup(name string) *lint.Rule {
	if r := rules.Lookup(name); r != nil {
		return r
	}
	return lint.Lookup(c.OwnRules(), name)
}

// rules reads the project's own rules.
func (r *reader) rules(v *schema.Value) {
	r.List(v, func(e *schema.Value) {
		if own := r.rule(e); own != nil {
			r.c.Rules = append(r.c.Rules, own)
		}
	})
}

// rule reads a rule. It returns nil if there is a mistake in it.
func (r *reader) rule(v *schema.Value) *OwnRule {
	before := len(r.Found)
	values := map[string]*schema.Value{}
	spec := celrules.Spec{Severity: schema.Warning}
	own := &OwnRule{}
	text := func(name string, to *string) func(*schema.Value) {
		return func(v *schema.Value) { *to, values[name] = r.Text(v), v }
	}
	r.Object(v, map[string]func(*schema.Value){
		"id":         text("id", &spec.ID),
		"target":     text("target", &spec.Target),
		"expression": text("expression", &spec.Expression),
		"message":    text("message", &spec.Message),
		"at":         text("at", &spec.At),
		"why":        text("why", &spec.Why),
		"severity": func(v *schema.Value) {
			if word := r.OneOf(v, "error", "warning", "info"); word != "" {
				_ = spec.Severity.UnmarshalText([]byte(word)) // one of the words above
			}
		},
		"lws": func(v *schema.Value) {
			if text := r.Text(v); v.Kind == schema.String {
				var err error
				if spec.LWS, err = celrules.ParseRange(text); err != nil {
					r.Errorf(v.Span, "%v", err)
				}
			}
		},
		"examples": func(v *schema.Value) {
			r.Object(v, map[string]func(*schema.Value){
				"good": func(v *schema.Value) { own.Good = r.examples(v) },
				"bad":  func(v *schema.Value) { own.Bad = r.examples(v) },
			})
		},
	})
	if v.Kind != schema.ObjectKind {
		return nil
	}
	missing := false
	for _, name := range []string{"id", "target", "expression"} {
		if values[name] == nil {
			missing = true
			r.Errorf(schema.Span{Source: v.Span.Source, Start: v.Span.Start, End: v.Span.Start + 1}, "missing %s: a rule has an id, a target and an expression", name)
		}
	}
	if missing {
		return nil
	}
	own.Span, own.Versions = values["id"].Span, spec.LWS
	if r.c.Lookup(spec.ID) != nil {
		r.Errorf(own.Span, "duplicate rule %s", spec.ID)
	}
	rule, wrong := celrules.Compile(spec)
	for _, m := range wrong {
		at := values[m.In].Span
		if m.In == "expression" || m.In == "message" {
			at.Start += rawOffset(values[m.In].Raw(), m.Offset)
			at.End = at.Start + 1
		}
		r.Errorf(at, "%s", m.Message)
	}
	if len(r.Found) > before {
		return nil
	}
	own.Rule = rule
	if len(own.Bad) > 0 {
		rule.Bad = exampleText(own.Bad[0])
	}
	if len(own.Good) > 0 {
		rule.Good = exampleText(own.Good[0])
	}
	return own
}

// examples reads a list of policies. Each is a document with the text of the
// configuration in which everything else is replaced by blanks, so that positions
// match.
func (r *reader) examples(v *schema.Value) (all []*schema.Document) {
	r.List(v, func(e *schema.Value) {
		if !r.Is(e, schema.ObjectKind) {
			return
		}
		text := bytes.Clone(r.plain)
		blank(text, e.Span.Start)
		tail := text[e.Span.End:]
		blank(tail, len(tail))
		d := schema.Parse(e.Span.Source.Name, text)
		all = append(all, d)
	})
	return all
}

// exampleText returns the text of an example, with the indentation of its last line
// removed from all.
func exampleText(d *schema.Document) string {
	text := d.Root.Span.Text()
	last := text[strings.LastIndexByte(text, '\n')+1:]
	indent := last[:len(last)-len(strings.TrimLeft(last, " \t"))]
	return strings.ReplaceAll(text, "\n"+indent, "\n")
}

// rawOffset converts an offset in the text that a JSON string stands for to one in
// the string as written.
func rawOffset(raw string, offset int) int {
	at := 1 // after the quotation mark
	for offset > 0 && at < len(raw)-1 {
		var end int
		switch {
		case raw[at] != '\\':
			_, size := utf8.DecodeRuneInString(raw[at:])
			end = at + size
		case strings.HasPrefix(raw[at:], `\u`):
			end = at + len(`\u0000`)
			pair := end + len(`\u0000`) // of surrogates, which are one character
			if pair < len(raw) && raw[end] == '\\' && utf8.RuneCountInString(schema.Unquote(`"`+raw[at:pair]+`"`)) == 1 {
				end = pair
			}
		default:
			end = at + 2
		}
		end = min(end, len(raw)-1)
		offset -= len(schema.Unquote(`"` + raw[at:end] + `"`))
		at = end
	}
	return at
}
