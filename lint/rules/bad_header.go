package rules

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var badHeader = &lint.Rule{
	Name:     "bad-header",
	Severity: schema.Error,
	Fixes:    lint.UnsafeFix,
	Summary:  "the name of a header is invalid, or lws sends this header itself",
	Why: `The name of a header is a token of RFC 9110 section 5.6.2: letters, digits and some signs,
no blanks. Its value is the metadata, or the credential, that the program sets. Headers that frame the
message or the connection are written by lws. Two keys cannot send the same header.`,
	LWS: `lws sends the text unchecked, and servers refuse or misread the request (4.1.6 to
5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "metadata": [ { "id": "X Device Id:" } ] } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "metadata": [ { "id": "x-device-id:" } ] } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			protocol := d.Protocol()
			if !http(protocol) && protocol != "ws" {
				continue
			}
			list(d, "metadata", func(m *schema.Member) {
				if m.Value.Kind == schema.String {
					badName(p, &m.Value, "")
				}
			})
			var names map[string]*schema.Setting
			for _, key := range []string{"http_auth_header", "http_dsn_header", "http_fwv_header", "http_devtype_header"} {
				s := d.Get(key)
				if s == nil || s.Member.Value.Kind != schema.String || s.Member.Value.Text() == "" {
					continue
				}
				v := &s.Member.Value
				name := lowerASCII(strings.TrimSuffix(v.Text(), ":"))
				switch other := names[name]; {
				case badName(p, v, key):
				case slices.Contains(framing, name):
					p.Reportf(v.Span, "%s cannot be %s, which frames the message or the connection", key, schema.QuoteName(name))
				case multipart(d) && name == "content-type":
					p.Reportf(v.Span, "%s cannot be %s, which says that the request is multipart", key, schema.QuoteName(name))
				case protocol == "ws" && strings.HasPrefix(name, "sec-websocket-"):
					p.Reportf(v.Span, "%s cannot be %s, which is part of the handshake of ws", key, schema.QuoteName(name))
				case other != nil:
					g := p.Reportf(v.Span, "%s is the header of %s too", schema.QuoteName(v.Text()), other.Member.Key)
					g.Related = []schema.Related{{Span: other.Member.Value.Span, Message: "the other one"}}
				default:
					if names == nil {
						names = map[string]*schema.Setting{}
					}
					names[name] = s
				}
			}
		}
	},
}

// badName reports a value that is not the name of a header, with a colon at its
// end or without.
func badName(p *lint.Pass, v *schema.Value, key string) bool {
	text := v.Text()
	name := strings.TrimSuffix(text, ":")
	if text == "" || len(text) > schema.MaxString || policy.IsToken(name) {
		return false
	}
	if prefix, rest, found := strings.Cut(text, ":"); found && rest != "" && policy.IsToken(prefix) {
		if key == "http_auth_header" && strings.TrimSpace(rest) != "" {
			return true // an embedded-secret
		}
		g := p.Reportf(inside(v, len(prefix)+1, len(text)), "want only the name of a header and its colon: the program sets the value")
		if strings.TrimSpace(rest) == "" {
			suggest(g, v, prefix+":")
		}
		return true
	}
	switch i := strings.IndexFunc(name, func(r rune) bool { return !policy.IsToken(string(r)) }); {
	case name == "":
		p.Reportf(v.Span, "the name of a header is missing before the colon")
	default:
		g := p.Reportf(v.Span, "the name of a header cannot hold %q", []rune(name[i:])[0])
		if trimmed := strings.TrimSpace(name); policy.IsToken(trimmed) {
			suggest(g, v, trimmed+":")
		}
	}
	return true
}

// framing are the headers that no metadata or credential can set.
var framing = []string{"connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

// multipart reports whether a request of the streamtype is multipart.
func multipart(d *schema.Definition) bool {
	return d.Get("http_multipart_name") != nil || d.Get("http_multipart_filename") != nil || d.Get("http_mime_content_type") != nil
}
