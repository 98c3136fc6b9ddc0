package runtime

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/timers"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A streamType is a streamtype of a policy, prepared for execution in a context.
type streamType struct {
	r         *registry
	stream    *policy.StreamType
	policy    *policy.Index // that defines it; nil if a transport does
	setup     *transport.Setup
	carrier   policy.Protocol
	connector transport.Connector // nil for a server or with a remote
	remote    transport.Remote    // nil unless a driver executes the streams
	server    transport.Server    // nil for a client
	endpoint  policy.Endpoint
	url       *policy.Template
	uses      []policy.Use // of each metadata item
	chain     []*policy.StreamType

	stale   atomic.Bool  // replaced by another one; written under mu of the registry
	streams int          // number of streams of the type; guarded by mu of the registry
	idle    timers.Timer // ends the use of the type; runs while streams is 0
}

// run makes an attempt.
func (t *streamType) run(l *link) error {
	if t.remote != nil {
		return t.remote.Run(l.Context(), remoteLink{l})
	}
	return t.connector.Run(l.runContext(), l)
}

// linger is how long the resources that streams of a type share, such as
// connections and trust, are kept after the last stream for the next one.
const linger = 30 * time.Second

// A registry holds the streamtypes of a context.
type registry struct {
	policy     atomic.Pointer[policy.Index] // written under mu
	host       transport.Host
	driver     transport.Driver // executes all streams; nil to use the transports
	transports [policy.NumProtocols]transport.Transport
	builtIn    map[string]*policy.StreamType // defined by transports

	// mu also is the mu of the context. No other lock may be held when it is
	// acquired. The mu of a stream may be acquired while it is held.
	mu      sync.Mutex
	closed  bool
	types   map[string]*streamType   // those that have streams, or had some recently
	stale   map[*streamType]struct{} // those that have streams but get no new ones
	freeing sync.WaitGroup           // running calls of free and retire
}

// add registers a transport for its protocols.
func (r *registry) add(t transport.Transport) error {
	if t == nil {
		return errors.New("a transport is nil")
	}
	for _, p := range t.Protocols() {
		if int(p) >= len(r.transports) {
			return fmt.Errorf("transport %T speaks an unknown protocol %v", t, p)
		}
		if r.transports[p] != nil {
			return fmt.Errorf("two transports speak %v: %T and %T", p, r.transports[p], t)
		}
		r.transports[p] = t
	}
	if t, ok := t.(transport.StreamTyper); ok {
		for _, st := range t.StreamTypes() {
			if r.builtIn == nil {
				r.builtIn = make(map[string]*policy.StreamType)
			}
			r.builtIn[st.Name] = st
		}
	}
	return nil
}

// join returns the named streamtype for one more stream, and prepares it if
// necessary.
func (r *registry) join(name string) (*streamType, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.joinLocked(name)
}

func (r *registry) joinLocked(name string) (*streamType, error) {
	if r.closed {
		return nil, ErrClosed
	}
	t := r.types[name]
	if t == nil {
		var err error
		if t, err = r.makeReady(r.policy.Load(), name); err != nil {
			return nil, err
		}
		if r.types == nil {
			r.types = make(map[string]*streamType)
		}
		r.types[name] = t
	}
	if t.streams++; t.streams == 1 {
		r.host.Timers().Stop(&t.idle)
	}
	return t, nil
}

// leaveLocked removes a stream from the type.
func (r *registry) leaveLocked(t *streamType) {
	if t.streams--; t.streams > 0 || r.closed {
		return
	}
	if t.stale.Load() {
		r.retireLocked(t)
		return
	}
	r.lingerLocked(t)
}

// lingerLocked keeps a streamtype without streams for a while.
func (r *registry) lingerLocked(t *streamType) { r.host.Timers().Start(&t.idle, linger) }

// Expire is called when the type has had no stream for a while.
func (t *streamType) Expire(*timers.Timer) {
	go t.r.free(t) // a transport may take a while to close
}

// free ends the use of a streamtype that has no streams.
func (r *registry) free(t *streamType) {
	r.mu.Lock()
	if t.streams > 0 || r.closed || r.types[t.stream.Name] != t {
		r.mu.Unlock()
		return
	}
	delete(r.types, t.stream.Name)
	r.freeing.Add(1)
	r.mu.Unlock()
	defer r.freeing.Done()
	t.close()
}

// retireLocked closes a streamtype that has no streams.
func (r *registry) retireLocked(t *streamType) {
	delete(r.stale, t)
	r.freeing.Add(1)
	go func() {
		defer r.freeing.Done()
		t.close()
	}()
}

// outdateLocked makes the types stale for which same returns false.
func (r *registry) outdateLocked(same func(*streamType) bool) {
	for name, t := range r.types {
		if same(t) {
			continue
		}
		delete(r.types, name)
		t.stale.Store(true)
		if t.streams == 0 {
			r.host.Timers().Stop(&t.idle)
			r.retireLocked(t)
			continue
		}
		if r.stale == nil {
			r.stale = make(map[*streamType]struct{})
		}
		r.stale[t] = struct{}{}
	}
}

// close closes the connections of a streamtype and drops its trust. It waits for a
// transport for at most abandonAfter.
func (t *streamType) close() {
	defer t.r.host.Drop(t.setup)
	var err error
	switch {
	case t.remote != nil:
		err = closeInTime(t.remote)
	case t.connector != nil:
		err = closeInTime(t.connector)
	}
	if err != nil {
		t.setup.Logger().Warn("sspolicy: closing a transport", "streamtype", t.stream.Name, "err", err)
	}
}

// closeInTime calls c.Close. It returns ErrTimeout if that takes longer than
// abandonAfter.
func closeInTime(c io.Closer) error {
	done := make(chan error, 1)
	go func() { done <- c.Close() }()
	late := time.NewTimer(abandonAfter)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return ErrTimeout
	}
}

// makeReady prepares the named streamtype of a policy or of a transport. The error
// is one of those listed at NewStream.
func (r *registry) makeReady(p *policy.Index, name string) (*streamType, error) {
	if r.driver != nil {
		return r.drive(p, name)
	}
	t := &streamType{r: r, stream: p.Effective(name), policy: p}
	if t.stream == nil {
		t.stream, t.policy = r.builtIn[name], nil
	}
	if t.stream == nil {
		return nil, ErrUnknownStreamType
	}
	st := t.stream
	carrier := st.Carrier()
	if err := r.check(st, carrier); err != nil {
		return nil, err
	}
	tr := r.transports[carrier]
	if tr == nil {
		return nil, fmt.Errorf("%w for protocol %v: put New() of package github.com/secure-streams/sspolicy/runtime/%s into Options.Transports",
			ErrNoTransport, carrier, carrier.Dir())
	}
	t.carrier = carrier
	t.uses = make([]policy.Use, len(st.Metadata))
	t.idle.Owner = t
	if err := t.resolve(p, carrier); err != nil {
		return nil, err
	}
	var err error
	if t.setup, err = r.host.Setup(st, t.chain); err != nil {
		return nil, err
	}
	if st.Server {
		var ok bool
		if t.server, ok = tr.(transport.Server); !ok {
			return nil, fmt.Errorf("%w: server over %v", ErrUnsupported, carrier)
		}
		return t, nil
	}
	if t.connector, err = tr.Prepare(t.setup); err != nil {
		return nil, err
	}
	return t, nil
}

// resolve parses the texts of the streamtype that hold metadata.
func (t *streamType) resolve(p *policy.Index, carrier policy.Protocol) (err error) {
	st := t.stream
	if carrier == policy.ProtocolSink || carrier == policy.ProtocolSMD {
		t.chain, t.url = []*policy.StreamType{st}, new(policy.Template)
		t.endpoint = policy.NoEndpoint(carrier)
		return nil
	}
	if st.Server {
		t.chain, t.url = []*policy.StreamType{st}, new(policy.Template)
		t.endpoint = policy.NoEndpoint(carrier)
	} else if t.chain, err = p.Chain(st); err != nil {
		return err
	}
	for i := range st.Metadata {
		if st.Metadata[i].Header != "" {
			t.uses[i] |= policy.UseHeader
		}
	}
	if st.Server {
		return nil
	}
	if t.endpoint, err = policy.NewEndpoint(st, t.uses); err != nil {
		return err
	}
	template := ""
	if st.HTTP != nil {
		template = st.HTTP.URL
	}
	if t.url, err = policy.ParseURL(template, st.Metadata, t.uses); err != nil {
		return fmt.Errorf("http_url: %w", err)
	}
	if m := st.MQTT; m != nil {
		for _, k := range [][2]string{
			{"mqtt_topic", m.Topic}, {"mqtt_subscribe", m.Subscribe}, {"mqtt_will_topic", m.WillTopic}, {"mqtt_birth_topic", m.BirthTopic},
		} {
			if _, err := policy.ParseTopic(k[1], st.Metadata, t.uses); err != nil {
				return fmt.Errorf("%s: %w", k[0], err)
			}
		}
	}
	return nil
}

// check rejects a streamtype that requires a feature that no transport supports.
// Keys that only affect how well it is executed are accepted; see docs/runtime.md.
func (r *registry) check(st *policy.StreamType, carrier policy.Protocol) error {
	p := st.Protocol
	why := ""
	switch {
	case int(p) >= policy.NumProtocols:
		why = p.String()
	case st.Server && st.LocalSink:
		why = "server with local_sink"
	case st.LocalSink && st.Rideshare != "":
		why = "rideshare with local_sink"
	case st.LocalSink && st.DirectProtoStr:
		why = "direct_proto_str with local_sink"
	case carrier == policy.ProtocolSink || carrier == policy.ProtocolSMD:
		return nil // the rest is about a network
	case st.DirectProtoStr && !p.IsHTTP():
		why = "direct_proto_str over " + p.String()
	case st.HTTP == nil && (p.IsHTTP() || p == policy.ProtocolWS), st.MQTT == nil && p == policy.ProtocolMQTT:
		return errors.New("the compiled policy lacks the settings of the protocol")
	case carrier == policy.ProtocolFile, st.Server:
		return nil
	default:
		return r.host.CheckCredentials(st)
	}
	return fmt.Errorf("%w: %s", ErrUnsupported, why)
}
