package runtime

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/timers"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A streamType is a streamtype of a policy, ready to be executed in a context.
type streamType struct {
	c         *Context
	stream    *policy.StreamType
	policy    *policy.Policy // that it is from; nil if a transport brings it
	setup     *transport.Setup
	connector transport.Connector
	endpoint  policy.Endpoint
	url       *policy.Template
	uses      []policy.Use // of each metadata item
	chain     []*policy.StreamType

	stale   atomic.Bool  // there is another one now; written under mu of the context
	streams int          // of the type; guarded by mu of the context
	idle    timers.Timer // ends the use of the type; runs while streams is 0
}

// linger is how long what streams of a type share, such as connections and trust,
// is kept for the next stream when the last one is gone.
const linger = 30 * time.Second

// join returns the named streamtype for one more stream, and makes it ready if it
// is not.
func (c *Context) join(name string) (*streamType, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.joinLocked(name)
}

func (c *Context) joinLocked(name string) (*streamType, error) {
	if c.closed {
		return nil, ErrClosed
	}
	t := c.types[name]
	if t == nil {
		var err error
		if t, err = c.makeReady(c.Policy(), name); err != nil {
			return nil, err
		}
		if c.types == nil {
			c.types = make(map[string]*streamType)
		}
		c.types[name] = t
	}
	if t.streams++; t.streams == 1 {
		c.timers.Stop(&t.idle)
	}
	return t, nil
}

// leaveLocked takes a stream of the type away.
func (c *Context) leaveLocked(t *streamType) {
	if t.streams--; t.streams > 0 || c.closed {
		return
	}
	if t.stale.Load() {
		c.retireLocked(t)
		return
	}
	c.timers.Start(&t.idle, linger)
}

// Expire is called when the type has had no stream for a while.
func (t *streamType) Expire(*timers.Timer) {
	go t.c.free(t) // a transport may take its time to close
}

// free ends the use of a streamtype that has no streams.
func (c *Context) free(t *streamType) {
	c.mu.Lock()
	if t.streams > 0 || c.closed || c.types[t.stream.Name] != t {
		c.mu.Unlock()
		return
	}
	delete(c.types, t.stream.Name)
	c.freeing.Add(1)
	c.mu.Unlock()
	defer c.freeing.Done()
	t.close()
}

// close closes the connections of a streamtype and gives up its trust.
func (t *streamType) close() {
	if err := t.connector.Close(); err != nil {
		t.c.log.Warn("sspolicy: closing a transport", "streamtype", t.stream.Name, "err", err)
	}
	t.setup.Release()
}

// find returns the named streamtype of a policy, or of a transport, and the policy.
func (c *Context) find(p *policy.Policy, name string) (*policy.StreamType, *policy.Policy) {
	if st := p.Effective(name); st != nil {
		return st, p
	}
	return c.builtIn[name], nil
}

// makeReady prepares the named streamtype of a policy. The error is one of those
// that NewStream lists.
func (c *Context) makeReady(p *policy.Policy, name string) (*streamType, error) {
	st, from := c.find(p, name)
	if st == nil {
		return nil, ErrUnknownStreamType
	}
	carrier := st.Carrier()
	if err := c.check(st, carrier); err != nil {
		return nil, err
	}
	tr := c.transports[carrier]
	if tr == nil {
		return nil, fmt.Errorf("%w for protocol %v: put New() of package github.com/secure-streams/sspolicy/runtime/%s into Options.Transports",
			ErrNoTransport, carrier, carrier.Dir())
	}
	t := &streamType{c: c, stream: st, policy: from, uses: make([]policy.Use, len(st.Metadata))}
	t.idle.Owner = t
	if err := t.resolve(p, carrier); err != nil {
		return nil, err
	}
	var err error
	if t.setup, err = c.env.Setup(st, t.chain); err != nil {
		return nil, err
	}
	if t.connector, err = tr.Prepare(t.setup); err != nil {
		return nil, err
	}
	return t, nil
}

// resolve parses the texts of the streamtype that hold metadata.
func (t *streamType) resolve(p *policy.Policy, carrier policy.Protocol) (err error) {
	st := t.stream
	if carrier == policy.ProtocolSink || carrier == policy.ProtocolSMD {
		t.chain, t.url = []*policy.StreamType{st}, new(policy.Template)
		t.endpoint = policy.NoEndpoint(carrier)
		return nil
	}
	if t.chain, err = p.Chain(st); err != nil {
		return err
	}
	for i := range st.Metadata {
		if st.Metadata[i].Header != "" {
			t.uses[i] |= policy.UseHeader
		}
	}
	if t.endpoint, err = policy.NewEndpoint(st, t.uses); err != nil {
		return err
	}
	url := ""
	if st.HTTP != nil {
		url = st.HTTP.URL
	}
	if t.url, err = policy.ParseTemplate(url, st.Metadata); err != nil {
		return fmt.Errorf("http_url: %w", err)
	}
	t.url.Mark(t.uses, policy.UseURL)
	return nil
}

// check refuses a streamtype that requires what no transport does. What would only
// change how well it is executed passes; see docs/runtime.md.
func (c *Context) check(st *policy.StreamType, carrier policy.Protocol) error {
	unsupported := func(key string) error {
		return fmt.Errorf("%w: %s", ErrUnsupported, key)
	}
	switch {
	case int(st.Protocol) >= policy.NumProtocols:
		return unsupported(st.Protocol.String())
	case st.Server:
		return unsupported("server")
	case st.LocalSink && st.Rideshare != "":
		return unsupported("rideshare with local_sink")
	case st.LocalSink && st.DirectProtoStr:
		return unsupported("direct_proto_str with local_sink")
	case carrier == policy.ProtocolSink || carrier == policy.ProtocolSMD:
		return nil // the rest is about a network
	case st.DirectProtoStr && !st.Protocol.IsHTTP():
		return unsupported("direct_proto_str over " + st.Protocol.String())
	case st.HTTP == nil && (st.Protocol.IsHTTP() || st.Protocol == policy.ProtocolWS), st.MQTT == nil && st.Protocol == policy.ProtocolMQTT:
		return errors.New("the compiled policy lacks the settings of the protocol")
	case carrier == policy.ProtocolFile:
		return nil
	}
	return c.env.CheckCredentials(st)
}
