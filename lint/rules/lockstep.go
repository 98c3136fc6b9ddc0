package rules

import (
	"math"
	"time"

	"github.com/secure-streams/sspolicy/internal/storm"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var lockstep = &lint.Rule{
	Name:     "lockstep",
	Severity: schema.Warning,
	Summary:  "devices that lose their server at the same time retry at the same times",
	Why: `If jitterpc is small, all devices wait for nearly the same time after an outage begins,
and retry together: the server gets the attempts of most devices within a second, and none in
between. The number comes from a simulation of a fleet, as with "sspolicy storm". A jitterpc of 50
to 100 spreads the devices after some retries; it costs nothing.`,
	LWS: `lws adds a random part of up to jitterpc per cent to each wait. The first attempt after a
lost connection comes after the first wait (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 30000 ], "conceal": 65535, "jitterpc": 1 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "", "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 30000 ], "conceal": 65535, "jitterpc": 50 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "", "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		used := map[*schema.Definition]bool{}
		for _, r := range p.Policy.References {
			if d := r.From; r.Key.Name == "retry" && !d.Bool("server") && !d.Bool("local_sink") && beyondLoopback(d) {
				used[intended(r)] = true
			}
		}
		cut := p.Versions(func(v schema.Version) bool { return !v.KeepsBackoff() })
		simulations := 0
		burst := func(r *policy.Retry) (storm.Burst, time.Duration) {
			o, ok := storm.Lockstep(r)
			if !ok || simulations == mostSimulations {
				return storm.Burst{}, 0
			}
			simulations++
			return o.Burst(), o.Scenario.Outage
		}
		for _, d := range p.Policy.Section(schema.Retry) {
			r, ok := backoffScheme(d)
			if !ok || !used[d] {
				continue
			}
			b, outage := burst(r)
			by := ""
			if b.Ratio == 0 && cut != "" && len(r.Backoff) > 1 {
				r.Backoff = r.Backoff[:1]
				b, outage = burst(r)
				by = " with lws " + cut + ", which keeps only the first wait"
			}
			if b.Ratio == 0 {
				continue
			}
			span := d.NameSpan
			if s := d.Get("jitterpc"); s != nil {
				span = s.Member.Value.Span
			}
			p.Reportf(span, "%s keeps devices in step%s: after %d h without a server, the busiest second has %.1f times the mean of their attempts; more jitterpc would spread them",
				d, by, int(outage.Round(time.Hour)/time.Hour), b.Ratio)
		}
	},
}

// mostSimulations limits the work for a policy: a simulation takes some milliseconds.
const mostSimulations = 10

// backoffScheme returns a backoff scheme as lws reads it. It is not ok if a value is wrong, which
// other rules report.
func backoffScheme(d *schema.Definition) (r *policy.Retry, ok bool) {
	conceal, _ := number(d, "conceal")
	jitter, _ := number(d, "jitterpc")
	if conceal > math.MaxUint16 || jitter > math.MaxUint8 {
		return nil, false
	}
	r = &policy.Retry{Conceal: uint16(conceal), JitterPercent: uint8(jitter)}
	s := d.Get("backoff")
	if s == nil {
		return r, true
	}
	values := s.Member.Value.Elems()
	if values == nil {
		values = []*schema.Element{{Value: s.Member.Value}} // lws reads a number too
	}
	for _, e := range values {
		n, ok := numeral(&e.Value)
		if !ok || n > math.MaxUint32 {
			return nil, false
		}
		r.Backoff = append(r.Backoff, time.Duration(n)*time.Millisecond)
	}
	return r, true
}
