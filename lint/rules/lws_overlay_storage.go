package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var lwsOverlayStorage = &lint.Rule{
	Name:     overlay.RuleLWSStorage,
	Severity: schema.Error,
	Firm:     true,
	Summary:  "lws reads settings of one protocol as those of another",
	Why: `lws stores the settings of HTTP and MQTT in one place. After a change of the protocol,
the old settings are still there. Set all settings of the new protocol in the fragment.`,
	LWS: `http_method becomes mqtt_topic, and http_url becomes mqtt_subscribe (5.0.0). See
shared-storage.`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad:        `{ "s": [ { "api": { "protocol": "mqtt" } } ] }`,
	Good:       `{ "s": [ { "api": { "protocol": "h2" } } ] }`,
}
