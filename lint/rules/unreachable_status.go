package rules

import (
	"strconv"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var unreachableStatus = &lint.Rule{
	Name:     "unreachable-status",
	Severity: schema.Warning,
	Summary:  "a stream never gets the HTTP status",
	Why: `The stream never gets a redirect, which is followed or fails the attempt, and never 429
or 503, after which lws retries.`,
	LWS: `With http_expect 301, 302, 303, 307, 308 or a number that is not a status, no transaction
succeeds (4.1.6, 4.3.10 and 5.0.0). For 429 and 503 the stream gets UNREACHABLE, whatever
http_expect and http_resp_map are (4.3.10 and 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "http_expect": 302 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "http_expect": 204 } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if n, ok := number(d, "http_expect"); ok && n <= 65535 {
				span := at(d, "http_expect")
				switch why := unseen[int(n)]; {
				case why != "":
					p.Reportf(span, "no stream gets the status %d: %s", n, why)
				case n != 0 && (n < 100 || n > 599):
					g := p.Reportf(span, "%d is not an HTTP status, so no transaction succeeds", n)
					list(d, "http_resp_map", func(m *schema.Member) {
						if m.Value.Text() == d.Text("http_expect") {
							g.Message += ": it is the state that " + m.Key + " is mapped to"
							g.Related = []schema.Related{{Span: m.Name.Span, Message: "mapped here"}}
						}
					})
				}
			}
			list(d, "http_resp_map", func(m *schema.Member) {
				status, _ := strconv.Atoi(m.Key)
				if why := unseen[status]; why != "" {
					p.Reportf(m.Name.Span, "no stream gets the status %d: %s", status, why)
				}
			})
		}
	},
}

// unseen are the statuses that lws handles itself.
var unseen = map[int]string{
	301: redirect, 302: redirect, 303: redirect, 307: redirect, 308: redirect,
	429: busy, 503: busy,
}

const (
	redirect = "lws follows the redirect, or fails to connect"
	busy     = "lws tries again later"
)
