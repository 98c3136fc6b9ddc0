// Package request contains the code that HTTP requests and ws handshakes share:
// headers, URL, cookies, redirects.
package request

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A Set describes the headers that a streamtype sends and receives.
type Set struct {
	base    http.Header // sent unless metadata replaces its values; names are canonical
	setup   *transport.Setup
	direct  bool
	reserve func(name string) bool
	items   []item
	secrets []secret
}

// An item is a metadata item that is mapped to a header.
type item struct {
	name  string // canonical
	index int
}

// A secret is a header whose value is one of the context's credentials.
type secret struct {
	name     string // canonical
	preamble string
	blob     policy.Blob
	index    int
}

// plain is the base of most sets. An empty User-Agent keeps net/http from sending its own.
var plain = http.Header{"User-Agent": {""}}

// SetBase adds a header that is sent unless metadata replaces it. It must be called
// before Make. The name must be canonical.
func (s *Set) SetBase(name, value string) {
	s.base = s.base.Clone()
	s.base[name] = []string{value}
}

// NewSet returns the headers of a streamtype. reserve, if not nil, reports whether a
// header, by its canonical name, is the transport's own.
func NewSet(setup *transport.Setup, reserve func(name string) bool) (*Set, error) {
	st := setup.Stream
	s := &Set{setup: setup, base: plain, direct: st.DirectProtoStr, reserve: reserve}
	for i, m := range st.Metadata {
		if m.Header == "" {
			continue
		}
		// lws requires the colon after the name.
		name := strings.TrimSuffix(m.Header, ":")
		if !policy.IsToken(name) {
			return nil, fmt.Errorf("metadata %q: %q is not the name of a header", m.Name, m.Header)
		}
		s.items = append(s.items, item{http.CanonicalHeaderKey(name), i})
	}
	return s, s.prepareSecrets(st)
}

// prepareSecrets collects the headers of the policy that hold credentials.
func (s *Set) prepareSecrets(st *policy.StreamType) error {
	h := st.HTTP
	token := 0
	if st.Auth != nil && st.Auth.Type != policy.AuthSigV4 { // the transport signs these
		if h.AuthHeader == "" {
			return fmt.Errorf("%w: use_auth without http_auth_header", transport.ErrUnsupported)
		}
		token = int(st.Auth.Blob)
	}
	if strings.ContainsFunc(h.AuthPreamble, policy.IsControl) {
		return fmt.Errorf("%w: http_auth_preamble with a control character", transport.ErrUnsupported)
	}
	for _, k := range []struct {
		header, key string
		secret
	}{
		{h.AuthHeader, "http_auth_header", secret{preamble: h.AuthPreamble, blob: policy.BlobAuth, index: token}},
		{h.DSNHeader, "http_dsn_header", secret{blob: policy.BlobDeviceSerial}},
		{h.FWVHeader, "http_fwv_header", secret{blob: policy.BlobFirmwareVersion}},
		{h.DevTypeHeader, "http_devtype_header", secret{blob: policy.BlobDeviceType}},
	} {
		if k.header == "" {
			continue
		}
		name := http.CanonicalHeaderKey(strings.TrimSuffix(k.header, ":"))
		if !policy.IsToken(name) || s.frames(name) || name == "Host" || name == "Content-Length" {
			return fmt.Errorf("%w: %s %q", transport.ErrUnsupported, k.key, k.header)
		}
		for _, other := range s.secrets {
			if other.name == name {
				return fmt.Errorf("%w: %s %q is also the header of another key", transport.ErrUnsupported, k.key, k.header)
			}
		}
		k.name = name
		s.secrets = append(s.secrets, k.secret)
	}
	return nil
}

// HasSecrets reports whether Make uses credentials.
func (s *Set) HasSecrets() bool { return len(s.secrets) > 0 }

// frames reports whether a header frames the message or the connection, or is the
// transport's own. Neither metadata nor credentials may be sent in it.
func (s *Set) frames(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return s.reserve != nil && s.reserve(name)
}

// A Header holds the headers of one request.
type Header struct {
	http.Header
	Length int64 // set by metadata, or -1

	host   string // set by metadata, or ""
	shared bool   // Header is the base of the set, and must not be modified
}

// Make returns the headers of a request. ctx is the context of Run. After an error,
// such as a missing credential, the request must not be sent.
func (s *Set) Make(ctx context.Context, l transport.Link) (Header, error) {
	r := Header{Header: s.base, shared: true, Length: -1}
	for _, m := range s.items {
		if value, set := l.Metadata(m.index); set {
			if err := s.add(&r, m.name, value); err != nil {
				return Header{}, err
			}
		}
	}
	if s.direct {
		for _, f := range l.DirectHeaders() {
			if err := s.add(&r, http.CanonicalHeaderKey(f.Name), f.Value); err != nil {
				return Header{}, err
			}
		}
	}
	for _, k := range s.secrets {
		s.own(&r)
		// With two values, one of them the program's, the server would choose.
		if r.Header[k.name] != nil {
			return Header{}, &HeaderError{Header: k.name, Reason: "there are both metadata and a credential for it"}
		}
		value, err := s.setup.Secret(ctx, k.blob, k.index)
		if err != nil {
			return Header{}, err
		}
		r.Header[k.name] = []string{k.preamble + value}
	}
	return r, nil
}

// own makes the header map a copy that may be modified.
func (s *Set) own(r *Header) {
	if r.shared {
		r.shared = false
		r.Header = make(http.Header, len(s.base)+len(s.items)+len(s.secrets))
		for k, v := range s.base {
			r.Header[k] = v
		}
	}
}

// Put sets a header that is the transport's own.
func (s *Set) Put(r *Header, name, value string) {
	s.own(r)
	r.Header[name] = []string{value}
}

// add adds a header of the program.
func (s *Set) add(r *Header, name, value string) error {
	switch {
	case s.frames(name):
		return &HeaderError{Header: name, Reason: "it frames the message or the connection, or is made from the policy"}
	case name == "Host":
		if strings.ContainsFunc(value, notInHost) { // net/http would omit it
			return &HeaderError{Header: name, Reason: "it is not a host name with or without a port"}
		}
		r.host = value
		return nil
	case name == "Content-Length":
		v, err := strconv.ParseInt(value, 10, 64)
		if err != nil || v < 0 {
			return &HeaderError{Header: name, Reason: "it is not a length"}
		}
		r.Length = v
		return nil
	}
	s.own(r)
	if _, ok := s.base[name]; ok || r.Header[name] == nil {
		r.Header[name] = []string{value}
	} else {
		r.Header[name] = append(r.Header[name], value)
	}
	return nil
}

// notInHost reports whether r is invalid in a Host header (RFC 3986 section 3.2.2).
// A name that is not ASCII is valid: it is sent in its ASCII form.
func notInHost(r rune) bool {
	return r < 0x80 && !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9') &&
		!strings.ContainsRune("-._~!$&'()*+,;=:%[]", r)
}

// HostOr returns the Host header of the program, or host if there is none.
func (r *Header) HostOr(host string) string { return cmp.Or(r.host, host) }

// Receive stores the headers of a response in the metadata mapped to them.
func (s *Set) Receive(l transport.Link, h http.Header) {
	for _, m := range s.items {
		if v := h[m.name]; len(v) > 0 {
			l.Receive(m.index, v[0])
		}
	}
}

// confidential holds the headers that must not be sent to another server, in
// addition to those of credentials.
var confidential = []string{"Authorization", "Cookie", "Cookie2", "Proxy-Authorization", "Www-Authenticate",
	"X-Amz-Security-Token"}

// Strip removes the headers that must not be sent to another server.
func (s *Set) Strip(h http.Header) {
	for _, k := range confidential {
		h.Del(k)
	}
	for _, k := range s.secrets {
		h.Del(k.name)
	}
}
