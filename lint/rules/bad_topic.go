package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var badTopic = &lint.Rule{
	Name:     "bad-topic",
	Severity: schema.Error,
	Summary:  "MQTT does not allow this topic or filter",
	Why: `"+" and "#" are wildcards, which only filters may have. "+" is a whole level. "#" is the
whole last level and matches all further levels (MQTT 3.1.1, section 4.7). Topics that begin with
"$" belong to the broker.`,
	LWS: `lws does not connect with an invalid filter, with a filter that begins with "$", which MQTT
allows, or, with aws_iot, with a filter of more than 7 slashes. It does not subscribe to an
empty filter. It sends topics unchecked, and a broker closes the connection (4.3.10 and
5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 1883, "protocol": "mqtt", "mqtt_subscribe": "rooms/#/state" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 1883, "protocol": "mqtt", "mqtt_subscribe": "rooms/+/state" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if d.Protocol() != "mqtt" {
				continue
			}
			for _, key := range []string{"mqtt_topic", "mqtt_subscribe", "mqtt_will_topic", "mqtt_birth_topic"} {
				if s := d.Get(key); s != nil && s.Member.Value.Kind == schema.String {
					topic := s.Member.Value.Text()
					if key == "mqtt_subscribe" && strings.Contains(topic, ",") {
						p.Reportf(s.Member.Value.Span, "mqtt_subscribe %s is one filter, and the comma a part of it: write a streamtype for each", schema.QuoteName(topic)).Severity = schema.Warning
					}
					if wrong := wrongTopic(topic, key == "mqtt_subscribe", d.Bool("aws_iot")); wrong != "" {
						p.Reportf(s.Member.Value.Span, "%s %s: %s", key, schema.QuoteName(topic), wrong)
					}
				}
			}
		}
	},
}

// wrongTopic returns the mistake in a topic or filter. It accepts a topic that is valid for
// some value of ${name}.
func wrongTopic(topic string, filter, aws bool) string {
	symbol := strings.Contains(topic, "${")
	switch {
	case topic == "":
		return "it is empty"
	case strings.Contains(topic, "\x00"):
		return "it has a NUL in it"
	case strings.HasPrefix(topic, "$") && !symbol && filter:
		return `lws subscribes to nothing that starts with "$"`
	case strings.HasPrefix(topic, "$") && !symbol && !aws:
		return `topics that start with "$" are the broker's own`
	case !filter && strings.ContainsAny(topic, "+#"):
		return `"+" and "#" are for filters, and no message is published on them`
	case aws && strings.Count(topic, "/") > 7:
		return "it has more than 7 slashes, which AWS IoT does not take"
	case !filter:
		return ""
	}
	levels := strings.Split(topic, "/")
	for i, level := range levels {
		switch {
		case strings.Contains(level, "${"):
		case strings.Contains(level, "+") && level != "+":
			return `"+" stands alone in its level`
		case strings.Contains(level, "#") && level != "#":
			return `"#" stands alone in its level`
		case level == "#" && i < len(levels)-1:
			return `"#" is the last level`
		}
	}
	return ""
}
