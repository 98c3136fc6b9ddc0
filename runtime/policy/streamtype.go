package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// StreamType returns the streamtype with exactly this name, or nil.
func (p *Policy) StreamType(name string) *StreamType {
	for _, st := range p.StreamTypes {
		if st.Name == name {
			return st
		}
	}
	return nil
}

// Effective returns the streamtype with this name and what it inherits from the
// policy, or nil.
func (p *Policy) Effective(name string) *StreamType {
	st := p.StreamType(name)
	if st == nil || st.SOCKS5Proxy != "" || p.SOCKS5Proxy == "" {
		return st
	}
	effective := *st
	effective.SOCKS5Proxy = p.SOCKS5Proxy
	return &effective
}

// Same reports whether two policies define a streamtype, and those that share
// its transaction, alike.
func Same(p, q *Policy, name string) bool {
	for range p.StreamTypes {
		a, b := p.Effective(name), q.Effective(name)
		if a == nil || b == nil {
			return a == b
		}
		if !reflect.DeepEqual(a, b) {
			return false
		}
		if name = a.Rideshare; name == "" {
			break
		}
	}
	return true
}

// Chain returns the streamtypes whose messages make up one request: st, the one
// that its rideshare names, the one that this one names, and so on. The error
// names the key and wraps ErrUnsupported or ErrUnknownStreamType.
func (p *Policy) Chain(st *StreamType) ([]*StreamType, error) {
	chain := []*StreamType{st}
	for last := st; last.Rideshare != ""; {
		if !last.Protocol.IsHTTP() {
			return nil, fmt.Errorf("%w: rideshare over %v", ErrUnsupported, last.Protocol)
		}
		next := p.StreamType(last.Rideshare)
		switch {
		case next == nil:
			return nil, fmt.Errorf("rideshare of %q: %w: %q", last.Name, ErrUnknownStreamType, last.Rideshare)
		case slices.ContainsFunc(chain, func(st *StreamType) bool { return st.Name == next.Name }):
			return nil, fmt.Errorf("%w: rideshare of %q to %q, which comes before it: the request would never end",
				ErrUnsupported, last.Name, next.Name)
		case next.Protocol != st.Protocol:
			return nil, fmt.Errorf("%w: rideshare of %q to %q, which speaks another protocol",
				ErrUnsupported, last.Name, next.Name)
		case next.HTTP == nil:
			return nil, fmt.Errorf("rideshare of %q: streamtype %q lacks the settings of its protocol", last.Name, next.Name)
		}
		chain = append(chain, next)
		last = next
	}
	return chain, nil
}

// Carrier returns what executes streams of this type: the protocol, or
// ProtocolFile or ProtocolSink, which stand in for it.
func (st *StreamType) Carrier() Protocol {
	switch {
	case st.LocalSink:
		return ProtocolSink
	case strings.HasPrefix(st.Endpoint, fileScheme):
		return ProtocolFile
	}
	return st.Protocol
}

// Sends reports whether streams of this type send payload: over HTTP, whether a
// body follows the headers of the request, as in lws 5.0.0
// (lib/secure-streams/protocols/ss-h1.c).
func (st *StreamType) Sends() bool {
	switch {
	case st.LocalSink:
		return true
	case st.Protocol == ProtocolMQTT:
		return st.MQTT.Topic != ""
	case !st.Protocol.IsHTTP():
		return true
	case slices.Contains([]string{"POST", "PUT", "PATCH"}, st.HTTP.Method):
		return true
	case st.HTTP.Multipart || st.HTTP.MultipartName != "":
		return true
	}
	return slices.ContainsFunc(st.Metadata, func(m Metadata) bool {
		return strings.EqualFold(strings.TrimSuffix(m.Header, ":"), "content-length")
	})
}
