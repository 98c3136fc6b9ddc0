package rules

import (
	"errors"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var badProxy = &lint.Rule{
	Name:     "bad-proxy",
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "via-socks5 is not the address of a proxy",
	Why: `Write host:port, or user:password@host:port. No client stream connects without a working
proxy.`,
	LWS: `lws uses the text before the first ":" as the host: the scheme of a URL, or "[" of
[::1]:1080. A user name or password may have 95 bytes. A port is read up to the first character that is not a digit,
and not checked (4.1.6 to 5.0.0, lws_set_socks). lws ignores the via-socks5 of a streamtype;
sspolicy run uses it.`,
	Bad: `{ "via-socks5": "socks5://proxy.example.com:1080",
  "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good: `{ "via-socks5": "proxy.example.com:1080",
  "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, s := range p.Policy.Settings {
			if s.Key != nil && s.Key.Name == "via-socks5" {
				checkProxy(p, &s.Member.Value, true)
			}
		}
		for _, d := range streams(p) {
			for _, s := range d.Settings {
				if s.Key != nil && s.Key.Name == "via-socks5" {
					checkProxy(p, &s.Member.Value, false)
				}
			}
		}
	},
}

// checkProxy reports an unusable proxy. For the policy's proxy, that includes one that only
// lws cannot use.
func checkProxy(p *lint.Pass, v *schema.Value, lws bool) {
	text := v.Text()
	if v.Kind != schema.String || text == "" || len(text) > schema.MaxString {
		return
	}
	if _, port, ok := strings.Cut(text[strings.LastIndexByte(text, '@')+1:], ":"); !ok || port == "" {
		return // a bad-value
	}
	proxy, err := policy.ParseProxy(text)
	var wrong *policy.EndpointError
	switch {
	case errors.As(err, &wrong):
		g := p.Reportf(v.Span, "this is not the address of a proxy: %s", wrong.Why)
		if _, address, found := strings.Cut(text, "://"); found {
			if _, err := policy.ParseProxy(address); err == nil {
				write(g, v, address)
				g.Fixes[0].Message = "remove the scheme" // the text may contain a password
			}
		}
	case lws && strings.HasPrefix(proxy.Address, "["):
		p.Reportf(v.Span, "lws does not read the IPv6 address of a proxy: write a host name or an IPv4 address")
	case lws && (len(proxy.User) > 95 || len(proxy.Password) > 95):
		p.Reportf(v.Span, "lws uses no user name or password of more than 95 bytes")
	}
}
