package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var h2Window = &lint.Rule{
	Name:     "h2-window",
	Severity: schema.Info,
	Summary:  "a streamtype uses h2, which fails between lws and nginx unless the program sets an option",
	Why: `If the server may be nginx, or one that opens the flow-control window of a connection to
its maximum as nginx does, set LWS_SERVER_OPTION_H2_JUST_FIX_WINDOW_UPDATE_OVERFLOW in the options
of the context, or write "h1". The key h2q_oflow_txcr does not help: it concerns another frame.`,
	LWS: `lws counts the window of a connection from the server's initial window of streams, instead of
65,535. nginx sends 65,536, and then opens the window to 2,147,483,647: one more than lws allows, so lws ends the
connection before the request is answered (nginx 1.22 and lws 4.1.6, 4.3.10 and 5.0.0, measured; 4.2 to 4.5 have
the same code). With the option, the request is answered.`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h2", "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		var g *schema.Diagnostic // one per policy
		for _, d := range clients(p) {
			switch s := d.Get("protocol"); {
			case s == nil || !overH2(d):
			case g == nil:
				g = p.Reportf(s.Member.Value.Span, "%s speaks h2: if the server is nginx, lws ends the connection, unless the program sets LWS_SERVER_OPTION_H2_JUST_FIX_WINDOW_UPDATE_OVERFLOW", d)
			default:
				g.Related = append(g.Related, schema.Related{Span: s.Member.Value.Span, Message: d.String() + " does, too"})
			}
		}
	},
}
