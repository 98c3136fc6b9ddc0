package rules

import (
	"slices"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var tooDeep = &lint.Rule{
	Name:       "too-deep",
	ParserOnly: true,
	Severity:   schema.Error,
	Summary:    "objects and arrays are nested too deep, or there are too many sections",
	Why: `lws's parser has a small stack, and every array at the top of a policy permanently takes
part of it. Join split sections, and remove empty ones.`,
	LWS: `Inside the outermost object, objects and arrays may be nested 10 deep in 4.1 to 4.3, 14
in 4.4 and 4.5, and 62 in 5.0, and one deeper without a key or string in the innermost one. At any
place, the number of arrays at the top so far, plus the open arrays, may be 5 in 4.1, 8 in 4.2 and
4.3, 12 in 4.4 and 4.5, and 64 in 5.0. lws refuses more (4.1.6, 4.3.10 and 5.0.0).`,
	Bad: `{ "retry": [], "certs": [], "trust_stores": [], "metrics": [], "auth": [], "retry": [], "certs": [],
  "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "metadata": [ { "id": "x-id:" } ] } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "metadata": [ { "id": "x-id:" } ] } } ] }`,
	Versions: []schema.Version{{Major: 4, Minor: 2}},
	Check: func(p *lint.Pass) {
		least := leastNesting(p.LWS)
		tops := 0 // arrays at the top so far
		var walk func(v *schema.Value, depth, arrays int) bool
		walk = func(v *schema.Value, depth, arrays int) bool {
			at := v.Span
			at.End = min(at.End, at.Start+1)
			switch {
			case depth > least.depth+1, depth > least.depth && holdsText(v):
				p.Reportf(at, "this is nested %d deep: lws %s reads %d", depth,
					p.Versions(func(v schema.Version) bool { return nesting(v).depth < depth }), least.depth)
				return false
			case tops+arrays > least.arrays:
				p.Reportf(at, "this is array %d of those at the top so far and those around it: lws %s reads %d", tops+arrays,
					p.Versions(func(v schema.Version) bool { return nesting(v).arrays < tops+arrays }), least.arrays)
				return false
			}
			for _, m := range v.Members() {
				if !into(&m.Value, depth, arrays, walk) {
					return false
				}
			}
			for _, e := range v.Elems() {
				if !into(&e.Value, depth, arrays, walk) {
					return false
				}
			}
			return true
		}
		for _, m := range p.Policy.Document.Root.Members() {
			var ok bool
			if m.Value.Kind == schema.ArrayKind {
				tops++
				ok = walk(&m.Value, 1, 0)
			} else {
				ok = into(&m.Value, 0, 0, walk)
			}
			if !ok {
				return // report one place
			}
		}
	},
}

// holdsText reports whether an object or array directly contains a key or a string, which
// takes one more entry of the parser's stack.
func holdsText(v *schema.Value) bool {
	return len(v.Members()) > 0 || slices.ContainsFunc(v.Elems(), func(e *schema.Element) bool { return e.Value.Kind == schema.String })
}

// into walks into a nested object or array.
func into(v *schema.Value, depth, arrays int, walk func(*schema.Value, int, int) bool) bool {
	switch v.Kind {
	case schema.ObjectKind:
		return walk(v, depth+1, arrays)
	case schema.ArrayKind:
		return walk(v, depth+1, arrays+1)
	}
	return true
}

// limits are the nesting limits of a version of lws.
type limits struct{ depth, arrays int }

func nesting(v schema.Version) limits {
	switch {
	case before(4, 2)(v):
		return limits{10, 5}
	case before(4, 4)(v):
		return limits{10, 8}
	case before(5, 0)(v):
		return limits{14, 12}
	}
	return limits{62, 64}
}

func leastNesting(versions []schema.Version) limits {
	least := nesting(schema.Latest())
	for _, v := range versions {
		n := nesting(v)
		least = limits{min(least.depth, n.depth), min(least.arrays, n.arrays)}
	}
	return least
}
