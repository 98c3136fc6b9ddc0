package rules

import (
	"slices"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

// clients returns the streamtypes that connect to a server, except one that may be
// truncated.
var clients = lint.Memo(func(p *lint.Pass) []*schema.Definition {
	var clients []*schema.Definition
	for _, d := range streams(p) {
		if d.Value.Kind == schema.ObjectKind && d.Value.Object.Close != "" && !unclear(d) && !d.Bool("server") && !d.Bool("local_sink") && d.Name != "_lws_smd" {
			clients = append(clients, d)
		}
	}
	return clients
})

// unclear reports whether a key that determines the kind of a streamtype, server or client,
// with TLS or without, has a wrong type. Findings that depend on it wait until the type is
// right.
func unclear(d *schema.Definition) bool {
	if s := d.Get("protocol"); s != nil && s.Key != nil && !slices.Contains(s.Key.Enum, s.Member.Value.Text()) && d.Get("tls") == nil {
		if s.Key.Replacement(s.Member.Value.Text())["tls"] != nil {
			return true // "wss"
		}
	}
	return d.Unclear("server") || d.Unclear("local_sink") || d.Unclear("tls")
}

// http reports whether a protocol is one of HTTP without websocket.
func http(protocol string) bool { return protocol == "h1" || protocol == "h2" || protocol == "h3" }

// number returns the value of an integer setting, and whether there is one.
func number(d *schema.Definition, key string) (uint64, bool) {
	if s := d.Get(key); s != nil {
		return numeral(&s.Member.Value)
	}
	return 0, false
}

// list calls f for each member of the objects in a list, such as metadata.
func list(d *schema.Definition, key string, f func(*schema.Member)) {
	for _, s := range d.Settings {
		if s.Key == nil || s.Key.Name != key {
			continue
		}
		for _, e := range s.Member.Value.Elems() {
			for _, m := range e.Value.Members() {
				f(m)
			}
		}
	}
}

// remove adds the fix that removes a setting from its definition.
func remove(g *schema.Diagnostic, d *schema.Definition, s *schema.Setting) {
	members := d.Value.Members()
	for i, m := range members {
		if m != s.Member {
			continue
		}
		fix := schema.Fix{Message: "remove " + m.Key}
		if i+1 < len(members) && m.Comma != "" { // the next member moves to its place
			at := m.Span()
			at.End = m.Value.Span.End + len(m.Value.After) + len(m.Comma)
			if next := members[i+1].Name.Span.Start; strings.TrimSpace(at.Source.Text[at.End:next]) == "" {
				at.End = next
			}
			fix.Edits = []schema.Edit{{Span: at}}
		} else {
			fix.Edits = schema.RemoveMember(members, i)
		}
		g.Fixes = []schema.Fix{fix}
	}
}

// insert adds the fix that inserts a member after another one.
func insert(g *schema.Diagnostic, after *schema.Member, member string) {
	at := after.Value.Span
	at.Start = at.End
	g.Fixes = []schema.Fix{{Message: "add " + member, Edits: []schema.Edit{{Span: at, NewText: ", " + member}}, Safe: true}}
}

// suggest is write for an unsafe fix.
func suggest(g *schema.Diagnostic, v *schema.Value, text string) {
	write(g, v, text)
	g.Fixes[0].Safe = false
}

// write adds the fix that replaces a value with a string.
func write(g *schema.Diagnostic, v *schema.Value, text string) {
	g.Fixes = []schema.Fix{{Message: "write " + schema.Quote(text), Edits: []schema.Edit{{Span: v.Span, NewText: schema.Quote(text)}}, Safe: true}}
}

// before and since select the versions of lws before a version, and from a version on.
func before(major, minor int) func(schema.Version) bool {
	return func(v schema.Version) bool { return v.Compare(schema.Version{Major: major, Minor: minor}) < 0 }
}

func since(major, minor int) func(schema.Version) bool {
	return func(v schema.Version) bool { return v.Compare(schema.Version{Major: major, Minor: minor}) >= 0 }
}

// location reports whether an endpoint is more than a host: a URL, a file, a unix socket,
// or a host with a port.
func location(endpoint string) bool {
	return strings.HasPrefix(endpoint, "+") || strings.Contains(endpoint, ":") && !strings.HasPrefix(endpoint, "::")
}

// numeral returns the value of an integer.
func numeral(v *schema.Value) (uint64, bool) {
	n, err := strconv.ParseUint(v.Text(), 10, 64)
	return n, err == nil
}

// lacks reports whether a definition has neither the setting nor a misspelling of it.
func lacks(d *schema.Definition, key string) bool {
	for _, s := range d.Settings {
		if s.Member.Key == key || s.Key == nil && schema.Nearest(s.Member.Key, []string{key}) != "" {
			return false
		}
	}
	return true
}

// intended returns the definition that a reference is meant for: the one that it finds, or
// one that is defined too late.
func intended(r *schema.Reference) *schema.Definition {
	if r.Target != nil {
		return r.Target
	}
	return r.Later
}
