package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var unequalMQTT = &lint.Rule{
	Name:     "unequal-mqtt",
	Severity: schema.Warning,
	Summary:  "mqtt streamtypes that share a connection have different connection settings",
	Why: `Streams to the same broker (endpoint, port, tls and trust store) share one connection.
The stream that connects first determines keep-alive, clean start and will.`,
	LWS: `With two streams with different keep-alives, the second one used the connection of the
first, and lws sent only the keep-alive and the will of the first (4.3.10 and 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 1883, "protocol": "mqtt", "mqtt_topic": "a", "mqtt_keep_alive": 60 } },
         { "b": { "endpoint": "example.com", "port": 1883, "protocol": "mqtt", "mqtt_topic": "b", "mqtt_keep_alive": 20 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 1883, "protocol": "mqtt", "mqtt_topic": "a", "mqtt_keep_alive": 60 } },
         { "b": { "endpoint": "example.com", "port": 1883, "protocol": "mqtt", "mqtt_topic": "b", "mqtt_keep_alive": 60 } } ] }`,
	Check: func(p *lint.Pass) {
		type broker struct {
			endpoint, port, store string
			tls                   bool
		}
		first := map[broker]*schema.Definition{}
		for _, d := range clients(p) {
			if d.Protocol() != "mqtt" || d.Get("endpoint") == nil {
				continue
			}
			b := broker{d.Text("endpoint"), d.Text("port"), d.Text("tls_trust_store"), d.Bool("tls")}
			one := first[b]
			if one == nil {
				first[b] = d
				continue
			}
			for _, key := range []string{"mqtt_keep_alive", "mqtt_clean_start", "mqtt_will_topic", "mqtt_will_message", "mqtt_will_qos", "mqtt_will_retain"} {
				if setting(d, key) != setting(one, key) {
					g := p.Reportf(at(d, key), "%s of %s differs from %s, with which it shares a connection", key, d, one)
					g.Related = []schema.Related{{Span: at(one, key), Message: strings.TrimSpace(one.String() + " " + key + " " + setting(one, key))}}
				}
			}
		}
	},
}

// setting returns the value that lws stores for a scalar. A missing one is the same as 0,
// false or "".
func setting(d *schema.Definition, key string) string {
	switch text := d.Text(key); text {
	case "false", "0", "null":
		return ""
	default:
		return text
	}
}
