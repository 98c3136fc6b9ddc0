package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var missingEndpoint = &lint.Rule{
	Name:     "missing-endpoint",
	Severity: schema.Error,
	Summary:  "a client streamtype has no endpoint",
	Why: `The endpoint is the host to connect to. A server (server: true) and a sink (local_sink:
true) need none, nor does a raw streamtype for connections that the program makes itself, if it is
not nailed_up.`,
	LWS: `lws crashes when the stream connects (4.1.6 to 5.0.0). lws_ss_adopt_raw, which gives a
raw stream a connection, came with 4.4.`,
	Bad:  `{ "s": [ { "a": { "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		old := p.Versions(before(4, 4))
		for _, d := range clients(p) {
			switch adopts := d.Protocol() == "raw" && !d.Bool("nailed_up"); {
			case !lacks(d, "endpoint"), adopts && old == "":
			case adopts:
				p.Reportf(d.NameSpan, "%s has no endpoint: lws %s crashes when it connects, and cannot adopt a connection", d, old)
			default:
				p.Reportf(d.NameSpan, "%s has no endpoint: lws crashes when it connects", d)
			}
		}
	},
}
