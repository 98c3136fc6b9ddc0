package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var rideshareLoop = &lint.Rule{
	Name:     "rideshare-loop",
	Severity: schema.Error,
	Summary:  "a streamtype shares its own request",
	Why: `A streamtype with rideshare sends its messages as parts of the open request of the
streamtype that it names. The last one of such a chain ends the request, so a chain that
returns to its start never ends.`,
	LWS: `lws sends the parts again and again, and the request never ends (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "upload": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "POST",
                       "http_url": "upload", "http_multipart_name": "data", "http_multipart_filename": "a.bin",
                       "http_mime_content_type": "application/octet-stream",
                       "opportunistic": true, "retry": "default", "rideshare": "upload" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "upload": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "POST",
                       "http_url": "upload", "http_multipart_name": "data", "http_multipart_filename": "a.bin",
                       "http_mime_content_type": "application/octet-stream",
                       "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		next := map[*schema.Definition]*schema.Reference{}
		for _, r := range p.Policy.References {
			if r.Key.Name == "rideshare" {
				next[r.From] = r // the last of two counts
			}
		}
		for _, loop := range loops(streams(p), next) {
			first := loop[0]
			if len(loop) == 1 {
				p.Reportf(next[first].Span, "%s shares its own request, which never ends", first)
				continue
			}
			d := p.Reportf(next[first].Span, "%s shares the request of %s, and so on back to itself: it never ends",
				first, next[first].Target)
			for _, s := range loop[1:] {
				d.Related = append(d.Related, schema.Related{Span: next[s].Span, Message: s.String() + " goes on from here"})
			}
		}
	},
}

// loops returns the cycles of references between definitions. Each begins with the
// definition that comes first.
func loops(defs []*schema.Definition, next map[*schema.Definition]*schema.Reference) [][]*schema.Definition {
	var found [][]*schema.Definition
	walk := map[*schema.Definition]int{} // number of the walk that visited a definition, from 1
	for i, start := range defs {
		d := start
		for d != nil && walk[d] == 0 {
			walk[d] = i + 1
			d = target(next[d])
		}
		if d == nil || walk[d] != i+1 {
			continue
		}
		loop, first := []*schema.Definition{d}, 0
		for n := target(next[d]); n != d; n = target(next[n]) {
			if n.NameSpan.Start < loop[first].NameSpan.Start {
				first = len(loop)
			}
			loop = append(loop, n)
		}
		found = append(found, append(loop[first:len(loop):len(loop)], loop[:first]...))
	}
	return found
}

func target(r *schema.Reference) *schema.Definition {
	if r == nil {
		return nil
	}
	return r.Target
}
