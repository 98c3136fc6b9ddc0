package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// StreamType returns the streamtype with exactly that name, or nil.
func (p *Policy) StreamType(name string) *StreamType {
	for _, st := range p.StreamTypes {
		if st.Name == name {
			return st
		}
	}
	return nil
}

// Effective returns the streamtype with that name, with the settings that it
// inherits from the policy, or nil. It may be a copy.
func (p *Policy) Effective(name string) *StreamType { return p.effective(p.StreamType(name)) }

func (p *Policy) effective(st *StreamType) *StreamType {
	if st == nil || st.SOCKS5Proxy != "" || p.SOCKS5Proxy == "" {
		return st
	}
	effective := *st
	effective.SOCKS5Proxy = p.SOCKS5Proxy
	return &effective
}

// Same reports whether p and q define a streamtype, and the ones that share its
// requests, identically. It compares the results of Effective.
func Same(p, q *Index, name string) bool {
	for range p.Policy.StreamTypes {
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

// Chain returns the streamtypes whose messages make up one request of st: st, the
// one that its Rideshare names, the one that this one names, and so on. The error
// wraps ErrUnknownStreamType, or ErrUnsupported for a chain that cannot be
// executed.
func (p *Policy) Chain(st *StreamType) ([]*StreamType, error) { return chain(st, p.StreamType) }

// chain is Chain, given the function that finds a streamtype by its name.
func chain(st *StreamType, find func(string) *StreamType) ([]*StreamType, error) {
	chain := []*StreamType{st}
	for last := st; last.Rideshare != ""; {
		next := find(last.Rideshare)
		err, why := ErrUnsupported, ""
		switch {
		case !last.Protocol.IsHTTP():
			why = "it speaks " + last.Protocol.String()
		case next == nil:
			err, why = ErrUnknownStreamType, "there is none"
		case slices.ContainsFunc(chain, func(st *StreamType) bool { return st.Name == next.Name }):
			why = "that precedes it: the request would never end"
		case next.Protocol != st.Protocol:
			why = "that speaks another protocol"
		case next.HTTP == nil:
			return nil, fmt.Errorf("rideshare of %q to %q: that lacks the settings of its protocol", last.Name, last.Rideshare)
		default:
			chain = append(chain, next)
			last = next
			continue
		}
		return nil, fmt.Errorf("%w: rideshare of %q to %q: %s", err, last.Name, last.Rideshare, why)
	}
	return chain, nil
}

// Carrier returns the carrier of streams of the type: ProtocolSink for a
// local_sink, ProtocolFile for an endpoint that is a file, otherwise Protocol.
func (st *StreamType) Carrier() Protocol {
	switch {
	case st.LocalSink:
		return ProtocolSink
	case strings.HasPrefix(st.Endpoint, fileScheme):
		return ProtocolFile
	}
	return st.Protocol
}

// HasBody reports whether requests with the method always have a body, as in lws
// 5.0.0.
func (h *HTTP) HasBody() bool {
	return slices.Contains([]string{"POST", "PUT", "PATCH"}, h.Method)
}

// IsHTTP reports whether a connection of a stream of the type is one request and
// its response. A stream of a file behaves as its Protocol; one of a local_sink
// does not.
func (st *StreamType) IsHTTP() bool { return st.Protocol.IsHTTP() && !st.LocalSink }

// Sends reports whether streams of the type send payload. Over HTTP, it reports
// whether the request has a body, as in lws 5.0.0
// (lib/secure-streams/protocols/ss-h1.c). HTTP or MQTT must be set as the Protocol
// requires.
func (st *StreamType) Sends() bool {
	switch {
	case st.LocalSink:
		return true
	case st.Protocol == ProtocolMQTT:
		return st.MQTT == nil || st.MQTT.Topic != "" // nil in the description of a proxied streamtype
	case !st.Protocol.IsHTTP():
		return true
	case st.HTTP.HasBody():
		return true
	case st.HTTP.Multipart || st.HTTP.MultipartName != "":
		return true
	}
	return slices.ContainsFunc(st.Metadata, func(m Metadata) bool {
		return strings.EqualFold(strings.TrimSuffix(m.Header, ":"), "content-length")
	})
}
