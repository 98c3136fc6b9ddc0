package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var rawMetadata = &lint.Rule{
	Name:     "raw-metadata",
	Severity: schema.Info,
	Summary:  "a metadata value is inserted unchanged into a topic or URL",
	Why: `sspolicy restricts values: a part of a topic cannot contain "+", "#" or "/", and a part
of a URL is percent-encoded. "raw" in x-sspolicy removes this protection for an item, so a program
that passes on a foreign value can subscribe to other topics or request other paths. The rule
warns if "raw" has no effect, because the streamtype or the item does not exist or the item is not
a part of a topic or URL.`,
	LWS: `lws ignores x-sspolicy, and inserts every value unchanged (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ], "svalidping": 30, "svalidhup": 35 } } ],
  "x-sspolicy": { "streams": { "a": { "metadata": { "id": "raw" } } } },
  "s": [ { "a": { "endpoint": "example.com", "port": 8883, "tls": true, "protocol": "mqtt",
                  "mqtt_subscribe": "devices/${id}/set", "metadata": [ { "id": "" } ],
                  "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ], "svalidping": 30, "svalidhup": 35 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 8883, "tls": true, "protocol": "mqtt",
                  "mqtt_subscribe": "devices/${id}/set", "metadata": [ { "id": "" } ],
                  "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, item := range p.Policy.RawItems() {
			none := func(at schema.Span, format string, args ...any) *schema.Diagnostic {
				d := p.Reportf(at, format, args...)
				d.Severity = schema.Warning
				return d
			}
			defs := p.Policy.Lookup(schema.Streams, item.Stream)
			if len(defs) == 0 {
				none(item.StreamSpan, "\"raw\" has no effect: there is no streamtype %s", schema.QuoteName(item.Stream))
				continue
			}
			s := defs[len(defs)-1]
			var items []policy.Metadata
			for _, m := range metadata(s) {
				items = append(items, policy.Metadata{Name: m.Key})
			}
			i := policy.ItemIndex(items, item.Item)
			if i < 0 {
				none(item.ItemSpan, "\"raw\" has no effect: %s has no metadata %s", s, schema.QuoteName(item.Item))
				continue
			}
			if keys := confining(s, items, i); len(keys) > 0 {
				p.Reportf(item.ItemSpan, "metadata %s goes into %s of %s as it is, and can widen it", schema.QuoteName(item.Item), strings.Join(keys, ", "), s)
			} else {
				none(item.ItemSpan, "\"raw\" has no effect: metadata %s is not a part of a topic or URL of %s", schema.QuoteName(item.Item), s)
			}
		}
	},
}

// confining returns the keys of a streamtype in whose values an item cannot affect more
// than its place, unless it is raw.
func confining(s *schema.Definition, items []policy.Metadata, item int) []string {
	if s.Bool("server") {
		return nil
	}
	protocol, _ := policy.ParseProtocol(s.Protocol())
	var keys []string
	for _, key := range []string{"endpoint", "http_url", "mqtt_topic", "mqtt_subscribe", "mqtt_will_topic", "mqtt_birth_topic"} {
		text, uses := s.Text(key), make([]policy.Use, len(items))
		switch k := schema.LookupKey(schema.Streams, key); {
		case text == "" || !k.Serves(s.Protocol()):
		case key == "endpoint":
			policy.NewEndpoint(&policy.StreamType{Endpoint: text, Protocol: protocol, Metadata: items}, uses)
		case key == "http_url":
			policy.ParseURL(text, items, uses)
		default:
			policy.ParseTopic(text, items, uses)
		}
		if uses[item]&(policy.UsePart|policy.UseLevel) != 0 {
			keys = append(keys, key)
		}
	}
	return keys
}
