package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var sharedPort = &lint.Rule{
	Name:     "shared-port",
	Severity: schema.Error,
	Summary:  "two servers listen on one port",
	Why: `Only one of them gets the connections. For HTTP and websocket on one port, write one
streamtype with ws_subprotocol.`,
	LWS: `On the same interface lws creates both without an error, and the first one gets all
connections, whatever its protocol (5.0.0). If only one of them names an interface, the
second one is not created (4.2.2 to 5.0.0).`,
	Bad: `{ "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681 } },
         { "b": { "server": true, "protocol": "raw", "port": 7681 } } ] }`,
	Good: `{ "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681 } },
         { "b": { "server": true, "protocol": "raw", "port": 7682 } } ] }`,
	Check: func(p *lint.Pass) {
		type place struct {
			port uint64
			nic  string
		}
		first := map[place]*schema.Definition{}
		onPort := map[uint64]*schema.Definition{} // the first on each port
		for _, d := range streams(p) {
			port, ok := number(d, "port")
			on := d.Text("endpoint")
			if !d.Bool("server") || !ok || port == 0 || on != "" && (on[0] == '!' || on[0] == '+') {
				continue
			}
			other := first[place{port, on}]
			if other == nil {
				other = first[place{port, ""}]
			}
			if other == nil && on == "" {
				other = onPort[port]
			}
			if other != nil {
				g := p.Reportf(at(d, "port"), "%s listens on port %d too: only one of them gets the connections", other, port)
				g.Related = []schema.Related{{Span: at(other, "port"), Message: "the other server"}}
				continue
			}
			first[place{port, on}] = d
			if onPort[port] == nil {
				onPort[port] = d
			}
		}
	},
}
