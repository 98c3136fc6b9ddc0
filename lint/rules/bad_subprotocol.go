package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var badSubprotocol = &lint.Rule{
	Name:     "bad-subprotocol",
	Severity: schema.Error,
	Summary:  "ws_subprotocol is not the name of a subprotocol",
	Why: `A subprotocol is a token of RFC 9110, without blanks (RFC 6455 section 4.1). Several are
separated by commas.`,
	LWS:  `lws sends the text unchecked, and servers refuse the handshake (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "ws", "http_url": "", "ws_subprotocol": "my chat" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "ws", "http_url": "", "ws_subprotocol": "my-chat" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			s := d.Get("ws_subprotocol")
			if d.Protocol() != "ws" || s == nil || s.Member.Value.Kind != schema.String {
				continue
			}
			v := &s.Member.Value
			text := v.Text()
			if text == "" || len(text) > schema.MaxString {
				continue
			}
			for name := range strings.SplitSeq(text, ",") {
				if name = strings.Trim(name, " \t"); !policy.IsToken(name) {
					p.Reportf(v.Span, "%s is not the name of a subprotocol, nor several with commas", schema.QuoteName(text))
					break
				}
			}
		}
	},
}
