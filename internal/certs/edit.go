package certs

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

// A NamedCert is a certificate and its name in a policy.
type NamedCert struct {
	Name string
	Cert *x509.Certificate
}

// ImportOptions configure Import.
type ImportOptions struct {
	Store   string // trust store to add the certificates to, created if necessary; "" means none
	Replace bool   // replace certificates with the same name
}

// Import returns a document with certificates added. Comments and layout stay. A
// certificate that the policy has under another name is not added again. names are
// the names of the certificates in the policy; changed holds those that are new or
// have replaced others.
func Import(d *schema.Document, certs []NamedCert, o ImportOptions) (result *schema.Document, names, changed []string, err error) {
	var stack []string
	var added []string // members of an object
	for _, c := range certs {
		entries := List(schema.NewPolicy(d))
		name := c.Name
		if i := slices.IndexFunc(entries, func(e *Entry) bool { return e.Cert != nil && e.Cert.Equal(c.Cert) }); i >= 0 {
			name = entries[i].Name
		} else if i := slices.IndexFunc(entries, func(e *Entry) bool { return e.Name == name }); i >= 0 {
			if !o.Replace {
				return nil, nil, nil, fmt.Errorf("%v: the policy has another certificate %q: replace it (--replace), or give this one a name", entries[i].Span, name)
			}
			d = replaceCert(d, name, c.Cert)
			changed = append(changed, name)
		} else if slices.Contains(changed, name) {
			return nil, nil, nil, fmt.Errorf("two certificates would be called %q: import them one by one, with a name", name)
		} else {
			added = append(added, fmt.Sprintf("{%s: %q}", schema.Quote(name), base64.StdEncoding.EncodeToString(c.Cert.Raw)))
			changed = append(changed, name)
		}
		names = append(names, name)
		if !slices.Contains(stack, name) {
			stack = append(stack, name)
		}
	}
	var sections []string
	if len(added) > 0 {
		sections = append(sections, `"certs": [`+strings.Join(added, ", ")+`]`)
	}
	stores := schema.NewPolicy(d).Lookup(schema.TrustStores, o.Store)
	if o.Store != "" && len(stores) == 0 {
		var quoted []string
		for _, name := range stack {
			quoted = append(quoted, schema.Quote(name))
		}
		sections = append(sections, fmt.Sprintf(`"trust_stores": [{"name": %s, "stack": [%s]}]`, schema.Quote(o.Store), strings.Join(quoted, ", ")))
	}
	if len(sections) > 0 {
		text := "{" + strings.Join(sections, ", ") + "}"
		r := overlay.Apply(d, []*schema.Document{schema.Parse("the certificates", []byte(text))}, overlay.Options{})
		for _, g := range r.Diagnostics {
			if g.Severity == schema.Error {
				return nil, nil, nil, fmt.Errorf("%v: %s", g.Span, g.Message)
			}
		}
		if r.Document == nil {
			return nil, nil, nil, errors.New("the policy has syntax errors")
		}
		d = reparse(d, r.Document.String())
	}
	if o.Store != "" && len(stores) > 0 {
		if d, err = extendStack(d, o.Store, stack); err != nil {
			return nil, nil, nil, err
		}
	}
	return d, names, changed, nil
}

func reparse(d *schema.Document, text string) *schema.Document {
	return schema.Parse(d.Source.Name, []byte(text))
}

// edit returns a document with edits applied.
func edit(d *schema.Document, edits []schema.Edit) *schema.Document {
	return reparse(d, schema.ApplyEdits(d.Source, edits))
}

// replaceCert replaces the text of a certificate.
func replaceCert(d *schema.Document, name string, c *x509.Certificate) *schema.Document {
	defs := schema.NewPolicy(d).Lookup(schema.Certs, name)
	at := defs[len(defs)-1].Value.Span
	return edit(d, []schema.Edit{{Span: at, NewText: `"` + base64.StdEncoding.EncodeToString(c.Raw) + `"`}})
}

// Stack returns the names in the stack of a trust store.
func Stack(d *schema.Document, store string) (names []string) {
	for _, e := range stackOf(d, store).Elems() {
		names = append(names, e.Value.Text())
	}
	return names
}

// stackOf returns the stack of a trust store, or a value that is not an array.
func stackOf(d *schema.Document, store string) *schema.Value {
	defs := schema.NewPolicy(d).Lookup(schema.TrustStores, store)
	if len(defs) > 0 {
		if s := defs[len(defs)-1].Get("stack"); s != nil {
			return &s.Member.Value
		}
	}
	return &schema.Value{}
}

// extendStack adds names to the stack of a trust store, in the layout of its elements.
func extendStack(d *schema.Document, store string, names []string) (*schema.Document, error) {
	for _, name := range names {
		stack := stackOf(d, store)
		if stack.Kind != schema.ArrayKind {
			return nil, fmt.Errorf("the trust store %q has no list \"stack\"", store)
		}
		if !slices.Contains(Stack(d, store), name) {
			d = edit(d, appendTo(stack, schema.Quote(name)))
		}
	}
	return d, nil
}

// appendTo returns the edits that append an element to an array, after the comment
// on the line of the last element. The new element is on its own line if the last
// one is.
func appendTo(array *schema.Value, element string) []schema.Edit {
	at := array.Span
	text := at.Source.Text
	place := func(offset int) schema.Span { return schema.Span{Source: at.Source, Start: offset, End: offset} }
	list := array.Elems()
	if len(list) == 0 {
		return []schema.Edit{{Span: place(at.Start + 1), NewText: element}}
	}
	last := list[len(list)-1]
	end := last.Value.Span.End
	gap := " "
	if line := strings.LastIndexByte(last.Value.Before, '\n'); line >= 0 {
		gap = last.Value.Before[line:]
		if strings.HasSuffix(last.Value.Before[:line], "\r") {
			gap = "\r" + gap
		}
	}
	comma, after := ",", ""
	if last.Comma != "" { // lws accepts a comma after the last element
		end += len(last.Value.After) + 1
		comma, after = "", ","
	}
	rest, _, _ := strings.Cut(text[end:], "\n")
	if comment := strings.TrimLeft(rest, " \t"); strings.HasPrefix(comment, "#") {
		if !strings.Contains(gap, "\n") {
			gap = "\n"
		}
		return []schema.Edit{
			{Span: place(end), NewText: comma},
			{Span: place(end + len(strings.TrimRight(rest, "\r"))), NewText: gap + element + after},
		}
	}
	return []schema.Edit{{Span: place(end), NewText: comma + gap + element + after}}
}

// Keep returns a document whose trust store holds only the certificates in keep. It
// also removes certificates that nothing refers to afterwards, and returns their
// names.
func Keep(d *schema.Document, store string, keep []string) (*schema.Document, []string) {
	var dropped []string
	for {
		list := stackOf(d, store).Elems()
		i := slices.IndexFunc(list, func(e *schema.Element) bool { return !slices.Contains(keep, e.Value.Text()) })
		if i < 0 {
			break
		}
		dropped = append(dropped, list[i].Value.Text())
		d = edit(d, schema.RemoveElement(list, i))
	}
	var removed []string
	for _, name := range dropped {
		p := schema.NewPolicy(d)
		if slices.ContainsFunc(p.References, func(r *schema.Reference) bool { return r.Key.Ref == schema.Certs && r.Name == name }) {
			continue
		}
		d = edit(d, removeCert(p, name))
		removed = append(removed, name)
	}
	return d, removed
}

// removeCert returns the edits that remove a certificate, with the object around it if
// it has nothing else.
func removeCert(p *schema.Policy, name string) []schema.Edit {
	for _, m := range p.Document.Root.Members() {
		if m.Key != string(schema.Certs) {
			continue
		}
		list := m.Value.Elems()
		for i, e := range list {
			members := e.Value.Members()
			for j, c := range members {
				switch {
				case c.Key != name:
				case len(members) == 1:
					return schema.RemoveElement(list, i)
				default:
					return schema.RemoveMember(members, j)
				}
			}
		}
	}
	return nil
}

// NameFor returns a name for a certificate in a policy: the common name of its subject,
// in lower case, with underscores.
func NameFor(c *x509.Certificate) string {
	name := c.Subject.CommonName
	if name == "" && len(c.Subject.Organization) > 0 {
		name = c.Subject.Organization[0]
	}
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if s := b.String(); s != "" && !strings.HasSuffix(s, "_") {
			b.WriteByte('_')
		}
	}
	const longest = 40
	text := strings.Trim(b.String()[:min(b.Len(), longest)], "_")
	if text == "" {
		return "cert"
	}
	return text
}
