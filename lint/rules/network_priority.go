package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var networkPriority = &lint.Rule{
	Name:     "network-priority",
	Severity: schema.Warning,
	Summary:  "attr_priority 7 requires privilege",
	Why:      `Priority 7 is for network control. The highest priority for other traffic is 6.`,
	LWS: `A process without the privilege (CAP_NET_ADMIN on Linux) logs "unable to set socket pri 7"
and continues without a priority (4.3.10 and 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "attr_priority": 7 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "attr_priority": 6 } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			if n, ok := number(d, "attr_priority"); ok && n == 7 {
				p.Reportf(at(d, "attr_priority"), "without privilege, lws sets no priority at all for 7: the highest that anyone may use is 6")
			}
		}
	},
}
