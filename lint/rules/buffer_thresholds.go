package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var bufferThresholds = &lint.Rule{
	Name:     "buffer-thresholds",
	Severity: schema.Warning,
	Summary:  "the thresholds of flow control are in the wrong order, or above the size of the buffer",
	Why: `Receiving stops when more than ..._rxflow_on_above bytes are buffered, and continues when
fewer than ..._rxflow_off_below are. The second is the smaller one, and both are below the
size of the buffer.`,
	LWS: `lws stores the numbers unchecked (4.2.2 to 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "proxy_buflen": 65536, "proxy_buflen_rxflow_on_above": 8192, "proxy_buflen_rxflow_off_below": 32768 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "proxy_buflen": 65536, "proxy_buflen_rxflow_on_above": 32768, "proxy_buflen_rxflow_off_below": 8192 } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			for _, name := range []string{"proxy_buflen", "client_buflen"} {
				size, sized := number(d, name)
				above, on := number(d, name+"_rxflow_on_above")
				below, off := number(d, name+"_rxflow_off_below")
				sized = sized && size != 0
				switch {
				case on && off && below >= above:
					g := p.Reportf(at(d, name+"_rxflow_off_below"), "receiving goes on below %d bytes, and stops above %d: the first must be less", below, above)
					g.Related = []schema.Related{{Span: at(d, name+"_rxflow_on_above"), Message: "stops above this"}}
				case on && sized && above >= size:
					g := p.Reportf(at(d, name+"_rxflow_on_above"), "the buffer has %d bytes, so that it is never filled above %d", size, above)
					g.Related = []schema.Related{{Span: at(d, name), Message: "the size of the buffer"}}
				}
			}
		}
	},
}
