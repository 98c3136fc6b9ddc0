package codegen

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// Compile compiles a policy to tables. The policy should pass Validate and lint; a
// value that the tables cannot represent is reported and left zero.
//
// The rules are those of the lws parser where it reads the text correctly
// (lib/secure-streams/policy-json.c, the same in 4.1 to 5.0): the last setting of a
// key counts; lists of names grow with every setting; of streamtypes with the same
// name, only the last counts. Where lws misreads a policy (it matches references by
// prefix, and truncates lists, strings and integers), the tables hold what the text
// says. Unreferenced definitions are omitted.
func Compile(p *schema.Policy) (*policy.Policy, []schema.Diagnostic) {
	c := &compiler{
		policy:     p,
		references: make(map[schema.Span]*schema.Reference, len(p.References)),
		entries:    map[*schema.Definition]any{},
		raw:        map[[2]string]bool{},
	}
	for _, r := range p.References {
		c.references[r.Span] = r
	}

	for _, half := range p.Document.Root.LoneSurrogates() {
		c.report("bad-value", half, "%s is half of a character", half.Text())
	}
	out := &policy.Policy{}
	c.fill(reflect.ValueOf(out).Elem(), plans()[reflect.TypeFor[policy.Policy]()], p.Settings)
	for _, d := range p.Section(schema.Metrics) {
		out.Metrics = append(out.Metrics, entry[policy.Metric](c, d))
	}
	for _, item := range p.RawItems() {
		c.raw[[2]string{item.Stream, item.Item}] = true
	}
	streams := p.Section(schema.Streams)
	seen := make(map[string]bool, len(streams))
	for _, d := range slices.Backward(streams) {
		if !seen[d.Name] {
			seen[d.Name] = true
			out.StreamTypes = append(out.StreamTypes, c.stream(d))
		}
	}
	slices.Reverse(out.StreamTypes)
	return out, schema.SortDiagnostics(c.diagnostics)
}

type compiler struct {
	policy      *schema.Policy
	references  map[schema.Span]*schema.Reference
	entries     map[*schema.Definition]any // compiled definitions, shared by their references
	raw         map[[2]string]bool         // raw metadata items, by streamtype and item
	last        []*schema.Setting          // scratch space of fill
	diagnostics []schema.Diagnostic
}

func (c *compiler) report(rule string, at schema.Span, format string, args ...any) *schema.Diagnostic {
	c.diagnostics = append(c.diagnostics, schema.Diagnostic{
		Rule: rule, Severity: schema.Error, Span: at, Message: fmt.Sprintf(format, args...),
	})
	return &c.diagnostics[len(c.diagnostics)-1]
}

// fill sets the fields of a struct from settings.
func (c *compiler) fill(dst reflect.Value, p *plan, settings []*schema.Setting) {
	last := append(c.last[:0], make([]*schema.Setting, len(p.fields))...)
	c.last = nil // resolving a reference may call fill recursively
	for _, s := range settings {
		if s.Key == nil || s.Key.Section == schema.Top && s.Key.Inert && s.Member.Value.Kind != schema.Number && !s.Key.Accepts(&s.Member.Value) {
			continue // lws ignores such a key, whatever its value
		}
		if i, ok := p.byKey[s.Key.Name]; !ok {
			continue
		} else if f := &p.fields[i]; f.adds {
			f.set(c, f.value(dst), s)
		} else {
			last[i] = s
		}
	}
	for i, s := range last {
		if f := &p.fields[i]; s != nil {
			f.set(c, f.value(dst), s)
		}
	}
	c.last = last
}

func (c *compiler) stream(d *schema.Definition) *policy.StreamType {
	st := &policy.StreamType{Name: d.Name}
	protocol, _ := policy.ParseProtocol(d.Protocol()) // fill reports an unknown one
	a := armOf(protocol)
	switch a {
	case armHTTP:
		st.HTTP = &policy.HTTP{}
	case armMQTT:
		st.MQTT = &policy.MQTT{}
	}
	c.object(d)
	c.fill(reflect.ValueOf(st).Elem(), streamPlans()[a], d.Settings)
	for i := range st.Metadata {
		item := &st.Metadata[i]
		item.Raw = c.raw[[2]string{st.Name, item.Name}]
	}
	if st.HTTP != nil {
		// An empty name counts too.
		st.HTTP.Multipart = d.Get("http_multipart_name") != nil ||
			d.Get("http_multipart_filename") != nil || d.Get("http_mime_content_type") != nil
	}
	return st
}

// entry returns the compiled form of a definition, always the same value.
func entry[T any](c *compiler, d *schema.Definition) *T {
	if v, ok := c.entries[d].(*T); ok {
		return v
	}
	v := new(T)
	c.entries[d] = v
	c.object(d)
	r := reflect.ValueOf(v).Elem()
	if name := r.FieldByName("Name"); name.IsValid() {
		name.SetString(d.Name)
	}
	c.fill(r, plans()[r.Type()], d.Settings)
	return v
}

// object reports a definition that is not an object.
func (c *compiler) object(d *schema.Definition) {
	if d.Value.Kind != schema.ObjectKind {
		c.report("wrong-type", d.Value.Span, "%v must be an object, not %v", d, d.Value.Kind)
	}
}

// cert returns a certificate or key.
func (c *compiler) cert(d *schema.Definition) *policy.Cert {
	if v, ok := c.entries[d].(*policy.Cert); ok {
		return v
	}
	v := &policy.Cert{Name: d.Name}
	c.entries[d] = v
	if d.Value.Kind != schema.String {
		c.report("wrong-type", d.Value.Span, "%v must be a string, not %v", d, d.Value.Kind)
		return v
	}
	der, err := schema.DecodeCert(d.Value.Text())
	if err != nil {
		c.report("cert-encoding", d.Value.Span, "%v: %v", d, err)
	}
	v.DER = string(der)
	return v
}

// target returns the definition that a value names, or nil.
func (c *compiler) target(v *schema.Value, s *schema.Setting) *schema.Definition {
	if v.Kind != schema.String {
		c.wrongType(v, s, "a string")
		return nil
	}
	r := c.references[v.Span]
	switch noun := s.Key.Ref.Noun(); {
	case r != nil && r.Target != nil && !r.Target.Unreadable:
		return r.Target
	case r != nil && r.Later != nil:
		d := c.report("forward-reference", v.Span, "%s %s is defined after this reference", noun, schema.QuoteName(r.Name))
		d.Related = []schema.Related{{Span: r.Later.NameSpan, Message: "defined here"}}
	case r != nil && r.Target != nil:
		d := c.report("undefined-reference", v.Span, "%s %s has a form that no lws version reads", noun, schema.QuoteName(r.Name))
		d.Related = []schema.Related{{Span: r.Target.NameSpan, Message: "defined here"}}
	default:
		c.report("undefined-reference", v.Span, "%s %s is not defined", noun, schema.QuoteName(v.Text()))
	}
	return nil
}

func (c *compiler) wrongType(v *schema.Value, s *schema.Setting, want string) {
	c.report("wrong-type", v.Span, "%s must be %s, not %v", s.Key.Name, want, v.Kind)
}
