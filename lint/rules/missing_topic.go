package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var missingTopic = &lint.Rule{
	Name:     "missing-topic",
	Severity: schema.Warning,
	Summary:  "an mqtt streamtype has a message without a topic, or no topic at all",
	Why: `A stream publishes on mqtt_topic and subscribes to mqtt_subscribe; it needs one of them. A
will and a birth message each need their own topic.`,
	LWS: `Without any topic lws sends an HTTP request to the broker. It does not send a will or birth
message without a topic (4.3.10 and 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 1883, "protocol": "mqtt", "mqtt_topic": "a/b", "mqtt_will_message": "gone" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 1883, "protocol": "mqtt", "mqtt_topic": "a/b",
                  "mqtt_will_topic": "a/state", "mqtt_will_message": "gone" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if d.Protocol() != "mqtt" {
				continue
			}
			if lacks(d, "mqtt_topic") && lacks(d, "mqtt_subscribe") {
				p.Reportf(d.NameSpan, "%s has neither mqtt_topic nor mqtt_subscribe: lws sends an HTTP request to the broker", d).Severity = schema.Error
			}
			for _, what := range []string{"will", "birth"} {
				if d.Get("mqtt_"+what+"_topic") != nil {
					continue
				}
				for _, key := range []string{"message", "qos", "retain"} {
					s := d.Get("mqtt_" + what + "_" + key)
					if s == nil || key != "message" && (s.Member.Value.Raw() == "false" || s.Member.Value.Raw() == "0") {
						continue
					}
					p.Reportf(s.Member.Name.Span, "without mqtt_%s_topic, lws sends no %s message", what, what)
					break
				}
			}
		}
	},
}
