package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var overlayDroppedSettings = &lint.Rule{
	Name:     overlay.RuleDroppedSettings,
	Severity: schema.Info,
	Firm:     true,
	Summary:  "a fragment changes the protocol, and settings of the old one are dropped",
	Why: `The new protocol does not use them, and lws would read some of them as settings of the
new protocol. Set the settings of the new protocol in the fragment.`,
	LWS: `lws stores the settings of mqtt and HTTP in one place: http_url becomes mqtt_subscribe
(5.0.0; see shared-storage).`,
	Base: overlayBase,
	Bad:  `{ "s": [ { "api": { "protocol": "raw" } } ] }`,
	Good: `{ "s": [ { "api": { "protocol": "h2" } } ] }`,
}
