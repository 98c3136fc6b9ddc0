package runtime

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// A Target is where an attempt connects to: the endpoint of the policy with
// its metadata put in, taken apart.
type Target struct {
	Network string // "tcp" or "unix"; "file" does not reach a transport
	Host    string // a name or address without brackets; for unix the path, or "@" and the abstract name; for file the path
	Port    uint16 // 0 for unix and file
	TLS     bool
	Scheme  string // of an endpoint that is a URL, in lower case, else ""
	Path    string // path and query of an endpoint that is a URL: it stands in for the policy's; else ""
}

// Address returns the target in the form that [Context.Dial] takes.
func (t *Target) Address() string {
	if t.Network != "tcp" {
		return t.Host
	}
	return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
}

// An endpoint is the endpoint of a streamtype, ready to be expanded.
type endpoint struct {
	text   *Template
	target *Target // if the text holds no metadata
}

// newEndpoint reads the endpoint of a client streamtype and notes in uses what
// the metadata in it may hold. Whether the endpoint is a name, a URL or a unix
// socket is decided by the text of the policy alone, so that a value put into
// a name can not make a URL of it; unless the whole of it is one ${item}, which
// may hold a name or a URL.
func newEndpoint(st *StreamType, uses []metadataUse) (endpoint, error) {
	text, err := ParseTemplate(st.Endpoint, st.Metadata)
	if err != nil {
		return endpoint{}, fmt.Errorf("endpoint: %w", err)
	}
	switch {
	case st.Endpoint == "":
		return endpoint{}, fmt.Errorf("%w: there is none", ErrEndpoint)
	case text.static():
		target, err := parseTarget(st.Endpoint, st)
		if err != nil {
			return endpoint{}, err
		}
		return endpoint{text, target}, nil
	case len(text.parts) == 1:
		uses[text.parts[0].item] |= inURL
		return endpoint{text, nil}, nil
	case st.Endpoint[0] == '+' || strings.HasPrefix(st.Endpoint, fileScheme):
		text.uses(func(i int) { uses[i] |= inPath })
		return endpoint{text, nil}, nil
	}
	// Up to the end of the authority, metadata is a part of it; then path.
	use := inName
	text.literals(func(lit string) {
		if strings.Contains(lit, ":") {
			use = inHost
		}
	})
	for i, p := range text.parts {
		if p.item >= 0 {
			uses[p.item] |= use
			continue
		}
		lit := p.text
		if _, after, found := strings.Cut(lit, "://"); found && use != inURL {
			if i > 0 {
				return endpoint{}, fmt.Errorf("%w: %q: the scheme of a URL can not come from metadata", ErrEndpoint, st.Endpoint)
			}
			lit = after
		}
		if strings.ContainsAny(lit, "/?#") {
			if use == inName {
				return endpoint{}, fmt.Errorf("%w: %q: neither a name nor a URL", ErrEndpoint, st.Endpoint)
			}
			use = inURL
		}
	}
	return endpoint{text, nil}, nil
}

// resolve returns the target under the metadata given.
func (e *endpoint) resolve(st *StreamType, values []metadataValue) (*Target, error) {
	if e.target != nil {
		return e.target, nil
	}
	text := e.text.expand(values)
	if strings.HasPrefix(text, "+") && !strings.HasPrefix(e.text.text, "+") {
		return nil, fmt.Errorf("%w: %q: only the policy can name a unix socket", ErrEndpoint, e.text)
	}
	if strings.HasPrefix(e.text.text, fileScheme) {
		path, err := filePath(text, true)
		if err != nil {
			return nil, err
		}
		return &Target{Network: "file", Host: path}, nil
	}
	if strings.HasPrefix(text, "file:") {
		return nil, fmt.Errorf("%w: %q: only the policy can name a file", ErrEndpoint, e.text)
	}
	return parseTarget(text, st)
}

// parseTarget takes an endpoint apart, by the rules of lws 5.0.0
// (lib/secure-streams/secure-streams.c, _lws_ss_client_connect): what holds a
// ':' is a URL, or host:port, whose host, port and path stand in for those of
// the policy; the schemes http, ws and mqtt turn TLS off. Other than there,
// https and wss are refused where the policy has no TLS, and so are user names.
func parseTarget(text string, st *StreamType) (*Target, error) {
	fail := func(why string) (*Target, error) {
		// Not text: metadata may be secret.
		return nil, fmt.Errorf("%w: %q: %s", ErrEndpoint, st.Endpoint, why)
	}
	if path, ok := strings.CutPrefix(text, "+"); ok {
		if path == "" || path == "@" || strings.Contains(path, "\x00") {
			return fail("no name of a unix socket")
		}
		return &Target{Network: "unix", Host: path, TLS: st.TLS}, nil
	}
	if strings.HasPrefix(text, fileScheme) {
		path, err := filePath(text, false)
		if err != nil {
			return nil, err
		}
		return &Target{Network: "file", Host: path}, nil
	}
	t := &Target{Network: "tcp", Host: text, Port: st.Port, TLS: st.TLS}
	_, notAddr := netip.ParseAddr(text)
	if strings.Contains(text, ":") && notAddr != nil {
		rest := text
		if scheme, after, found := strings.Cut(text, "://"); found {
			t.Scheme, rest = strings.ToLower(scheme), after
		}
		t.Port = 0
		switch t.Scheme {
		case "http", "ws":
			t.Port, t.TLS = 80, false
		case "mqtt":
			t.Port, t.TLS = 1883, false
		case "file":
			return fail("the path of a file begins after \"file://\"")
		case "https", "wss":
			t.Port = 443
			if !t.TLS {
				return fail("the policy has no TLS for it")
			}
		}
		t.Path = "/"
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			t.Path, _, _ = strings.Cut(rest[i:], "#")
			if !strings.HasPrefix(t.Path, "/") {
				t.Path = "/" + t.Path
			}
			rest = rest[:i]
		}
		if strings.Contains(rest, "@") {
			return fail("a URL with a user name")
		}
		var port string
		if after, ok := strings.CutPrefix(rest, "["); ok {
			host, after, found := strings.Cut(after, "]")
			if !found || after != "" && after[0] != ':' {
				return fail("unbalanced brackets")
			}
			if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
				return fail("not an IPv6 address in brackets")
			}
			t.Host, port = host, strings.TrimPrefix(after, ":")
		} else {
			t.Host, port, _ = strings.Cut(rest, ":")
		}
		if port != "" {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return fail("bad port")
			}
			t.Port = uint16(n)
		}
		if t.Port == 0 {
			return fail("no port")
		}
	}
	if t.Port == 0 {
		t.Port = defaultPort(st.Protocol, t.TLS)
		if t.Port == 0 {
			return fail("the policy has no port for it")
		}
	}
	if t.Host == "" {
		if strings.Contains(st.Endpoint, "${") {
			return fail("no host: its metadata is empty or not set")
		}
		return fail("no host")
	}
	if t.Host[0] == '+' {
		return fail("a host that begins with '+'")
	}
	for i := range len(t.Host) {
		b := t.Host[i]
		if b <= ' ' || b == 0x7f || b == '%' && notAddr != nil || strings.IndexByte(`/\?#@<>"^|{}[]`+"`", b) >= 0 {
			return fail("bad character in the host")
		}
	}
	return t, nil
}

// defaultPort is the port of a policy that has none.
func defaultPort(p Protocol, tls bool) uint16 {
	switch p {
	case ProtocolH1, ProtocolH2, ProtocolH3, ProtocolWS:
		if tls {
			return 443
		}
		return 80
	case ProtocolMQTT:
		if tls {
			return 8883
		}
		return 1883
	}
	return 0
}
