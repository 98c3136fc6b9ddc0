package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

var lwsOverlayFlag = &lint.Rule{
	Name:     overlay.RuleLWSFlag,
	Severity: schema.Error,
	Firm:     true,
	Summary:  "a fragment clears a flag, which lws cannot do",
	Why:      `lws can only set these flags. Compile or set a policy without the flag instead.`,
	LWS: `false and null do not clear tls, opportunistic, nailed_up, aws_iot and others. They do clear
ws_binary, http_fail_redirect, mqtt_retain, mqtt_clean_start, mqtt_will_retain and
mqtt_birth_retain (5.0.0).`,
	LWSOverlay: true,
	Base:       overlayBase,
	Bad:        `{ "s": [ { "api": { "tls": false } } ] }`,
	Good:       `{ "s": [ { "api": { "tls": true } } ] }`,
}
