package rules

import (
	"errors"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var badEndpoint = &lint.Rule{
	Name:     "bad-endpoint",
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "the endpoint is invalid",
	Why: `An endpoint is a host name or address. A path belongs in http_url, a port in port.
sspolicy run refuses such a streamtype.`,
	LWS: `lws uses any text without a ":" as a host name, and the lookup fails each time (4.1.6 to
5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com/api", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "api" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			s := d.Get("endpoint")
			if s == nil || s.Member.Value.Kind != schema.String && s.Member.Value.Kind != schema.Number {
				continue
			}
			v := &s.Member.Value
			if v.Text() == "" || len(v.Text()) > schema.MaxString || strings.Contains(v.Text(), "\x00") {
				continue // a bad-length or a nul-character
			}
			why := wrongEndpoint(d, v.Text())
			if why == "" {
				continue
			}
			if unfilled := schema.Placeholder(v.Text()); unfilled != "" {
				p.Reportf(v.Span, "%s is a placeholder: check the policy in which it is filled in", schema.QuoteName(unfilled))
				continue
			}
			g := p.Reportf(v.Span, "the endpoint is invalid: %s", why)
			text := v.Text()
			switch host, _, found := strings.Cut(text, "/"); {
			case strings.Contains(text, "://") || strings.HasPrefix(text, "["):
			case strings.HasPrefix(text, "http") && strings.Contains(text, "//"):
				g.Message += `: "://" follows the scheme of a URL`
			case found && host != "" && wrongEndpoint(d, host) == "":
				g.Message += "; the path belongs in http_url"
			case strings.TrimSpace(text) != text && wrongEndpoint(d, strings.TrimSpace(text)) == "":
				write(g, v, strings.TrimSpace(text))
				g.Message += "; remove the white space"
			}
		}
	},
}

// wrongEndpoint returns why no connection can be made to the endpoint of a
// client, or "". Other rules report a missing port, an undeclared ${name}, and a
// scheme that contradicts tls.
func wrongEndpoint(d *schema.Definition, text string) string {
	st := &policy.StreamType{Endpoint: text, Port: 1, TLS: true}
	if strings.Contains(text, "${") {
		for _, m := range metadata(d) {
			st.Metadata = append(st.Metadata, policy.Metadata{Name: m.Key})
		}
	}
	var wrong *policy.EndpointError
	if _, err := policy.NewEndpoint(st, make([]policy.Use, len(st.Metadata))); errors.As(err, &wrong) {
		return wrong.Why
	}
	found := slices.DeleteFunc(symbols(text), func(s symbol) bool { return s.name == "" })
	if len(found) == 0 || len(found) == 1 && found[0].end-found[0].start == len(text) {
		return ""
	}
	// The program inserts unknown text: check with a sample of the right kind.
	sample, last := "", 0
	for _, s := range found {
		before := text[last:s.start]
		sample += before
		switch {
		case strings.HasSuffix(before, "["):
			sample += "::1"
		case strings.HasSuffix(before, ":"):
			sample += "1"
		default:
			sample += "x"
		}
		last = s.end
	}
	if _, err := policy.ParseTarget(sample+text[last:], st); errors.As(err, &wrong) {
		return wrong.Why
	}
	return ""
}
