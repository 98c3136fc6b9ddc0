package faulttest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// Fragment returns an overlay that redirects the stream of a policy to the peer,
// for "sspolicy overlay".
func (t *Target) Fragment(p *policy.Policy) []byte {
	st := p.StreamType(t.stream)
	c := t.settings(st)
	s := object{}
	if c.Endpoint != st.Endpoint {
		s.set("endpoint", c.Endpoint)
	}
	if c.Port != st.Port {
		s.set("port", c.Port)
	}
	if c.TLS != st.TLS {
		s.set("tls", c.TLS)
	}
	if st.HTTP != nil && c.HTTP.URL != st.HTTP.URL {
		s.set("http_url", c.HTTP.URL)
	}
	f := object{}
	if c.TrustStore != st.TrustStore {
		s.set("tls_trust_store", storeName)
		f.set("certs", []map[string]string{{caName: base64.StdEncoding.EncodeToString(t.roots.Cert.Raw)}})
		f.set("trust_stores", []json.RawMessage{store})
	}
	switch {
	case t.proxy != "":
		s.set("via-socks5", t.proxy)
	case p.SOCKS5Proxy != "":
		f.set("via-socks5", nil)
	case st.SOCKS5Proxy != "":
		s.set("via-socks5", nil)
	}
	stream := object{}
	stream.set(st.Name, s)
	f.set("s", []object{stream})
	return f.indent()
}

// store is the trust store of a fragment; lws requires its name to be the first member.
var store = json.RawMessage(fmt.Sprintf(`{"name": %q, "stack": [%q]}`, storeName, caName))

// lwsFragment returns an overlay for lws's own overlay function, which can only change the
// address of the stream. For a peer without TLS the address is a URL whose scheme turns TLS
// off. A device keeps its trust stores, so every certificate of the peer is from an unknown
// authority.
func (t *Target) lwsFragment(p *policy.Policy, plain bool) ([]byte, error) {
	st := p.StreamType(t.stream)
	s := object{}
	switch {
	case t.proxy != "":
		return nil, fmt.Errorf("lws's overlays cannot set a proxy for streamtype %q", st.Name)
	case !plain || !usesTLS(st):
		s.set("endpoint", t.host)
		s.set("port", t.port)
	case st.HTTP != nil:
		path := st.HTTP.URL
		if own, ok := endpointPath(st.Endpoint); ok {
			path = own
		}
		scheme := "http"
		if st.Protocol == policy.ProtocolWS {
			scheme = "ws"
		}
		s.set("endpoint", scheme+"://"+t.address()+"/"+strings.TrimPrefix(path, "/"))
	case st.MQTT != nil:
		s.set("endpoint", "mqtt://"+t.address())
	default:
		return nil, fmt.Errorf("lws's overlays cannot turn off the TLS of streamtype %q", st.Name)
	}
	stream, f := object{}, object{}
	stream.set(st.Name, s)
	f.set("s", []object{stream})
	return f.indent(), nil
}

// An object is a JSON object with ordered members.
type object []member

type member struct {
	name  string
	value any
}

func (o *object) set(name string, value any) { *o = append(*o, member{name, value}) }

// MarshalJSON encodes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, name...), ':'), value...)
	}
	return append(b, '}'), nil
}

func (o object) indent() []byte {
	b, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		panic(err) // strings and numbers only
	}
	return append(b, '\n')
}
