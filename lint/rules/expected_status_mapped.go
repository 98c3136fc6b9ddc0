package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var expectedStatusMapped = &lint.Rule{
	Name:     "expected-status-mapped",
	Severity: schema.Info,
	Summary:  "the status in http_expect is mapped to a state as well",
	Why:      `Both take effect: the stream gets the state, and later the success of the transaction.`,
	LWS: `The stream gets the state before CONNECTED, and QOS_ACK_REMOTE at the end (4.3.10 and
5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "http_expect": 204, "http_resp_map": [ { "204": 1204 } ] } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "http_expect": 204, "http_resp_map": [ { "404": 1404 } ] } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			expect := d.Text("http_expect")
			list(d, "http_resp_map", func(m *schema.Member) {
				if expect != "" && m.Key == expect {
					g := p.Reportf(m.Name.Span, "%s is also the status of http_expect: the stream gets both the state and success", m.Key)
					g.Related = []schema.Related{{Span: at(d, "http_expect"), Message: "expected here"}}
				}
			})
		}
	},
}
