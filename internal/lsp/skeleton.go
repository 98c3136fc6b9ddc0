package lsp

import (
	"regexp"

	"github.com/secure-streams/sspolicy/schema"
)

// A skeleton is a template of a definition, as a snippet.
type skeleton struct {
	section       schema.Section
	label, detail string
	text          string
}

// skeletons has one for each section, and for each protocol of streamtypes. A test lints
// them.
var skeletons = []skeleton{
	{schema.Retry, "retry", "a backoff scheme", `"${1:default}": { "backoff": [${2:1000, 2000, 5000, 10000}], "conceal": ${3:65535}, "jitterpc": ${4:20}, "svalidping": ${5:30}, "svalidhup": ${6:35} }`},
	{schema.Certs, "certificate", "the base64 of a certificate", `"${1:name}": "${2:MII…}"`},
	{schema.TrustStores, "trust store", "the certificates that a server may depend on", `{ "name": "${1:name}", "stack": ["${2:certificate}"] }`},
	{schema.Auth, "auth scheme", "tokens of AWS", `{ "name": "${1:name}", "type": "sigv4", "blob": ${2:0} }`},
	{schema.Metrics, "metric policy", "a report of metrics", `{ "name": "${1:name}", "us_schedule": ${2:5000000}, "us_halflife": ${3:0}, "min_outlier": ${4:0}, "report": "${5:*}" }`},
	{schema.Streams, "h1 stream", "an HTTP/1.1 request", stream + `"port": ${3:443}, "protocol": "h1", "tls": true, "http_method": "${4:GET}", "http_url": "${5:path}", "opportunistic": true, "retry": "${6:default}" }`},
	{schema.Streams, "h2 stream", "an HTTP/2 request", stream + `"port": ${3:443}, "protocol": "h2", "tls": true, "http_method": "${4:GET}", "http_url": "${5:path}", "opportunistic": true, "retry": "${6:default}" }`},
	{schema.Streams, "h3 stream", "an HTTP/3 request", stream + `"port": ${3:443}, "protocol": "h3", "tls": true, "http_method": "${4:GET}", "http_url": "${5:path}", "opportunistic": true, "retry": "${6:default}" }`},
	{schema.Streams, "ws stream", "a WebSocket", stream + `"port": ${3:443}, "protocol": "ws", "tls": true, "http_url": "${4:path}", "ws_subprotocol": "${5:name}", "nailed_up": true, "retry": "${6:default}" }`},
	{schema.Streams, "mqtt stream", "messages of a broker", stream + `"port": ${3:8883}, "protocol": "mqtt", "tls": true, "mqtt_topic": "${4:topic}", "mqtt_subscribe": "${5:topic}", "mqtt_qos": ${6:1}, "mqtt_keep_alive": ${7:60}, "nailed_up": true, "retry": "${8:default}" }`},
	{schema.Streams, "raw stream", "bytes over TLS", stream + `"port": ${3:4433}, "protocol": "raw", "tls": true, "opportunistic": true, "retry": "${4:default}" }`},
	{schema.Streams, "server", "a server", `"${1:name}": { "server": true, "port": ${2:8080}, "protocol": "${3:h1}", "metadata": [{ "method": "" }, { "path": "" }] }`},
}

const stream = `"${1:name}": { "endpoint": "${2:example.com}", `

var stop = regexp.MustCompile(`\$\{[0-9]+:([^}]*)\}`)

// plainSnippet replaces the placeholders of a snippet with their default texts, for clients
// that do not support snippets.
func plainSnippet(s string) string { return stop.ReplaceAllString(s, "$1") }
