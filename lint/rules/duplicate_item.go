package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var duplicateItem = &lint.Rule{
	Name:     "duplicate-item",
	Severity: schema.Error,
	Summary:  "a metadata item or an HTTP status is in a list twice",
	Why:      `Only one of the two is ever found.`,
	LWS: `lws keeps both. The program sets the last metadata item, and the other one stays empty;
for a status, the first entry counts (4.1.6 to 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "metadata": [ { "id": "x-id:" }, { "id": "x-device:" } ] } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "metadata": [ { "id": "x-id:" }, { "device": "x-device:" } ] } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			var first map[string]*schema.Member // of the lists that lws joins
			for _, s := range d.Settings {
				if s.Key == nil || s.Key.Name != "metadata" && s.Key.Name != "http_resp_map" {
					continue
				}
				items := first
				if items == nil || !s.Key.Joined() {
					items = map[string]*schema.Member{}
				}
				if s.Key.Joined() {
					first = items
				}
				for _, e := range s.Member.Value.Elems() {
					for _, m := range e.Value.Members() {
						if items[m.Key] == nil {
							items[m.Key] = m
							continue
						}
						what := "metadata"
						if s.Key.Name == "http_resp_map" {
							what = "the status"
						}
						g := p.Reportf(m.Name.Span, "%s %s of %s is repeated here", what, schema.QuoteName(m.Key), d)
						g.Related = []schema.Related{{Span: items[m.Key].Name.Span, Message: "the first one"}}
					}
				}
			}
		}
	},
}
