package runtime

import (
	"errors"
	"fmt"
)

// A streamType is a streamtype of a policy, ready to be executed in a context.
type streamType struct {
	policy    *StreamType
	connector Connector
	endpoint  endpoint
	url       *Template
	uses      []metadataUse // of each metadata item
	http      bool
}

// transportPackages says where the transport of a protocol is to be found.
var transportPackages = [...]string{
	ProtocolH1: "http",
	ProtocolH2: "http",
}

// prepare returns the named streamtype, made ready at its first use.
func (c *Context) prepare(name string) (*streamType, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.types[name]; t != nil {
		return t, nil
	}
	if c.closed {
		return nil, ErrClosed
	}
	st := c.policy.StreamType(name)
	if st == nil {
		return nil, ErrUnknownStreamType
	}
	if err := c.check(st); err != nil {
		return nil, err
	}
	transport := c.transports[st.Protocol]
	if transport == nil {
		if p := int(st.Protocol); p < len(transportPackages) {
			return nil, fmt.Errorf("%w for protocol %v: put New() of package github.com/secure-streams/sspolicy/runtime/%s into Options.Transports",
				ErrNoTransport, st.Protocol, transportPackages[p])
		}
		return nil, fmt.Errorf("%w for protocol %v in Options.Transports", ErrNoTransport, st.Protocol)
	}
	t := &streamType{
		policy: st,
		uses:   make([]metadataUse, len(st.Metadata)),
		http:   st.Protocol <= ProtocolH3,
	}
	for i := range st.Metadata {
		if st.Metadata[i].Header != "" {
			t.uses[i] |= inHeader
		}
	}
	var err error
	if t.endpoint, err = newEndpoint(st, t.uses); err != nil {
		return nil, err
	}
	url := ""
	if st.HTTP != nil {
		url = st.HTTP.URL
	}
	if t.url, err = ParseTemplate(url, st.Metadata); err != nil {
		return nil, fmt.Errorf("http_url: %w", err)
	}
	t.url.uses(func(i int) { t.uses[i] |= inURL })
	if t.connector, err = transport.Prepare(c, st); err != nil {
		return nil, err
	}
	if c.types == nil {
		c.types = make(map[string]*streamType)
	}
	c.types[name] = t
	return t, nil
}

// check refuses a streamtype that asks for what no transport does. What would
// change nothing but how well it is done is let pass, see docs/runtime.md.
func (c *Context) check(st *StreamType) error {
	unsupported := func(key string) error {
		return fmt.Errorf("%w: %s", ErrUnsupported, key)
	}
	switch {
	case st.Protocol > maxProtocol:
		return unsupported(st.Protocol.String())
	case st.Server:
		return unsupported("server")
	case st.LocalSink:
		return unsupported("local_sink")
	case st.Rideshare != "":
		return unsupported("rideshare")
	case st.SOCKS5Proxy != "" || c.policy.SOCKS5Proxy != "":
		return unsupported("via-socks5")
	case st.DirectProtoStr:
		return unsupported("direct_proto_str")
	case st.Auth != nil:
		return fmt.Errorf("%w: use_auth", ErrNoCredentials)
	case st.ClientCert != 0:
		return fmt.Errorf("%w: client_cert", ErrNoCredentials)
	case st.HTTP == nil && st.Protocol <= ProtocolWS, st.MQTT == nil && st.Protocol == ProtocolMQTT:
		return errors.New("the compiled policy lacks the settings of the protocol")
	}
	return nil
}
