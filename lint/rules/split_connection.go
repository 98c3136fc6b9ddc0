package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var splitConnection = &lint.Rule{
	Name:     "split-connection",
	Severity: schema.Warning,
	Summary:  "streamtypes with different client certificates share a connection",
	Why: `A stream uses an existing connection to its server, so its requests may be authenticated
with the client certificate of another streamtype. Use a different host name or trust store for
each streamtype.`,
	LWS: `Within a trust store, lws compares host, port and the use of TLS, but not the client
certificate (lws_vhost_active_conns, 4.1.6 and 5.0.0). The runtime of sspolicy makes two
connections.`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 8443, "tls": true, "client_cert": 0, "protocol": "h2", "http_method": "GET", "http_url": "a" } },
         { "b": { "endpoint": "example.com", "port": 8443, "tls": true, "client_cert": 1, "protocol": "h2", "http_method": "GET", "http_url": "b" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "a.example.com", "port": 8443, "tls": true, "client_cert": 0, "protocol": "h2", "http_method": "GET", "http_url": "a" } },
         { "b": { "endpoint": "b.example.com", "port": 8443, "tls": true, "client_cert": 1, "protocol": "h2", "http_method": "GET", "http_url": "b" } } ] }`,
	Check: func(p *lint.Pass) {
		type peer struct{ endpoint, port, store, protocol string }
		first := map[peer]*schema.Definition{}
		for _, d := range clients(p) {
			protocol := d.Protocol()
			if !d.Bool("tls") || protocol != "h2" && protocol != "h3" || d.Text("endpoint") == "" {
				continue
			}
			k := peer{d.Text("endpoint"), d.Text("port"), d.Text("tls_trust_store"), protocol}
			switch other := first[k]; {
			case other == nil:
				first[k] = d
			case other.Text("client_cert") != d.Text("client_cert"):
				g := p.Reportf(at(d, "client_cert"), "%s and %s share a connection, though their client certificates differ", other, d)
				g.Related = []schema.Related{{Span: at(other, "client_cert"), Message: "the other one"}}
			}
		}
	},
}
