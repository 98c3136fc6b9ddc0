package rules

import (
	"encoding/base64"
	"regexp"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var certEncoding = &lint.Rule{
	Name:     "cert-encoding",
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "a certificate is not base64",
	Why: `A certificate is the base64 of its DER: the text between the first and the last line of a
PEM file. Padding is optional, and the URL-safe alphabet is accepted.`,
	LWS: `4.1 to 4.3 skip characters that are not base64. 4.4 to 5.0 log a line and use 3072 bytes of
memory as the certificate. White space is skipped, except that 4.4 and 4.5 refuse spaces,
and 4.1.6 to 4.3.10 append a byte to the certificate if white space follows the base64.`,
	Bad:  `{ "certs": [ { "ca": "MIIFazCCA1OgAw...AnX5iItreGCc=" } ] }`,
	Good: `{ "certs": [ { "ca": "MIIFazCCA1OgAwIBAgIRAIIQz7DSQONZRGPgu2OCiwAw" } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range p.Policy.Section(schema.Certs) {
			if d.Value.Kind != schema.String {
				continue
			}
			if unfilled := schema.Placeholder(d.Value.Text()); unfilled != "" {
				p.Reportf(d.Value.Span, "%s: %s is a placeholder: check the policy in which it is filled in", d, schema.QuoteName(unfilled))
			} else if der := pemText(d.Value.Text()); der != "" {
				g := p.Reportf(d.Value.Span, "%s is PEM: remove its first and last line, and the line breaks", d)
				if !strings.Contains(d.Value.Text(), "PRIVATE KEY") { // output must not repeat a private key
					g.Fixes = []schema.Fix{{
						Message: "write the base64 alone",
						Edits:   []schema.Edit{{Span: d.Value.Span, NewText: schema.Quote(der)}},
						Safe:    true,
					}}
				}
			} else if _, err := schema.DecodeCert(d.Value.Text()); err != nil {
				p.Reportf(d.Value.Span, "%s: %v", d, err)
			} else if text := d.Value.Text(); strings.ContainsAny(text, " \n\r") {
				blanks(p, d, text)
			}
		}
	},
}

// blanks reports the white space in base64 that some versions of lws mistake for
// something else.
func blanks(p *lint.Pass, d *schema.Definition, text string) {
	var g *schema.Diagnostic
	garbage := p.Versions(func(v schema.Version) bool { return since(4, 4)(v) && before(5, 0)(v) })
	longer := p.Versions(before(4, 4))
	switch last := text[len(text)-1]; {
	case garbage != "" && strings.Contains(text, " "):
		g = p.Reportf(d.Value.Span, "%s: lws %s does not read base64 with spaces in it", d, garbage)
	case longer != "" && strings.IndexByte(" \n\r", last) >= 0:
		g = p.Reportf(d.Value.Span, "%s: lws %s appends a byte to it for the white space at the end", d, longer)
		g.Severity = schema.Warning
	default:
		return
	}
	if der := decodeCert(text); !privateKey(der) { // which no output should repeat
		write(g, d.Value, base64.StdEncoding.EncodeToString(der))
	}
}

// pemText returns the base64 of a PEM certificate or key, or "". Its lines may
// have been joined.
func pemText(text string) string {
	at := pemForm.FindStringSubmatch(text)
	if at == nil {
		return ""
	}
	der, err := schema.DecodeCert(at[1])
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(der)
}

var pemForm = regexp.MustCompile(`^\s*-----BEGIN [A-Z0-9 ]+-----([A-Za-z0-9+/=\s]+)-----END [A-Z0-9 ]+-----\s*$`)
