package rules

import (
	"encoding/base64"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var embeddedSecret = &lint.Rule{
	Name:     "embedded-secret",
	Severity: schema.Warning,
	Summary:  "the policy contains a password, token or key",
	Why: `A policy is copied, committed and shipped with everything in it. Let the program provide
credentials: as the blob that http_auth_header sends, as blobs of an auth scheme or of MQTT,
or as metadata that is sent as a header. Replace a credential that has been in a policy.`,
	LWS: `lws sends http_auth_preamble followed by the token of the program. It does not support a
user and password in an endpoint: the connection fails (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "http_auth_header": "authorization:",
                  "http_auth_preamble": "Basic ZXhhbXBsZTpub3QgYSBzZWNyZXQ=",
                  "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "http_auth_header": "authorization:",
                  "http_auth_preamble": "Basic ",
                  "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		text := p.Policy.Document.Source.Text
		walk := false // most policies need no search
		for _, t := range tokens {
			walk = walk || strings.Contains(text, t.mark)
		}
		secrets(p, &p.Policy.Document.Root, "", walk)
	},
}

// tokens are secrets with a recognizable form. A text without the mark of a token does not
// contain it, which avoids most uses of the regular expressions.
var tokens = []struct {
	what, mark string
	form       *regexp.Regexp
}{
	{"a private key", "PRIVATE KEY-----", regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----[A-Za-z0-9+/=\s\\]*(-----END ([A-Z0-9]+ )*PRIVATE KEY-----)?`)},
	{"an AWS access key id", "AKIA", regexp.MustCompile(`\bAKIA[0-9A-Z]{16}\b`)},
	{"a temporary AWS access key id", "ASIA", regexp.MustCompile(`\bASIA[0-9A-Z]{16}\b`)},
	{"a GitHub token", "ghp_", github},
	{"a GitHub token", "gho_", github},
	{"a GitHub token", "ghu_", github},
	{"a GitHub token", "ghs_", github},
	{"a GitHub token", "ghr_", github},
	{"a GitHub token", "github_pat_", regexp.MustCompile(`\bgithub_pat_[A-Za-z0-9_]{22,}\b`)},
	{"a GitLab token", "glpat-", regexp.MustCompile(`\bglpat-[A-Za-z0-9_-]{20,}`)},
	{"a Slack token", "xox", regexp.MustCompile(`\bxox[abeoprs]-[A-Za-z0-9-]{10,}`)},
	{"a Google API key", "AIza", regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{35}\b`)},
	{"a Stripe key", "k_live_", regexp.MustCompile(`\b[sr]k_live_[A-Za-z0-9]{16,}\b`)},
	{"a JSON web token", "eyJ", regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}`)},
}

var (
	github   = regexp.MustCompile(`\bgh[pousr]_[A-Za-z0-9]{36,}\b`)
	userinfo = regexp.MustCompile(`^(?:[a-z0-9+.-]+://)?[^/@:]*:([^/@]+)@`)
	// An argument whose name denotes a secret. A symbol is replaced later.
	argument  = regexp.MustCompile(`(?i)[?&](?:password|passwd|api_?key|access_token|client_secret)=([^&#${}]{4,})`)
	preamble  = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_-]*)\s+(\S{8,})\s*$`)
	withDigit = regexp.MustCompile(`[A-Za-z].*[0-9]|[0-9].*[A-Za-z]`)
)

// secrets searches a value of the given key for secrets. Without walk it checks only the
// keys whose secrets need no recognizable form.
func secrets(p *lint.Pass, v *schema.Value, key string, walk bool) {
	for _, m := range v.Members() {
		secrets(p, &m.Value, m.Key, walk)
	}
	for _, e := range v.Elems() {
		secrets(p, &e.Value, key, walk)
	}
	if v.Kind != schema.String {
		return
	}
	found := func(start, end int, format string, args ...any) {
		p.Reportf(inside(v, start, end), format, args...)
	}
	switch key {
	case "endpoint", "http_url", "via-socks5":
		if strings.IndexByte(v.Raw(), '@') >= 0 {
			text := v.Text()
			if at := userinfo.FindStringSubmatchIndex(text); at != nil && !strings.Contains(text[at[2]:at[3]], "${") &&
				(key != "http_url" || strings.Contains(text[:at[2]], "://")) {
				found(at[2], at[3], "%s holds a password", key)
				return
			}
		}
		if text := v.Text(); key == "http_url" && len(text) <= schema.MaxString && strings.IndexByte(text, '=') >= 0 {
			for _, at := range argument.FindAllStringSubmatchIndex(text, -1) {
				if end := at[3]; end == len(text) || text[end] == '&' || text[end] == '#' {
					found(at[2], end, "http_url holds a secret")
				}
			}
		}
	case "http_auth_header":
		text := v.Text()
		if name, rest, ok := strings.Cut(text, ":"); ok && strings.TrimSpace(rest) != "" {
			found(len(name)+1, len(text), "http_auth_header is the name of a header, such as %s: the text after it is not sent, and may be a secret", schema.Quote(name+":"))
			return
		}
		if at := preamble.FindStringSubmatchIndex(text); at != nil && credentials(text[at[2]:at[3]], text[at[4]:at[5]]) || looksSecret(text) {
			found(0, len(text), "http_auth_header is the name of a header, such as \"authorization:\", not its value, which may be a secret")
			return
		}
	case "http_auth_preamble":
		text := v.Text()
		if at := preamble.FindStringSubmatchIndex(text); at != nil && credentials(text[at[2]:at[3]], text[at[4]:at[5]]) {
			found(at[4], at[5], "http_auth_preamble holds credentials: write %s, and let the program give the rest", schema.QuoteName(text[:at[4]]))
			return
		}
	}
	if !walk {
		return
	}
	text := v.Text()
	for _, t := range tokens {
		if strings.Contains(text, t.mark) {
			if at := t.form.FindStringIndex(text); at != nil {
				found(at[0], at[1], "this is %s", t.what)
			}
		}
	}
}

// credentials reports whether what follows the name of an authentication scheme
// is surely not just the start of what the program adds.
func credentials(scheme, rest string) bool {
	if strings.EqualFold(scheme, "basic") {
		b, err := base64.StdEncoding.DecodeString(rest)
		return err == nil && utf8.Valid(b) && strings.Contains(string(b), ":")
	}
	return len(rest) >= 16 && withDigit.MatchString(rest) && !strings.HasSuffix(strings.TrimRight(rest, `"`), "=")
}

// looksSecret reports whether a text in the place of the name of a header is rather
// the value: the name of an auth scheme, or a token.
func looksSecret(text string) bool {
	switch lowerASCII(text) {
	case "basic", "bearer", "digest", "token":
		return true
	}
	return len(text) >= 16 && withDigit.MatchString(text) && !strings.ContainsAny(text, "-:")
}
