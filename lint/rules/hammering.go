package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var hammering = &lint.Rule{
	Name:     "hammering",
	Severity: schema.Info,
	Summary:  "devices that cannot connect retry every few seconds forever",
	Why: `While a server is down, every device retries after the last wait of its backoff scheme.
If that is short and the scheme never gives up, many devices keep the server from recovering. A
last wait of some minutes costs little: after an outage a device is back within that time.`,
	LWS: `With conceal 65535 lws repeats the last wait forever, lengthened by up to jitterpc per
cent. 4.4 to 5.0 keep only the first wait if they read the policy themselves (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ], "conceal": 65535, "jitterpc": 20 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "", "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 60000 ], "conceal": 65535, "jitterpc": 20 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "", "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		used := map[*schema.Definition]bool{}
		misspelt := false // then a reference may be intended for any scheme
		for _, r := range p.Policy.References {
			if d := r.From; r.Key.Name == "retry" && !d.Bool("server") && !d.Bool("local_sink") && beyondLoopback(d) {
				used[intended(r)] = true
				misspelt = misspelt || intended(r) == nil
			}
		}
		for _, d := range p.Policy.Section(schema.Retry) {
			if n, ok := number(d, "conceal"); !ok || n != 65535 || !used[d] && !misspelt {
				continue
			}
			wait, at := uint64(3000), d.NameSpan // of a scheme without waits
			if s := d.Get("backoff"); s != nil {
				last := &s.Member.Value
				if list := last.Elems(); len(list) > 0 {
					last = &list[len(list)-1].Value
				}
				if n, ok := numeral(last); ok {
					wait, at = n, last.Span
				}
			}
			if wait >= shortWait {
				continue
			}
			jitter, _ := number(d, "jitterpc")
			if jitter == 0 {
				jitter = 30
			}
			mean := max(1, wait+wait*min(jitter, 255)/200) // milliseconds
			p.Reportf(at, "%s tries again every %d ms without end: a million devices try %d times a second", d, mean, 1e9/mean)
		}
	},
}

// shortWait is the last wait, in milliseconds, below which devices hammer.
const shortWait = 10_000
