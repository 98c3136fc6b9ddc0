package rules

import (
	"fmt"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var certTooBig = &lint.Rule{
	Name:       "cert-too-big",
	ParserOnly: true,
	Severity:   schema.Error,
	Summary:    "a certificate is larger than lws accepts",
	Why: `A certificate has at most 3018 bytes, which are 4024 characters of base64. Use a smaller
key, or the certificate of the issuer, which is usually smaller.`,
	LWS: `lws refuses the policy with "cert too big". If the context is created with it, 4.2.2 to
5.0.0 crash (4.1.6 to 5.0.0).`,
	Bad:  `{ "certs": [ { "big": "` + strings.Repeat("MIIM", 1007) + `" } ] }`,
	Good: `{ "certs": [ { "small": "` + exampleRoot + `" } ] }`,
	Firm: true,
	Check: func(p *lint.Pass) {
		for _, d := range p.Policy.Section(schema.Certs) {
			if d.Value.Kind == schema.String && len(d.Value.Raw()) > 4000 && tooBig(d.Value.Text()) {
				n := len(decodeCert(d.Value.Text()))
				g := p.Reportf(d.NameSpan, "%s is too big: lws takes 3018 bytes of DER, and it has %d", d, n)
				if n <= 3018 {
					g.Message = fmt.Sprintf("the base64 of %s is too long for its %d bytes of DER: write it without white space", d, n)
				}
			}
		}
	},
}

// tooBig reports whether lws refuses a certificate for its size. It gets the
// base64 in pieces of 254 bytes, and requires that what it has decoded so far and
// the next piece together are less than 3072 bytes
// (lib/secure-streams/policy-json.c, 4.1.6 to 5.0.0).
func tooBig(text string) bool {
	const piece, limit = schema.MaxString + 1, 3072
	digits := 0
	for i := 0; i < len(text); i += piece {
		next := text[i:min(i+piece, len(text))]
		if digits/4*3+len(next) >= limit {
			return true
		}
		for _, c := range []byte(next) {
			if c != '\n' && c != '\r' && c != ' ' && c != '=' {
				digits++
			}
		}
	}
	return false
}
