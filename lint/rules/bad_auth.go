package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var badAuth = &lint.Rule{
	Name:     "bad-auth",
	Severity: schema.Error,
	Fixes:    lint.UnsafeFix,
	Summary:  "the requests of a streamtype are not authenticated as use_auth says",
	Why: `An auth scheme of the type "sigv4" signs the requests of h1, h2 and h3: aws_region and
aws_service name the metadata that it needs, and it sends the authorization header itself. Any other
type sends a token in the header of http_auth_header. Nothing authenticates mqtt and raw streams this way.`,
	LWS: `lws supports only the type "sigv4", in small letters, over h1, h2 and h3. Without
aws_region or aws_service it compares metadata with NULL. It sends the header of http_auth_header
as well as its own (4.2 to 5.0, ss-h1.c and sign.c).`,
	Bad: `{ "auth": [ { "name": "aws", "type": "sigv4", "blob": 0 } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "use_auth": "aws" } } ] }`,
	Good: `{ "auth": [ { "name": "aws", "type": "sigv4", "blob": 0 } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "metadata": [ { "region": "" }, { "service": "" } ],
                  "use_auth": "aws", "aws_region": "region", "aws_service": "service" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, a := range p.Policy.Section(schema.Auth) {
			if s := a.Get("type"); s != nil && s.Member.Value.Kind == schema.String {
				if text := s.Member.Value.Text(); text != sigV4 && strings.ToLower(strings.Map(letter, text)) == sigV4 {
					g := p.Reportf(s.Member.Value.Span, "lws does not act on the type %s: write %s", schema.QuoteName(text), schema.Quote(sigV4))
					g.Fixes = []schema.Fix{{Message: "write " + sigV4, Edits: []schema.Edit{{Span: s.Member.Value.Span, NewText: schema.Quote(sigV4)}}}}
				}
			}
		}
		for _, r := range p.Policy.References {
			d, a := r.From, intended(r)
			if r.Key.Name != "use_auth" || a == nil || d.Get("use_auth").Member.Value.Span != r.Span || unclear(d) || d.Bool("server") {
				continue
			}
			signed := a.Text("type") == sigV4
			switch protocol := d.Protocol(); {
			case protocol == "mqtt" || protocol == "raw":
				p.Reportf(r.Span, "use_auth has no effect on %s: %s is not authenticated", protocol, d)
			case protocol == "ws" && signed:
				p.Reportf(r.Span, "the handshake of ws is not signed: %s is not authenticated", d)
			case protocol == "", d.Bool("local_sink"):
			case signed:
				for _, key := range []string{"aws_region", "aws_service"} {
					if lacks(d, key) {
						p.Reportf(r.Span, "%s has no %s: it names the metadata item that %s needs", d, key, a)
					}
				}
				if h := d.Get("http_auth_header"); h != nil && lowerASCII(strings.TrimSuffix(h.Member.Value.Text(), ":")) == "authorization" {
					g := p.Reportf(h.Member.Value.Span, "%s has two authorization headers: this one, and that of the signature", d)
					g.Related = []schema.Related{{Span: r.Span, Message: "the signature"}}
				}
			case lacks(d, "http_auth_header") || d.Get("http_auth_header") != nil && d.Text("http_auth_header") == "":
				p.Reportf(r.Span, "%s has no http_auth_header, in which its token is sent", d)
			}
		}
	},
}

// sigV4 is the type of auth scheme that signs requests for AWS.
const sigV4 = "sigv4"

// letter drops all characters except letters and digits; it is for strings.Map.
func letter(r rune) rune {
	if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
		return r
	}
	return -1
}
