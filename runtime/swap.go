package runtime

import (
	"errors"
	"fmt"
	"maps"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// SetPolicy makes p the policy of the context, which it keeps and never changes.
// New streams follow p. Existing streams whose streamtype p defines alike, to the
// last certificate, live on untouched. The others are destroyed: DISCONNECTED, if
// the stream was connected, and DESTROYING are delivered, and ErrPolicyChanged is
// returned by [Stream.Err] and by a Fetch or Conn. SetPolicy does not wait for
// that, and may be called from a callback. What the streams of a streamtype share,
// such as kept connections, is given up with the last of them.
//
// At no time does one part of the context have the new policy and another the old
// one. An error, ErrClosed or that p is nil, changes nothing.
//
// The caller ensures that p is sound: package sspolicy at the root of this module
// compiles a policy and refuses a bad one.
func (c *Context) SetPolicy(p *policy.Policy) error {
	_, err := c.setPolicy(nil, p)
	return err
}

// CompareAndSetPolicy is SetPolicy if old is the policy of the context, and does
// nothing otherwise. It reports which.
func (c *Context) CompareAndSetPolicy(old, p *policy.Policy) (set bool, err error) {
	if old == nil {
		return false, nil
	}
	return c.setPolicy(old, p)
}

// setPolicy sets the policy if it is old, or old is nil.
func (c *Context) setPolicy(old, p *policy.Policy) (set bool, err error) {
	gone, set, err := c.replace(old, p)
	if err != nil {
		return false, fmt.Errorf("sspolicy: set policy: %w", err)
	}
	if !set {
		return false, nil
	}
	for _, s := range gone {
		s.destroy(false, ErrPolicyChanged)
	}
	c.announcePolicy()
	return true, nil
}

// replace replaces the policy with p if it is old, or old is nil. It returns the
// streams that are to be destroyed.
func (c *Context) replace(old, p *policy.Policy) (gone []*Stream, set bool, err error) {
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
		// A stream that an Overlay has left behind goes on with the present type.
		now := c.types[s.t.stream.Name]
		if !same(s.t) && !(s.t.stale.Load() && now != nil && same(now)) {
			gone = append(gone, s)
		}
	}
	c.outdateLocked(same)
	c.policy.Store(p)
	return gone, true, nil
}

// Overlay makes p the policy of the context, and leaves the streams alone: nothing
// is disconnected, and each stream begins its next attempt with what p says about
// its streamtype. It is for a policy that differs little from the present one, as
// in tests; so p must have every streamtype of the present policy, else the error
// is ErrUnknownStreamType, and one that has streams must keep its protocol, else
// it is ErrUnsupported. Other errors are those of NewStream, for a streamtype that
// has streams. An error changes nothing.
//
// Values of metadata are kept by name. If one must not stand where p puts it, the
// attempts of that stream fail with ErrMetadataValue.
func (c *Context) Overlay(p *policy.Policy) error {
	if err := c.overlay(p); err != nil {
		return fmt.Errorf("sspolicy: overlay: %w", err)
	}
	c.announcePolicy()
	return nil
}

func (c *Context) overlay(p *policy.Policy) error {
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
	same := sameness(p)
	ready, err := c.makeAllReadyLocked(p, same)
	if err != nil {
		return err
	}
	c.outdateLocked(same)
	for _, t := range ready {
		c.lingerLocked(t)
	}
	maps.Copy(c.types, ready)
	c.policy.Store(p)
	return nil
}

// makeAllReadyLocked makes ready every streamtype of p that has streams and that p
// changes. After an error nothing is left of them.
func (c *Context) makeAllReadyLocked(p *policy.Policy, same func(*streamType) bool) (map[string]*streamType, error) {
	ready := map[string]*streamType{}
	for s := c.first; s != nil; s = s.next {
		name := s.t.stream.Name
		if ready[name] != nil || s.t.policy == nil {
			continue
		}
		if now := c.types[name]; now != nil && same(now) {
			continue
		}
		t, err := c.makeReady(p, name)
		if err == nil {
			ready[name] = t
			if old, now := s.t.stream.Protocol, t.stream.Protocol; old != now {
				err = fmt.Errorf("%w: protocol: a stream cannot change from %v to %v", ErrUnsupported, old, now)
			}
		}
		if err != nil {
			for _, t := range ready {
				c.retireLocked(t)
			}
			return nil, fmt.Errorf("streamtype %q: %w", name, err)
		}
	}
	return ready, nil
}

var errNoPolicy = errors.New("no policy")

// announcePolicy notifies the transports that want to know about a new policy.
func (c *Context) announcePolicy() {
	for _, t := range c.opts.Transports {
		if t, ok := t.(transport.PolicyObserver); ok {
			t.PolicyChanged()
		}
	}
}

func (c *Context) renew(s *Stream) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := s.t
	t, err := c.joinLocked(old.stream.Name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	meta, err := s.meta.moved(old, t)
	if err != nil {
		c.leaveLocked(t)
		return err
	}
	if old.stream.Carrier() != t.stream.Carrier() {
		s.attached = nil // the new transport would not understand it
	}
	s.meta, s.t, s.machine.Type = meta, t, t.stream
	c.leaveLocked(old)
	return nil
}

// sameness returns a function that reports whether p defines a streamtype as it
// is. No policy defines those of transports.
func sameness(p *policy.Policy) func(*streamType) bool {
	known := map[*streamType]bool{}
	return func(t *streamType) bool {
		same, ok := known[t]
		if !ok {
			same = t.policy == nil || t.policy == p || policy.Same(t.policy, p, t.stream.Name)
			known[t] = same
		}
		return same
	}
}
