package breaking

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// A part is the part of a policy that an error excludes from compilation: a key of
// a streamtype, a whole streamtype or metric policy, or a key of the policy.
type part struct {
	section schema.Section // Streams, Metrics or Top
	name    string         // of the definition
	key     string         // "" for the whole definition
}

// An index finds the part at a position of a policy, and the references to a
// definition.
type index struct {
	definitions []*schema.Definition // by place
	references  []*schema.Reference  // by place
	to          map[*schema.Definition][]*schema.Reference
}

func newIndex(p *schema.Policy) *index {
	x := &index{slices.Clone(p.Definitions), slices.Clone(p.References), map[*schema.Definition][]*schema.Reference{}}
	slices.SortFunc(x.definitions, func(a, b *schema.Definition) int { return cmp.Compare(a.Value.Span.End, b.Value.Span.End) })
	slices.SortFunc(x.references, func(a, b *schema.Reference) int { return cmp.Compare(a.Span.Start, b.Span.Start) })
	for _, r := range p.References {
		if r.Target != nil {
			x.to[r.Target] = append(x.to[r.Target], r)
		}
	}
	return x
}

// within returns the references within a span.
func (x *index) within(s schema.Span) []*schema.Reference {
	from, _ := slices.BinarySearchFunc(x.references, s.Start, func(r *schema.Reference, at int) int { return cmp.Compare(r.Span.Start, at) })
	to, _ := slices.BinarySearchFunc(x.references, s.End, func(r *schema.Reference, at int) int { return cmp.Compare(r.Span.Start, at) })
	return x.references[from:to]
}

// addErrors adds the parts that errors affect. An error in a backoff scheme, for
// instance, affects the key retry of the streamtypes that refer to it.
func (w *view) addErrors(found []schema.Diagnostic) {
	w.errors, w.faulty = map[part]schema.Diagnostic{}, map[string]bool{}
	if len(found) == 0 {
		return
	}
	w.index = newIndex(w.text)
	for _, g := range found {
		if g.Severity < schema.Error {
			continue
		}
		parts := w.partsAt(g.Span)
		if len(parts) == 0 {
			parts = []part{{}}
		}
		for _, p := range parts {
			if _, ok := w.errors[p]; !ok {
				w.errors[p] = g
				w.faulty[p.name] = w.faulty[p.name] || p.section == schema.Streams
			}
		}
	}
}

// partsAt returns the parts at a position, or none outside definitions and
// settings.
func (w *view) partsAt(at schema.Span) []part {
	inside := func(s schema.Span) bool { return s.Start <= at.Start && at.End <= s.End }
	key := func(settings []*schema.Setting) string {
		for _, s := range settings {
			if s.Key != nil && inside(s.Member.Span()) {
				return s.Key.Name
			}
		}
		return ""
	}
	i, _ := slices.BinarySearchFunc(w.index.definitions, at.End, func(d *schema.Definition, end int) int { return cmp.Compare(d.Value.Span.End, end) })
	if i < len(w.index.definitions) {
		if d := w.index.definitions[i]; inside(d.Value.Span) || inside(d.NameSpan) {
			return w.partsOf(d, key(d.Settings), map[*schema.Definition]bool{})
		}
	}
	if k := key(w.text.Settings); k != "" {
		return []part{{schema.Top, "", k}}
	}
	return nil
}

// partsOf returns the parts that a key of a definition affects.
func (w *view) partsOf(d *schema.Definition, key string, seen map[*schema.Definition]bool) (parts []part) {
	if d.Section == schema.Streams || d.Section == schema.Metrics {
		return []part{{d.Section, d.Name, key}}
	}
	seen[d] = true
	for _, r := range w.index.to[d] {
		if !seen[r.From] {
			parts = append(parts, w.partsOf(r.From, r.Key.Name, seen)...)
		}
	}
	return parts
}

// source returns the text of a part, without comments and layout, and with the
// definitions that it refers to.
func (w *view) source(p part) string {
	var b strings.Builder
	seen := map[*schema.Definition]bool{}
	var add func(v *schema.Value)
	add = func(v *schema.Value) {
		b.Write(overlay.Plain(v))
		for _, r := range w.index.within(v.Span) {
			if r.Target != nil && !seen[r.Target] {
				seen[r.Target] = true
				b.WriteByte(' ')
				add(r.Target.Value)
			}
		}
	}
	settings := w.text.Settings
	if p.section != schema.Top {
		defs := w.text.Lookup(p.section, p.name)
		if len(defs) == 0 {
			return ""
		}
		d := defs[len(defs)-1]
		if settings = d.Settings; p.key == "" {
			add(d.Value)
		}
	} else if p.key == "" {
		add(&w.text.Document.Root)
	}
	settings = slices.DeleteFunc(slices.Clone(settings), func(s *schema.Setting) bool {
		return s.Key == nil || s.Key.Name != p.key && !(p.section == schema.Streams && p.key == "protocol" && protocolKeys[s.Key.Name])
	})
	slices.SortStableFunc(settings, func(a, b *schema.Setting) int { return strings.Compare(a.Key.Name, b.Key.Name) })
	for _, s := range settings {
		b.WriteString(s.Key.Name)
		add(&s.Member.Value)
	}
	return b.String()
}

// protocolKeys are the keys that are not compiled without a valid protocol.
var protocolKeys = func() map[string]bool {
	keys := map[string]bool{}
	for _, t := range []reflect.Type{reflect.TypeFor[policy.HTTP](), reflect.TypeFor[policy.MQTT]()} {
		for i := range t.NumField() {
			if key := t.Field(i).Tag.Get("policy"); key != "" {
				keys[key] = true
			}
		}
	}
	return keys
}()

// atPart returns the place of a part: for a reference, that of the definition.
func (w *view) atPart(p part) schema.Span {
	if d := w.definition(p.name, p.key); p.section == schema.Streams && d != nil {
		return d.NameSpan
	}
	if p.section == schema.Top {
		if p.key != "" {
			return w.settingAt(p.key)
		}
		return schema.Span{Source: w.text.Document.Source}
	}
	defs := w.text.Lookup(p.section, p.name)
	if len(defs) == 0 {
		return schema.Span{}
	}
	return settingAt(defs[len(defs)-1], p.key)
}

// errors makes both policies equal in the parts that have an error in one of them,
// and adds a change for each part whose texts differ.
func (c *comparison) errors() {
	parts := maps.Clone(c.old.errors)
	maps.Copy(parts, c.new.errors)
	for _, w := range []*view{c.old, c.new} {
		if w.index == nil && len(parts) > 0 {
			w.index = newIndex(w.text)
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(parts), func(a, b part) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.key, b.key))
	}) {
		before, inOld := c.old.errors[p]
		after, inNew := c.new.errors[p]
		c.equalize(p, inNew)
		if c.old.source(p) == c.new.source(p) {
			continue
		}
		what := cmp.Or(p.key, "the streamtype")
		var streams []string
		switch {
		case p.section == schema.Streams:
			streams = []string{p.name}
		case p.section == schema.Metrics:
			what = "metric policy " + schema.QuoteName(p.name)
		case p.key == "":
			what = "the policy"
		}
		old, new := c.old.atPart(p), c.new.atPart(p)
		switch {
		case inOld && inNew:
			c.add(notCompared, streams, old, new, "%s cannot be compared: in the old policy, %s; in the new one, %s", what, before.Message, after.Message)
		case inOld:
			c.add(notCompared, streams, old, new, "%s cannot be compared: in the old policy, %s", what, before.Message)
		default:
			c.add(notCompared, streams, old, new, "%s cannot be compared: in the new policy, %s", what, after.Message)
		}
	}
}

// equalize copies a part from one policy to the other.
func (c *comparison) equalize(p part, toNew bool) {
	from, to := c.new, c.old
	if toNew {
		from, to = c.old, c.new
	}
	switch p.section {
	case schema.Top:
		copyField(reflect.ValueOf(to.compiled).Elem(), reflect.ValueOf(from.compiled).Elem(), p.key)
	case schema.Metrics:
		for _, src := range from.compiled.Metrics {
			for _, dst := range to.compiled.Metrics {
				if src.Name == p.name && dst.Name == p.name {
					*dst = *src
				}
			}
		}
	case schema.Streams:
		src, dst := from.byName[p.name], to.byName[p.name]
		switch {
		case src == nil || dst == nil:
		case p.key == "":
			*dst = *src
		case p.key == "protocol": // the others depend on it
			dst.Protocol, dst.HTTP, dst.MQTT = src.Protocol, src.HTTP, src.MQTT
		default:
			copyField(reflect.ValueOf(dst).Elem(), reflect.ValueOf(src).Elem(), p.key)
			if dst.HTTP != nil && src.HTTP != nil {
				copyField(reflect.ValueOf(dst.HTTP).Elem(), reflect.ValueOf(src.HTTP).Elem(), p.key)
				if strings.HasPrefix(p.key, "http_m") {
					dst.HTTP.Multipart = src.HTTP.Multipart
				}
			}
			if dst.MQTT != nil && src.MQTT != nil {
				copyField(reflect.ValueOf(dst.MQTT).Elem(), reflect.ValueOf(src.MQTT).Elem(), p.key)
			}
		}
	}
}

// copyField copies the field of a key, if there is one.
func copyField(dst, src reflect.Value, key string) {
	for i := range dst.NumField() {
		if key != "" && dst.Type().Field(i).Tag.Get("policy") == key {
			dst.Field(i).Set(src.Field(i))
		}
	}
}
