package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var prefixMatch = &lint.Rule{
	Name:       "prefix-match",
	ParserOnly: true,
	Severity:   schema.Error,
	Fixes:      lint.SafeFix,
	Summary:    "lws uses another definition, whose name begins with the one given",
	Why: `lws uses the newest definition before the reference whose name begins with it. Put the
longer name first, or choose names with different beginnings.`,
	LWS: `lws compares the names of backoff schemes, trust stores and the certificates of a trust
store only up to the length of the reference (4.1.6 to 5.0.0).`,
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
	Check: func(p *lint.Pass) {
		r := resolution(p)
		for _, ref := range p.Policy.References {
			got := r.Definition[ref]
			if ref.Target == nil || got == nil || got.Name == ref.Name || ref.Name == "" || r.Conflict[ref] != nil {
				continue
			}
			d := p.Reportf(ref.Span, "lws uses %s here: it is newer than %s, and its name begins with the same text",
				got, schema.QuoteName(ref.Name))
			d.Related = []schema.Related{
				{Span: got.NameSpan, Message: "lws uses this"},
				{Span: ref.Target.NameSpan, Message: "this is intended"},
			}
			if edits := moveAfter(places(p), ref.Target, got); edits != nil {
				d.Fixes = []schema.Fix{{
					Message: "move " + ref.Target.String() + " after " + got.String(),
					Edits:   edits,
					Safe:    true,
				}}
			}
		}
	},
}

// A place is the position of an entry in the array of its section.
type place struct {
	array *schema.Array
	i     int
}

// places returns the places of the entries that are alone in their object, by the span of
// their name.
var places = lint.Memo(func(p *lint.Pass) map[schema.Span]place {
	places := map[schema.Span]place{}
	for _, m := range p.Policy.Document.Root.Members() {
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
})

// moveAfter returns the edits that move an entry after a later one of its array. It returns
// none if the two are not in one array or a comment would be lost.
func moveAfter(places map[schema.Span]place, d, later *schema.Definition) []schema.Edit {
	from, ok1 := places[d.NameSpan]
	to, ok2 := places[later.NameSpan]
	if !ok1 || !ok2 || from.array != to.array || from.i >= to.i {
		return nil
	}
	e, next, last := from.array.Elems[from.i], from.array.Elems[from.i+1], to.array.Elems[to.i]
	span := schema.Span{Source: e.Value.Span.Source, Start: e.Value.Span.Start, End: next.Value.Span.Start}
	if between := span.Source.Text[e.Value.Span.End:span.End]; e.Comma == "" || strings.Contains(between, "#") {
		return nil
	}
	at := schema.Span{Source: span.Source, Start: last.Value.Span.End, End: last.Value.Span.End}
	return []schema.Edit{{Span: span}, {Span: at, NewText: "," + next.Value.Before + e.Value.Span.Text()}}
}
