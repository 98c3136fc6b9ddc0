package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var policy2cLosses = &lint.Rule{
	Name:     "policy2c-losses",
	Group:    "policy2c",
	Severity: schema.Info,
	Summary:  "lws's policy2c omits this, or fails on it",
	Why: `policy2c is lws's own compiler for C tables. sspolicy compile --lang c writes the whole
policy. The tables of lws have no place for via-socks5 at the top: it becomes a macro to pass to
lws_set_socks().`,
	LWS: `policy2c stops at the protocol raw, and at the certificate of a server. It omits the
sizes of buffers, metrics, options, via-socks5 at the top, a priority without a flag, and the
headers of blobs without http_auth_header; with http_auth_header, it closes the gaps between these
headers, so that they carry other blobs. A missing type or streamtype of an auth scheme becomes
the text "(null)". Without streamtypes its output does not compile (policy2c of 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "proxy_buflen": 65536 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		lost := func(at schema.Span, what, why string) {
			p.Reportf(at, "policy2c leaves %s out%s; compile --lang c does not", what, why)
		}
		streams := streams(p)
		if root := &p.Policy.Document.Root; root.Kind == schema.ObjectKind && len(streams) == 0 {
			at := root.Span
			at.End = min(at.End, at.Start+1)
			p.Reportf(at, "there is no streamtype: the output of policy2c does not compile")
		}
		for _, s := range p.Policy.Settings {
			if s.Member.Key == "via-socks5" {
				p.Reportf(s.Member.Name.Span, "policy2c leaves via-socks5 out, which has no place in C tables; compile --lang c makes a macro of it, to hand to lws_set_socks()")
			}
		}
		for _, d := range p.Policy.Section(schema.Metrics) {
			p.Reportf(d.NameSpan, "policy2c leaves metrics out; compile --lang c does not")
			break // one of them is enough
		}
		for _, d := range p.Policy.Section(schema.Auth) {
			for _, key := range []string{"type", "streamtype"} {
				if d.Get(key) == nil {
					p.Reportf(d.NameSpan, "without %s, policy2c writes the text \"(null)\" for it; compile --lang c does not", key)
				}
			}
		}
		for _, d := range streams {
			var blobs [4]*schema.Setting
			flags := uint32(0)
			for _, s := range d.Settings {
				flags |= flagOf(s)
				switch {
				case s.Key == nil:
				case s.Key.Name == "protocol" && s.Member.Value.Text() == "raw":
					p.Reportf(s.Member.Value.Span, "policy2c stops at the protocol raw; compile --lang c does not")
				case s.Key.Ref == schema.Certs:
					p.Reportf(s.Member.Name.Span, "policy2c uses %s as a trust store, and crashes; compile --lang c does not", s.Key.Name)
				case s.Key.Name == "options":
					p.Reportf(s.Member.Name.Span, "policy2c leaves options out; compile --lang c does not")
				case strings.Contains(s.Key.Name, "_buflen"):
					lost(s.Member.Name.Span, s.Key.Name, "")
				case strings.HasPrefix(s.Key.Member, "u.http.blob_header["):
					if i := s.Key.Member[len("u.http.blob_header[")] - '0'; i < 4 {
						blobs[i] = s
					}
				}
			}
			for i, s := range blobs {
				switch {
				case s == nil:
				case blobs[0] == nil:
					lost(s.Member.Name.Span, s.Key.Name, ", as there is no http_auth_header")
				case blobs[max(i-1, 0)] == nil:
					p.Reportf(s.Member.Name.Span, "policy2c moves %s to another blob, since a header before it is missing; compile --lang c does not", s.Key.Name)
				}
			}
			if s := d.Get("attr_priority"); s != nil && flags == 0 {
				lost(s.Member.Name.Span, "attr_priority", ", as there is no flag")
			}
		}
	},
}
