package policy

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// A Target is the address of an attempt: the policy's endpoint with metadata
// inserted.
type Target struct {
	Network string // "tcp", "unix" or "file"; without a network, the name of the carrier
	Host    string // a name, or an address without brackets; for unix a path, or "@" and an abstract name; for file a path
	Port    uint16 // not 0 for tcp, 0 for other networks
	TLS     bool
	Scheme  string // of an endpoint that is a URL, in lower case
	Path    string // path and query of an endpoint that is a URL or host:port; they replace those of http_url
}

// Address returns the address for net.Dial: "host:port" for tcp, otherwise the
// path.
func (t *Target) Address() string {
	if t.Network != "tcp" {
		return t.Host
	}
	return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
}

// fileScheme is the prefix of an endpoint that is a local file.
const fileScheme = "file://"

// An Endpoint is the parsed endpoint of a client streamtype. It is safe for
// concurrent use.
type Endpoint struct {
	st     *StreamType
	text   *Template
	target *Target // set if the text holds no metadata
}

// NewEndpoint parses the endpoint of a client streamtype. uses has an element for
// each metadata item of the streamtype; NewEndpoint adds to it how the endpoint
// uses each item.
//
// The text of the policy alone decides whether the endpoint is a host name, a URL,
// a unix socket or a file, so metadata cannot turn a name into a URL. As an
// exception, an endpoint that is just ${item} may become a name or a URL.
//
// A raw streamtype may have no endpoint. The error wraps ErrEndpoint, ErrTemplate
// or ErrUnknownMetadata.
func NewEndpoint(st *StreamType, uses []Use) (Endpoint, error) {
	text, err := ParseTemplate(st.Endpoint, st.Metadata)
	if err != nil {
		return Endpoint{}, fmt.Errorf("endpoint: %w", err)
	}
	e := Endpoint{st: st, text: text}
	switch {
	case st.Endpoint == "" && st.Protocol == ProtocolRaw:
		return NoEndpoint(st.Protocol), nil // for connections that the program makes itself
	case st.Endpoint == "":
		return e, &EndpointError{Why: "there is none"}
	case text.Static():
		e.target, err = ParseTarget(st.Endpoint, st)
		return e, err
	case len(text.parts) == 1:
		text.Mark(uses, UseURL)
		return e, nil
	case st.Endpoint[0] == '+' || strings.HasPrefix(st.Endpoint, fileScheme):
		text.Mark(uses, UsePath)
		return e, nil
	}
	return e, text.markAuthority(st.Metadata, uses)
}

// markAuthority marks the items of an endpoint that is a name or a URL: an item is
// part of the authority up to its end, and of the path or query after it.
func (t *Template) markAuthority(items []Metadata, uses []Use) error {
	use := UseName
	for _, p := range t.parts {
		if p.item < 0 && strings.Contains(p.text, ":") {
			use = UseHost
		}
	}
	for i := range t.parts {
		p := &t.parts[i]
		if p.item >= 0 && use == UseURL {
			p.markURL(items, uses, true)
			continue
		} else if p.item >= 0 {
			uses[p.item] |= use
			continue
		}
		literal := p.text
		if _, after, found := strings.Cut(literal, "://"); found && use != UseURL {
			if i > 0 {
				return &EndpointError{t.String(), "the scheme of a URL cannot come from metadata"}
			}
			literal = after
		}
		if strings.ContainsAny(literal, "/?#") {
			if use == UseName {
				return &EndpointError{t.String(), "neither a name nor a URL"}
			}
			use = UseURL
		}
	}
	return nil
}

// Hide returns err with the endpoint of the policy in place of the target's host if
// metadata, which may be secret, is part of the host. Errors of resolvers and of
// package crypto/x509 quote the host.
func (e *Endpoint) Hide(err error, t *Target) error {
	if err == nil || t == nil || e.target != nil || e.text == nil || t.Network != "tcp" {
		return err
	}
	text := err.Error()
	hidden := replaceName(text, t.Host, e.text.String())
	if hidden == text {
		return err
	}
	return &hiddenError{hidden, err}
}

type hiddenError struct {
	text string
	err  error
}

func (e *hiddenError) Error() string { return e.text }
func (e *hiddenError) Unwrap() error { return e.err }

// replaceName replaces a host name where it is not part of a longer word.
func replaceName(text, name, by string) string {
	var b strings.Builder
	part := func(s string) bool { return s != "" && (s[0] == '-' || s[0] == '_' || isAlphanumeric(s[0])) }
	for name != "" {
		i := strings.Index(text, name)
		if i < 0 {
			break
		}
		end := i + len(name)
		if part(text[end:]) || i > 0 && part(text[i-1:]) {
			b.WriteString(text[:end])
		} else {
			b.WriteString(text[:i] + by)
		}
		text = text[end:]
	}
	return b.String() + text
}

// Resolve returns the target for metadata values in the order of the streamtype's
// items. Calls with equal results may return the same pointer, so the target must
// not be modified. The error wraps ErrEndpoint and does not quote metadata.
func (e *Endpoint) Resolve(values []Value) (*Target, error) {
	if e.target != nil {
		return e.target, nil
	}
	text := e.text.Expand(values)
	switch {
	case strings.HasPrefix(text, "+") && !strings.HasPrefix(e.text.text, "+"):
		return nil, &EndpointError{e.text.String(), "only the policy can name a unix socket"}
	case strings.HasPrefix(e.text.text, fileScheme):
		return fileTarget(text, e.st, true)
	case strings.HasPrefix(text, "file:"):
		return nil, &EndpointError{e.text.String(), "only the policy can name a file"}
	}
	return ParseTarget(text, e.st)
}

// ParseTarget parses the text of an endpoint of st after metadata has been
// inserted, by the rules of lws 4.1 to 5.0 (lib/secure-streams/secure-streams.c,
// _lws_ss_client_connect; lib/core-net/wsi.c, lws_parse_uri). A text with a ':' is
// a URL, or host:port, whose host, port and path replace those of the policy; the
// schemes http, ws and mqtt turn TLS off. If neither the text nor an HTTP scheme
// has a port, the policy's port applies, as in lws 4.1 to 4.5; lws 5.0 takes port
// 0. Unlike lws, ParseTarget rejects user names, and rejects https and wss if the
// policy has no TLS.
//
// The error wraps ErrEndpoint. It quotes st.Endpoint, but not text, which may hold
// secret metadata.
func ParseTarget(text string, st *StreamType) (*Target, error) {
	if path, ok := strings.CutPrefix(text, "+"); ok {
		if path == "" || path == "@" || strings.Contains(path, "\x00") {
			return nil, endpointError(st, "unix socket without a name")
		}
		return &Target{Network: "unix", Host: path, TLS: st.TLS}, nil
	}
	if strings.HasPrefix(text, fileScheme) {
		return fileTarget(text, st, false)
	}
	t := &Target{Network: "tcp", Host: text, Port: st.Port, TLS: st.TLS}
	_, err := netip.ParseAddr(text)
	isAddr := err == nil
	if strings.Contains(text, ":") && !isAddr {
		if why := t.parseURL(text); why != "" {
			return nil, endpointError(st, why)
		}
	}
	if t.Port = cmp.Or(t.Port, st.Protocol.DefaultPort(t.TLS)); t.Port == 0 {
		return nil, endpointError(st, "the policy has no port")
	}
	if why := t.checkHost(isAddr); why != "" {
		if t.Host == "" && strings.Contains(st.Endpoint, "${") {
			why = "no host: the metadata is empty or not set"
		}
		return nil, endpointError(st, why)
	}
	return t, nil
}

// endpointError returns an ErrEndpoint with the endpoint of the policy.
func endpointError(st *StreamType, why string) error {
	return &EndpointError{st.Endpoint, why}
}

// parseURL sets t from a URL or host:port. It returns the reason of a failure, or "".
func (t *Target) parseURL(text string) (why string) {
	authority := text
	if scheme, after, found := strings.Cut(text, "://"); found {
		t.Scheme, authority = strings.ToLower(scheme), after
	}
	switch t.Scheme {
	case "http", "ws":
		t.Port, t.TLS = 80, false
	case "mqtt":
		t.TLS = false
	case "file":
		return "a file needs \"file://\" before its path"
	case "https", "wss":
		if t.Port = 443; !t.TLS {
			return "the policy has no TLS"
		}
	}
	t.Path = "/"
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		t.Path, _, _ = strings.Cut(authority[i:], "#")
		if !strings.HasPrefix(t.Path, "/") {
			t.Path = "/" + t.Path
		}
		authority = authority[:i]
	}
	if strings.Contains(authority, "@") {
		return "user name in the URL"
	}
	return t.parseAuthority(authority)
}

// parseAuthority sets t from host[:port]. It returns the reason of a failure, or "".
func (t *Target) parseAuthority(authority string) (why string) {
	var port string
	var found bool
	if after, ok := strings.CutPrefix(authority, "["); ok {
		host, after, closed := strings.Cut(after, "]")
		if !closed || after != "" && after[0] != ':' {
			return "unbalanced brackets"
		}
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
			return "no IPv6 address in the brackets"
		}
		t.Host = host
		port, found = strings.CutPrefix(after, ":")
	} else {
		t.Host, port, found = strings.Cut(authority, ":")
	}
	if !found {
		return ""
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case port == "", err == nil && n == 0:
		return "no port"
	case err != nil:
		return "bad port"
	}
	t.Port = uint16(n)
	return ""
}

// checkHost returns the reason why the host is invalid, or "".
func (t *Target) checkHost(isAddr bool) (why string) {
	switch {
	case t.Host == "":
		return "no host"
	case t.Host[0] == '+':
		return "the host begins with '+'"
	}
	for i := range len(t.Host) {
		b := t.Host[i]
		if b <= ' ' || b == 0x7f || b == '%' && !isAddr || strings.IndexByte(`/\?#@<>"^|{}[]*`+"`", b) >= 0 {
			return fmt.Sprintf("a host name cannot hold %q", b)
		}
	}
	if _, err := netip.ParseAddr(t.Host); err == nil {
		return ""
	}
	return wrongLabels(strings.TrimSuffix(t.Host, "."))
}

// wrongLabels returns what is wrong with the labels of a host name (RFC 1035
// section 2.3.4), or "". A name whose last label is a number is an IPv4 address
// (RFC 1123 section 2.1).
func wrongLabels(host string) (why string) {
	if len(host) > 253 {
		return "a host name of more than 253 bytes"
	}
	label := ""
	for label = range strings.SplitSeq(host, ".") {
		switch {
		case label == "":
			return "an empty label in the host name"
		case len(label) > 63:
			return "a label of more than 63 bytes in the host name"
		}
	}
	if strings.Trim(label, "0123456789") == "" {
		return "not an IPv4 address, and no host name ends in a number"
	}
	return ""
}

// fileTarget returns the target of an endpoint that is a file. If it holds metadata
// it must not have "..", which could lead out of the directory that the policy names.
func fileTarget(text string, st *StreamType, metadata bool) (*Target, error) {
	path := strings.TrimPrefix(text, fileScheme)
	if path == "" || strings.ContainsRune(path, 0) {
		return nil, endpointError(st, "a file without a name")
	}
	if metadata {
		for element := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
			if element == ".." {
				return nil, endpointError(st, "\"..\" in a path with metadata")
			}
		}
	}
	return &Target{Network: "file", Host: path}, nil
}

// NoEndpoint returns the endpoint of a carrier that uses no network. It resolves to a
// target whose Network is the name of the carrier.
func NoEndpoint(carrier Protocol) Endpoint {
	return Endpoint{target: &Target{Network: carrier.String()}}
}
