package runtime

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"time"
)

// SetPolicy makes p the policy of the context, which it keeps and never changes.
// New streams are made by p. Of the streams that there are, those live on
// untouched of whose streamtype p says the same, to the last certificate. The
// others are destroyed: DISCONNECTED, if the stream was connected, and
// DESTROYING are delivered, [Stream.Err] is ErrPolicyChanged, and so is the error
// of a Fetch or Conn. SetPolicy does not wait for that, and may be called from
// inside a callback. What the streams of a streamtype had in common, such as
// kept connections, is given up with the last of them.
//
// There is no time at which one part of the context has the new policy and
// another the old one. An error, ErrClosed or that p is nil, changes nothing.
// ClassSystemState of SMD is told that there is a new policy.
//
// It is up to the caller that p is sound: package
// github.com/secure-streams/sspolicy/load makes a policy of a text and refuses a
// bad one.
func (c *Context) SetPolicy(p *Policy) error {
	_, err := c.setPolicy(nil, p)
	return err
}

// CompareAndSetPolicy is SetPolicy if old is the policy of the context, and else
// does nothing. It reports which.
func (c *Context) CompareAndSetPolicy(old, p *Policy) (set bool, err error) {
	if old == nil {
		return false, nil
	}
	return c.setPolicy(old, p)
}

// setPolicy sets the policy if it is old, or old is nil.
func (c *Context) setPolicy(old, p *Policy) (set bool, err error) {
	gone, set, err := c.replace(old, p)
	if err != nil {
		return false, fmt.Errorf("sspolicy: set policy: %w", err)
	}
	if !set {
		return false, nil
	}
	for _, s := range gone {
		s.mu.Lock()
		x := s.x
		s.mu.Unlock()
		s.destroy(false, ErrPolicyChanged)
		if x != nil { // it may be waiting for someone to read
			x.replaced()
		}
	}
	c.announcePolicy()
	return true, nil
}

// replace puts p in the place of the policy, if that is old or old is nil. It
// returns the streams that are to go.
func (c *Context) replace(old, p *Policy) (gone []*Stream, set bool, err error) {
	if p == nil {
		return nil, false, errNoPolicy
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, false, ErrClosed
	case old != nil && c.Policy() != old:
		return nil, false, nil
	}
	same := sameness(p)
	for s := c.first; s != nil; s = s.next {
		// One that an Overlay has left behind is to go on with what there is now.
		now := c.types[s.t.policy.Name]
		if !same(s.t) && !(s.t.stale.Load() && now != nil && same(now)) {
			gone = append(gone, s)
		}
	}
	for name, t := range c.types {
		if !same(t) {
			delete(c.types, name)
			c.outdate(t)
		}
	}
	c.policy.Store(p)
	return gone, true, nil
}

// Overlay makes p the policy of the context, and leaves the streams alone:
// nothing is disconnected, and each stream begins its next attempt with what p
// says of its streamtype. It is for a policy that is the present one with small
// changes, as for tests; so every streamtype of the present policy must be in p,
// else the error is ErrUnknownStreamType, and one that has streams must be of the
// same protocol, else it is ErrUnsupported. An error may also be that of
// NewStream, if a streamtype that has streams can not be executed as p has it. An
// error changes nothing.
//
// Values of metadata are kept by name. If one must not stand where p puts it,
// the attempts of that stream fail with ErrMetadataValue.
func (c *Context) Overlay(p *Policy) error {
	err := c.overlay(p)
	if err != nil {
		return fmt.Errorf("sspolicy: overlay: %w", err)
	}
	c.announcePolicy()
	return nil
}

func (c *Context) overlay(p *Policy) error {
	if p == nil {
		return errNoPolicy
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	for _, st := range c.Policy().StreamTypes {
		if p.StreamType(st.Name) == nil {
			return fmt.Errorf("%w: %q is not in the new policy", ErrUnknownStreamType, st.Name)
		}
	}
	// All that has streams is made ready before anything is changed.
	same := sameness(p)
	ready := map[string]*streamType{}
	c.next.Store(p)
	defer c.next.Store(nil)
	for s := c.first; s != nil; s = s.next {
		name := s.t.policy.Name
		if ready[name] != nil || s.t.of == nil {
			continue
		}
		if now := c.types[name]; now != nil && same(now) {
			continue
		}
		t, err := c.makeReady(name)
		if err == nil && t.policy.Protocol != s.t.policy.Protocol {
			// What a transport keeps with a stream means nothing to another one.
			c.retire(t)
			err = fmt.Errorf("%w: protocol: a stream can not change from %v to %v", ErrUnsupported, s.t.policy.Protocol, t.policy.Protocol)
		}
		if err != nil {
			for _, t := range ready {
				c.retire(t)
			}
			return fmt.Errorf("streamtype %q: %w", name, err)
		}
		ready[name] = t
	}
	for name, t := range c.types {
		if !same(t) {
			delete(c.types, name)
			c.outdate(t)
		}
	}
	for _, t := range ready {
		c.timers.start(&t.idle, linger)
	}
	maps.Copy(c.types, ready)
	c.policy.Store(p)
	return nil
}

var errNoPolicy = errors.New("no policy")

// announcePolicy says that there is a new policy, in the words of lws 5.0.0.
func (c *Context) announcePolicy() {
	_ = c.smd.Send(ClassSystemState, fmt.Appendf(nil, `{"policy":"updated","ts":%d}`, time.Now().Unix()))
}

// outdate says that there will be no more streams of a type. c.mu is held.
func (c *Context) outdate(t *streamType) {
	t.stale.Store(true)
	if t.streams == 0 {
		c.timers.stop(&t.idle)
		c.retire(t)
		return
	}
	if c.stale == nil {
		c.stale = make(map[*streamType]struct{})
	}
	c.stale[t] = struct{}{}
}

// retire closes a streamtype that is in use no more. c.mu is held.
func (c *Context) retire(t *streamType) {
	delete(c.stale, t)
	c.freeing.Add(1)
	go func() {
		defer c.freeing.Done()
		c.closeType(t)
	}()
}

// renew makes a stream one of the type that there is by now. The caller has the
// turn, and no attempt is under way. After an error the stream is what it was.
func (s *Stream) renew() error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	old := s.t
	t, err := c.join(old.policy.Name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var meta []metadataValue
	for i, v := range s.own() {
		j := itemIndex(t.policy.Metadata, old.policy.Metadata[i].Name)
		if !v.set || j < 0 {
			continue
		}
		if err := t.uses[j].check(v.text); err != nil {
			c.leave(t)
			return fmt.Errorf("metadata %q: %w", old.policy.Metadata[i].Name, err)
		}
		if meta == nil {
			meta = make([]metadataValue, len(t.policy.Metadata))
		}
		meta[j] = v
	}
	if !t.policy.DirectProtoStr {
		s.direct = nil
	}
	s.meta, s.t = meta, t
	c.leave(old)
	return nil
}

// effective returns the streamtype with this name, with what it inherits from
// the policy; nil if there is none.
func (p *Policy) effective(name string) *StreamType {
	st := p.StreamType(name)
	if st == nil || st.SOCKS5Proxy != "" || p.SOCKS5Proxy == "" {
		return st
	}
	inherits := *st
	inherits.SOCKS5Proxy = p.SOCKS5Proxy
	return &inherits
}

// sameness returns a function that reports whether p says of a streamtype what
// it is. What the built-in ones are no policy says.
func sameness(p *Policy) func(*streamType) bool {
	known := map[*streamType]bool{}
	return func(t *streamType) bool {
		same, ok := known[t]
		if !ok {
			same = t.of == nil || t.of == p || sameStream(t.of, p, t.policy.Name)
			known[t] = same
		}
		return same
	}
}

// sameStream reports whether two policies say the same of a streamtype and of
// those that share its transaction.
func sameStream(p, q *Policy, name string) bool {
	for range p.StreamTypes {
		a, b := p.effective(name), q.effective(name)
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
