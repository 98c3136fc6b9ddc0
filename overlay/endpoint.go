package overlay

import (
	"net/url"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// endpoint applies an endpoint that is a URL or host:port as the settings that it
// stands for: the host, port, http_url and tls. It returns the member that it has
// applied, or nil. It does not split the endpoint if the fragment sets one of the
// other settings too; lint reports contradictions.
func (a *author) endpoint(t *target, m *schema.Member) *schema.Member {
	set := last(m.Value.Object, "endpoint")
	if set == nil || set.Value.Kind != schema.String {
		return nil
	}
	for _, other := range []string{"port", "http_url", "tls", "server", "protocol"} {
		if last(m.Value.Object, other) != nil {
			return nil
		}
	}
	if last(t.object, "server") != nil {
		return nil
	}
	parts, ok := split(set.Value.Text(), protocol(t.object))
	if !ok {
		return nil
	}
	for _, part := range parts {
		n := setMember(set.Name.Span, part.key, scalar(set.Value.Span, part.kind, part.raw))
		why := "endpoint is " + schema.QuoteName(set.Value.Text())
		if part.raw == "false" && last(t.object, part.key) == nil {
			continue
		}
		a.set(t, n, why)
	}
	return set
}

// A part is a setting that a part of an endpoint stands for.
type part struct {
	key  string
	kind schema.Kind
	raw  string
}

// schemes are the schemes of endpoints, with their port and whether they use TLS.
var schemes = map[string]struct {
	port, tls string
	protocols []string
}{
	"http":  {"80", "false", []string{"h1", "h2"}},
	"https": {"443", "true", []string{"h1", "h2", "h3"}},
	"ws":    {"80", "false", []string{"ws"}},
	"wss":   {"443", "true", []string{"ws"}},
	"mqtt":  {"1883", "false", []string{"mqtt"}},
	"mqtts": {"8883", "true", []string{"mqtt"}},
}

// split splits an endpoint. It returns false for a plain host, a unix socket, a
// file, an endpoint that contains metadata, or a scheme of another protocol.
func split(endpoint, protocol string) ([]part, bool) {
	text := endpoint
	if !strings.Contains(text, "://") {
		text = "//" + text
	}
	u, err := url.Parse(text)
	if err != nil || strings.ContainsAny(endpoint, "$+ ") || u.Hostname() == "" || u.User != nil || u.Opaque != "" || u.Fragment != "" {
		return nil, false
	}
	if u.Scheme == "" && (u.Port() == "" || u.Path != "") {
		return nil, false
	}
	host := u.Hostname()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	parts := []part{{"endpoint", schema.String, schema.Quote(host)}}
	port := u.Port()
	if u.Scheme != "" {
		s, ok := schemes[u.Scheme]
		if !ok || !slices.Contains(s.protocols, protocol) || protocol == "mqtt" && strings.Trim(u.Path, "/") != "" {
			return nil, false
		}
		if port == "" {
			port = s.port
		}
		parts = append(parts, part{"tls", schema.Bool, s.tls})
		if protocol != "mqtt" {
			path := strings.TrimPrefix(u.EscapedPath(), "/")
			if u.RawQuery != "" {
				path += "?" + u.RawQuery
			}
			parts = append(parts, part{"http_url", schema.String, schema.Quote(path)})
		}
	}
	port = strings.TrimLeft(port, "0")
	if port == "" {
		return nil, false
	}
	return append(parts, part{"port", schema.Number, port}), true
}
