package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var privilegedPort = &lint.Rule{
	Name:     "privileged-port",
	Severity: schema.Info,
	Summary:  "a server listens on a port that needs privilege",
	Why: `On Linux and most other systems only root, or a program with the capability
CAP_NET_BIND_SERVICE, may listen on a port below 1024. A service manager can open the port
and hand the socket to the program.`,
	LWS:  `Without the privilege lws does not create the server (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "server": true, "protocol": "raw", "port": 443 } } ] }`,
	Good: `{ "s": [ { "a": { "server": true, "protocol": "raw", "port": 8443 } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			port, ok := number(d, "port")
			if !d.Bool("server") || unclear(d) || !ok || port == 0 || port >= 1024 {
				continue
			}
			if on := d.Text("endpoint"); on == "" || on[0] != '!' && on[0] != '+' {
				p.Reportf(at(d, "port"), "%s listens on port %d, which needs root or CAP_NET_BIND_SERVICE", d, port)
			}
		}
	},
}
