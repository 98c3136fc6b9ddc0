package runtime

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// A streamType is a streamtype of a policy, ready to be executed in a context.
type streamType struct {
	c         *Context
	policy    *StreamType
	of        *Policy // that it is from; nil if it is built in
	connector Connector
	endpoint  endpoint
	url       *Template
	uses      []metadataUse // of each metadata item
	chain     []*StreamType // see Context.Rideshares
	http      bool

	stale   atomic.Bool // there is another by now; set under mu of the context
	streams int         // of the type; guarded by mu of the context
	idle    timer       // ends the use of the type; runs while streams is 0
	trust   *trust      // guarded by mu of the trustCache; nil until it is used
}

// linger is how long what streams of a type share, such as connections and
// trust, is kept when the last of them is gone, for the next one.
const linger = 30 * time.Second

// transportPackages says where the transport of a protocol is to be found.
var transportPackages = [...]string{
	ProtocolH1:   "http",
	ProtocolH2:   "http",
	ProtocolH3:   "h3",
	ProtocolWS:   "ws",
	ProtocolMQTT: "mqtt",
	ProtocolRaw:  "raw",
}

// prepare returns the named streamtype, for one more stream, made ready if it
// is not.
func (c *Context) prepare(name string) (*streamType, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.join(name)
}

// join is prepare where c.mu is held.
func (c *Context) join(name string) (*streamType, error) {
	if c.closed {
		return nil, ErrClosed
	}
	t := c.types[name]
	if t == nil {
		var err error
		if t, err = c.makeReady(name); err != nil {
			return nil, err
		}
		if c.types == nil {
			c.types = make(map[string]*streamType)
		}
		c.types[name] = t
	}
	if t.streams++; t.streams == 1 {
		c.timers.stop(&t.idle)
	}
	return t, nil
}

// leave says that a stream of the type is gone. c.mu is held.
func (c *Context) leave(t *streamType) {
	if t.streams--; t.streams > 0 || c.closed {
		return
	}
	if t.stale.Load() {
		c.retire(t)
		return
	}
	c.timers.start(&t.idle, linger)
}

// expire is called when no stream of the type has been there for a while.
func (t *streamType) expire(*timer) {
	go t.c.free(t) // a transport may take its time to close
}

// free ends the use of a streamtype that has no streams.
func (c *Context) free(t *streamType) {
	c.mu.Lock()
	if t.streams > 0 || c.closed || c.types[t.policy.Name] != t {
		c.mu.Unlock()
		return
	}
	delete(c.types, t.policy.Name)
	c.freeing.Add(1)
	c.mu.Unlock()
	defer c.freeing.Done()
	c.closeType(t)
}

// closeType closes the connections of a streamtype and gives up its trust.
func (c *Context) closeType(t *streamType) {
	if err := t.connector.Close(); err != nil {
		c.log.Warn("sspolicy: closing a transport", "streamtype", t.policy.Name, "err", err)
	}
	c.trust.release(t)
}

// tables returns the policy that streamtypes are made ready by.
func (c *Context) tables() *Policy {
	if next := c.next.Load(); next != nil {
		return next
	}
	return c.Policy()
}

// makeReady returns the named streamtype, ready to be executed. c.mu is held.
func (c *Context) makeReady(name string) (*streamType, error) {
	if name == SMDStreamType {
		if c.smdConnector == nil {
			return nil, fmt.Errorf("%w: it needs the option WithClasses", ErrUnsupported)
		}
		return c.smdType(), nil
	}
	p := c.tables()
	st := p.effective(name)
	if st == nil {
		return nil, ErrUnknownStreamType
	}
	if err := c.check(st); err != nil {
		return nil, err
	}
	t := &streamType{
		c:      c,
		policy: st,
		of:     p,
		uses:   make([]metadataUse, len(st.Metadata)),
		http:   st.Protocol <= ProtocolH3 && !st.LocalSink,
	}
	t.idle.owner = t
	var err error
	if st.LocalSink {
		t.chain, t.url = []*StreamType{st}, new(Template)
		t.endpoint.target = &Target{Network: "sink"}
		if t.connector = c.sinkConnector; t.connector == nil {
			return nil, ErrNoSink
		}
		return t, nil
	}
	if t.chain, err = c.Rideshares(st); err != nil {
		return nil, err
	}
	for i := range st.Metadata {
		if st.Metadata[i].Header != "" {
			t.uses[i] |= inHeader
		}
	}
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
	if strings.HasPrefix(st.Endpoint, fileScheme) {
		t.connector = fileConnector{}
		return t, nil
	}
	transport, err := c.transport(st.Protocol)
	if err != nil {
		return nil, err
	}
	if t.connector, err = transport.Prepare(c, st); err != nil {
		return nil, err
	}
	return t, nil
}

// transport returns what speaks the protocol.
func (c *Context) transport(p Protocol) (Transport, error) {
	if t := c.transports[p]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("%w for protocol %v: put New() of package github.com/secure-streams/sspolicy/runtime/%s into Options.Transports",
		ErrNoTransport, p, transportPackages[p])
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
	case st.LocalSink && st.Rideshare != "":
		return unsupported("rideshare with local_sink")
	case st.LocalSink && st.DirectProtoStr:
		return unsupported("direct_proto_str with local_sink")
	case st.LocalSink:
		return nil // the rest is of a network
	case st.DirectProtoStr && st.Protocol > ProtocolH3:
		return unsupported("direct_proto_str over " + st.Protocol.String())
	case st.HTTP == nil && st.Protocol <= ProtocolWS, st.MQTT == nil && st.Protocol == ProtocolMQTT:
		return errors.New("the compiled policy lacks the settings of the protocol")
	}
	if strings.HasPrefix(st.Endpoint, fileScheme) {
		return nil // needs neither
	}
	if _, err := c.Proxy(st); err != nil {
		return err
	}
	return c.checkCredentials(st)
}
