package http

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/runtime"
)

// A secret is a header whose value is one of the context's credentials.
type secret struct {
	name     string // canonical
	preamble string
	blob     runtime.Blob
	index    int
}

// frames reports whether a header frames the message or the connection, so
// that neither metadata nor credentials can be sent in it.
func frames(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// prepareSecrets notes the headers of the policy that hold credentials.
func (n *connector) prepareSecrets() error {
	h := n.st.HTTP
	token := 0
	if n.st.Auth != nil {
		if h.AuthHeader == "" {
			return fmt.Errorf("%w: use_auth without http_auth_header", runtime.ErrUnsupported)
		}
		token = int(n.st.Auth.Blob)
	}
	if strings.ContainsFunc(h.AuthPreamble, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return fmt.Errorf("%w: http_auth_preamble with a control character", runtime.ErrUnsupported)
	}
	for _, k := range []struct {
		header, key string
		secret
	}{
		{h.AuthHeader, "http_auth_header", secret{preamble: h.AuthPreamble, blob: runtime.BlobAuth, index: token}},
		{h.DSNHeader, "http_dsn_header", secret{blob: runtime.BlobDeviceSerial}},
		{h.FWVHeader, "http_fwv_header", secret{blob: runtime.BlobFirmwareVersion}},
		{h.DevTypeHeader, "http_devtype_header", secret{blob: runtime.BlobDeviceType}},
	} {
		if k.header == "" {
			continue
		}
		name := http.CanonicalHeaderKey(strings.TrimSuffix(k.header, ":"))
		if !validToken(name) || frames(name) || name == "Host" || name == "Content-Length" {
			return fmt.Errorf("%w: %s %q", runtime.ErrUnsupported, k.key, k.header)
		}
		for _, s := range n.secrets {
			if s.name == name {
				return fmt.Errorf("%w: %s %q is the header of another key too", runtime.ErrUnsupported, k.key, k.header)
			}
		}
		k.name = name
		n.secrets = append(n.secrets, k.secret)
	}
	return nil
}

// headers are those of a request, and what they say of it.
type headers struct {
	h      http.Header
	shared bool   // h is that of the connector, and must not be changed
	length int64  // the content-length among them, or -1
	host   string // the value of the Host header among them
}

// header returns the headers of the request. An error, such as the want of a
// credential, is to end the attempt before anything is sent.
func (n *connector) header(l *runtime.Link) (headers, error) {
	r := headers{h: n.base, shared: true, length: -1}
	for _, m := range n.headers {
		if value, set := l.Metadata(m.item); set {
			if err := r.add(n, m.name, value); err != nil {
				return headers{}, err
			}
		}
	}
	if n.st.DirectProtoStr {
		for i := 0; ; i++ {
			name, value, ok := l.DirectHeader(i)
			if !ok {
				break
			}
			if err := r.add(n, http.CanonicalHeaderKey(name), value); err != nil {
				return headers{}, err
			}
		}
	}
	for _, s := range n.secrets {
		r.own(n)
		// Two values, one of them the program's, would let the server choose.
		if r.h[s.name] != nil {
			return headers{}, &HeaderError{Header: s.name, Reason: "there is metadata for it as well as a credential"}
		}
		value, err := l.Blob(s.blob, s.index)
		if err != nil {
			return headers{}, err
		}
		r.h[s.name] = []string{s.preamble + value}
	}
	return r, nil
}

// own makes a map of the headers that may be changed.
func (r *headers) own(n *connector) {
	if r.shared {
		r.shared = false
		r.h = make(http.Header, len(n.base)+len(n.headers)+len(n.secrets))
		for k, v := range n.base {
			r.h[k] = v
		}
	}
}

// add adds a header that the program has set.
func (r *headers) add(n *connector, name, value string) error {
	switch {
	case name == "Host":
		r.host = value
		return nil
	case name == "Content-Length":
		v, err := strconv.ParseInt(value, 10, 64)
		if err != nil || v < 0 {
			return &HeaderError{Header: name, Value: value, Reason: "it is no length"}
		}
		r.length = v
		return nil
	case frames(name):
		return &HeaderError{Header: name, Value: value, Reason: "it frames the message or the connection"}
	}
	r.own(n)
	if _, ok := n.base[name]; ok || r.h[name] == nil {
		r.h[name] = []string{value}
	} else {
		r.h[name] = append(r.h[name], value)
	}
	return nil
}

// hostOr returns the value of the Host header, which is host unless the program
// has set another.
func (r *headers) hostOr(host string) string { return cmp.Or(r.host, host) }
