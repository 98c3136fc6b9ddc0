package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var sharedStorage = &lint.Rule{
	Name:       "shared-storage",
	ParserOnly: true,
	Severity:   schema.Error,
	Summary:    "a streamtype has keys of both mqtt and http",
	Why: `lws stores both in one place, whatever the protocol is: mqtt_topic in http_method,
mqtt_subscribe in http_url.`,
	LWS: `With mqtt_topic "PUT" and mqtt_subscribe "zz", an h1 streamtype requests PUT /zz, and a ws
streamtype makes a plain request; http_method and http_url are the topics of an mqtt
streamtype (4.1.6 to 5.0.0). mqtt_keep_alive, mqtt_qos and similar keys make invalid
pointers: 4.3.10 to 5.0.0 crash.`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "mqtt_keep_alive": 60 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			protocol := d.Protocol()
			other, what := "u.mqtt.", "http"
			if protocol == "mqtt" {
				other, what = "u.http.", "mqtt"
			} else if protocol != "ws" && !http(protocol) {
				continue
			}
			for _, s := range d.Settings {
				if s.Key == nil || !strings.HasPrefix(s.Key.Member, other) || s.Member.Value.Raw() == "false" {
					continue
				}
				g := p.Reportf(s.Member.Name.Span, "lws stores %s in the place of a key of %s, whatever the protocol is: remove it", s.Key.Name, what)
				if d.Get("protocol") == nil {
					g.Message += `, or set "protocol": "mqtt"`
				}
			}
		}
	},
}
