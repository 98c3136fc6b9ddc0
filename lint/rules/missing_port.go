package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var missingPort = &lint.Rule{
	Name:     "missing-port",
	Severity: schema.Error,
	Summary:  "a streamtype has no port",
	Why: `There is no default. An endpoint needs no port if it is a URL, file://, or a unix socket
(+path). A server needs none for a unix socket or an existing vhost (!name). For a server with
port 0, which is useful in tests, the system chooses a port.`,
	LWS: `lws tries to connect to port 0, which fails (4.1.6 to 5.0.0). It creates a server
without an error, on a port that the system chooses (4.2.2 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		missing := func(d *schema.Definition) bool {
			n, ok := number(d, "port")
			return lacks(d, "port") || ok && n == 0
		}
		for _, d := range clients(p) {
			e := d.Text("endpoint")
			if missing(d) && e != "" && !location(e) && !strings.HasPrefix(e, "${") {
				p.Reportf(at(d, "port"), "%s has no port: there is no default", d)
			}
		}
		for _, d := range streams(p) {
			e := d.Text("endpoint")
			if d.Bool("server") && lacks(d, "port") && !strings.HasPrefix(e, "+") && !strings.HasPrefix(e, "!") {
				p.Reportf(at(d, "port"), "the server %s has no port to listen on", schema.QuoteName(d.Name))
			}
		}
	},
}

// at returns the place of a setting's value, or if there is none that of the
// definition's name.
func at(d *schema.Definition, key string) schema.Span {
	if s := d.Get(key); s != nil {
		return s.Member.Value.Span
	}
	return d.NameSpan
}
