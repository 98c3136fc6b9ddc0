package rules

import (
	"slices"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var unusedMetadata = &lint.Rule{
	Name:     "unused-metadata",
	Severity: schema.Info,
	Summary:  "nothing uses a metadata item",
	Why: `The item names no header, and no ${} contains it. The value that the program sets is not
sent.`,
	LWS: `lws stores the value and does not use it (5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "devices", "metadata": [ { "id": "" } ],
                  "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "devices/${id}", "metadata": [ { "id": "" } ],
                  "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		var used nameSet
		for _, s := range streams(p) {
			// A server receives the arguments of the URL by name, and a client with
			// direct_proto_str may receive headers by name. For other protocols and sinks,
			// the program decides how to use metadata.
			if s.Bool("server") || s.Bool("local_sink") || s.Bool("direct_proto_str") ||
				!slices.Contains([]string{"h1", "h2", "h3", "ws"}, s.Protocol()) {
				continue
			}
			used.reset()
			used.add(s.Text("aws_region"))
			used.add(s.Text("aws_service"))
			eachSymbol(s, func(_ *schema.Key, _ *schema.Value, sym symbol) { used.add(sym.name) })
			for _, m := range metadata(s) {
				if m.Value.Kind == schema.String && m.Value.Text() == "" && !used.has(m.Key) {
					p.Reportf(m.Name.Span, "nothing uses metadata %s of %s: it names no header, and there is no ${%s}",
						schema.QuoteName(m.Key), s, m.Key)
				}
			}
		}
	},
}
