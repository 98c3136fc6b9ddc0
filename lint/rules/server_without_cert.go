package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var serverWithoutCert = &lint.Rule{
	Name:     "server-without-cert",
	Severity: schema.Error,
	Summary:  "a server with TLS has no certificate or no private key",
	Why: `A server with "tls": true needs server_cert and server_key, unless it is bound to a
vhost of the program by "endpoint": "!vhost". A Go program may hold both as credentials
instead: suppress the finding there.`,
	LWS: `Without the key lws crashes when the program creates the server (4.1.6 to 5.0.0). Without
the certificate 4.1.6 to 4.3.10 crash, and 4.5.8 and 5.0.0 do not create it.`,
	Bad: `{ "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "tls": true } } ] }`,
	Good: `{ "certs": [ { "identity": "` + exampleServer + `" }, { "key": "` + exampleServerKey + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "tls": true,
                  "server_cert": "identity", "server_key": "key" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, s := range streams(p) {
			if unclear(s) || !s.Bool("server") || !s.Bool("tls") || strings.HasPrefix(s.Text("endpoint"), "!") {
				continue
			}
			at := s.Get("tls").Member.Span()
			switch cert, key := s.Get("server_cert"), s.Get("server_key"); {
			case cert == nil && key == nil:
				p.Reportf(at, "%s has TLS, but neither server_cert nor server_key", s)
			case cert == nil:
				p.Reportf(at, "%s has TLS and server_key, but no server_cert", s)
			case key == nil:
				p.Reportf(at, "%s has TLS and server_cert, but no server_key: lws crashes", s)
			}
		}
	},
}
