package lint

import (
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

var prefixMatch = &Rule{
	Name:     "prefix-match",
	Severity: schema.Error,
	Summary:  "lws takes another definition, whose name only begins with the one given",
	Why: `Of the definitions that stand before the reference lws takes the newest one whose
name begins with it. Put the longer name first, or give the two names that do
not begin alike.`,
	LWS: `lws compares the names of backoff schemes, trust stores and the certificates of
a trust store no further than the reference goes (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "slow": { "backoff": [ 60000 ] } }, { "slower": { "backoff": [ 600000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "slow" } },
         { "b": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "slower" } } ] }`,
	Good: `{ "retry": [ { "slower": { "backoff": [ 600000 ] } }, { "slow": { "backoff": [ 60000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "slow" } },
         { "b": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "slower" } } ] }`,
	check: func(p *pass) {
		r := p.resolve()
		var places map[schema.Span]place
		for _, ref := range p.policy.References {
			got := r.taken[ref]
			if ref.Target == nil || got == nil || got.Name == ref.Name || ref.Name == "" || r.lost[ref] != nil {
				continue
			}
			d := p.report(ref.Span, "lws takes %s here: it is newer than %s, and its name begins with that one's",
				got, schema.QuoteName(ref.Name))
			d.Related = []schema.Related{
				{Span: got.NameSpan, Message: "lws takes this"},
				{Span: ref.Target.NameSpan, Message: "this was meant"},
			}
			if places == nil {
				places = p.places()
			}
			if edits := moveAfter(places, ref.Target, got); edits != nil {
				d.Fixes = []schema.Fix{{
					Message: "move " + ref.Target.String() + " after " + got.String(),
					Edits:   edits,
				}}
			}
		}
	},
}

// A place is where an entry of a section stands in its array.
type place struct {
	array *schema.Array
	i     int
}

// places returns where the entries stand that are alone in their object, by the
// span of their name.
func (p *pass) places() map[schema.Span]place {
	places := map[schema.Span]place{}
	for _, m := range p.policy.Document.Root.Members() {
		for i, e := range m.Value.Elems() {
			switch ms := e.Value.Members(); schema.Section(m.Key) {
			case schema.Retry, schema.Certs:
				if len(ms) == 1 {
					places[ms[0].Name.Span] = place{m.Value.Array, i}
				}
			case schema.TrustStores:
				for _, n := range ms {
					if n.Key == "name" {
						places[n.Value.Span] = place{m.Value.Array, i}
					}
				}
			}
		}
	}
	return places
}

// moveAfter returns the edits that put an entry behind a later one of its array.
// There are none if the two are not in one array or a comment would be lost.
func moveAfter(places map[schema.Span]place, d, later *schema.Definition) []schema.Edit {
	from, ok1 := places[d.NameSpan]
	to, ok2 := places[later.NameSpan]
	if !ok1 || !ok2 || from.array != to.array || from.i >= to.i {
		return nil
	}
	e, next, last := from.array.Elems[from.i], from.array.Elems[from.i+1], to.array.Elems[to.i]
	gone := schema.Span{Source: e.Value.Span.Source, Start: e.Value.Span.Start, End: next.Value.Span.Start}
	if between := gone.Source.Text[e.Value.Span.End:gone.End]; e.Comma == "" || strings.Contains(between, "#") {
		return nil
	}
	at := schema.Span{Source: gone.Source, Start: last.Value.Span.End, End: last.Value.Span.End}
	return []schema.Edit{{Span: gone}, {Span: at, NewText: "," + next.Value.Before + e.Value.Span.Text()}}
}
