package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var multipartName = &lint.Rule{
	Name:     "multipart-name",
	Severity: schema.Error,
	Summary:  "a multipart request has a part without a name, or a message that is not a part",
	Why: `A part of a form needs a name (RFC 7578 section 4.2): http_multipart_name. Without it,
http_multipart_filename and http_mime_content_type make the request multipart, but the message is
not a part of it. The streamtypes that share a request (rideshare) must all be parts, or none.`,
	LWS: `The request claims to be multipart, but the message has no delimiter and headers before
it, so a server finds no part, or a part with two messages (measured on 5.0.0; 4.1.6 to 4.5.8 have
the same code).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "upload": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "POST",
                       "http_url": "upload", "http_multipart_filename": "a.bin",
                       "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "upload": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "POST",
                       "http_url": "upload", "http_multipart_name": "data", "http_multipart_filename": "a.bin",
                       "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if d.Get("http_multipart_name") != nil {
				continue
			}
			for _, key := range []string{"http_multipart_filename", "http_mime_content_type"} {
				if s := d.Get(key); s != nil {
					p.Reportf(s.Member.Name.Span, "%s of %s makes the request multipart, but without http_multipart_name there is no part in it", key, d)
					break
				}
			}
		}
		for _, r := range p.Policy.References {
			if r.Key.Name != "rideshare" || r.Target == nil {
				continue
			}
			part, other := r.From.Get("http_multipart_name"), r.Target.Get("http_multipart_name")
			if (part == nil) == (other == nil) {
				continue
			}
			is, not := r.From, r.Target
			if part == nil {
				is, not = not, is
			}
			p.Reportf(r.Span, "%s is a part of a multipart request, and %s, which shares it, is none: give it http_multipart_name", is, not)
		}
	},
}
