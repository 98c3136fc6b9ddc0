package rules

import (
	"mime"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var badContentType = &lint.Rule{
	Name:     "bad-content-type",
	Severity: schema.Error,
	Summary:  "the headers of a part of a multipart request are invalid",
	Why: `http_mime_content_type is a media type, such as "image/png". The names of a part and of its
file are text on one line. A request is either multipart or, with http_www_form_urlencoded, the other
form.`,
	LWS: `lws writes the text unchanged into the headers of the part. With both forms it sends two
content-type headers (4.1.6 to 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "POST", "http_url": "",
                  "http_multipart_name": "file", "http_mime_content_type": "png image" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "POST", "http_url": "",
                  "http_multipart_name": "file", "http_mime_content_type": "image/png" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if !http(d.Protocol()) {
				continue
			}
			for _, key := range []string{"http_multipart_name", "http_multipart_filename", "http_mime_content_type"} {
				s := d.Get(key)
				if s == nil || s.Member.Value.Kind != schema.String {
					continue
				}
				v := &s.Member.Value
				text := v.Text()
				if i := strings.IndexFunc(text, func(r rune) bool { return policy.IsControl(r) || r == '\t' }); i >= 0 {
					p.Reportf(inside(v, i, i+1), "%s cannot hold the control character %q", key, text[i])
				} else if key == "http_mime_content_type" && text != "" {
					if _, _, err := mime.ParseMediaType(text); err != nil || !strings.Contains(text, "/") {
						p.Reportf(v.Span, "%s is not a media type, such as \"application/json\"", schema.QuoteName(text))
					}
				}
			}
			if s := d.Get("http_www_form_urlencoded"); multipart(d) && s != nil && d.Bool("http_www_form_urlencoded") {
				p.Reportf(s.Member.Name.Span, "%s has keys of a multipart request as well: remove one of the two forms", d)
			}
		}
	},
}
