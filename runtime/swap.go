package runtime

import (
	"errors"
	"fmt"
	"maps"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// SetPolicy makes p the policy of the context, which keeps and never changes it.
// New streams follow p. Existing streams are unaffected if p defines their
// streamtype identically, including certificates. The others are destroyed:
// DISCONNECTED, if the stream was connected, and DESTROYING are delivered, and
// [Stream.Err] and a Fetch or Conn return ErrPolicyChanged. SetPolicy does not wait
// for that, and may be called from a callback. Resources that the streams of a
// streamtype share, such as kept connections, are dropped with the last of these
// streams.
//
// The change is atomic for the whole context. After an error, which is ErrClosed or
// reports that p is nil, nothing has changed.
//
// The caller must make sure that p is valid: package sspolicy at the root of this
// module compiles a policy and rejects an invalid one.
func (c *Context) SetPolicy(p *policy.Policy) error {
	_, err := c.setPolicy(nil, p)
	return err
}

// CompareAndSetPolicy calls SetPolicy if old is the policy of the context. It
// reports whether it did.
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
// streams that must be destroyed.
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
	next := policy.NewIndex(p)
	same := sameness(next)
	for s := c.first; s != nil; s = s.next {
		// A stream that an Overlay left with an old type continues with the current
		// one.
		now := c.types[s.t.stream.Name]
		if !same(s.t) && !(s.t.stale.Load() && now != nil && same(now)) {
			gone = append(gone, s)
		}
	}
	c.outdateLocked(same)
	c.policy.Store(next)
	return gone, true, nil
}

// Overlay makes p the policy of the context without affecting connections: each
// stream begins its next attempt with the definition of its streamtype in p. It is
// for a policy that differs little from the current one, as in tests. The error is
// ErrUnknownStreamType if p lacks a streamtype of the current policy, and
// ErrUnsupported if a streamtype that has streams changes its protocol. For a
// streamtype that has streams, Overlay may also return the errors of NewStream.
// After an error nothing has changed.
//
// Metadata values are kept by name. If one is invalid where p uses it, the attempts
// of that stream fail with ErrMetadataValue.
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
	next := policy.NewIndex(p)
	for _, st := range c.Policy().StreamTypes {
		if next.StreamType(st.Name) == nil {
			return fmt.Errorf("%w: %q is not in the new policy", ErrUnknownStreamType, st.Name)
		}
	}
	same := sameness(next)
	ready, err := c.makeAllReadyLocked(next, same)
	if err != nil {
		return err
	}
	c.outdateLocked(same)
	for _, t := range ready {
		c.lingerLocked(t)
	}
	maps.Copy(c.types, ready)
	c.policy.Store(next)
	return nil
}

// makeAllReadyLocked prepares every streamtype of p that has streams and that p
// changes. After an error it has prepared none.
func (c *Context) makeAllReadyLocked(p *policy.Index, same func(*streamType) bool) (map[string]*streamType, error) {
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

// announcePolicy notifies the transports that observe the policy.
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

// sameness returns a function that reports whether p defines a streamtype
// identically. Streamtypes of transports are in no policy.
func sameness(p *policy.Index) func(*streamType) bool {
	known := map[*streamType]bool{}
	return func(t *streamType) bool {
		same, ok := known[t]
		if !ok {
			same = t.policy == nil || t.policy.Policy == p.Policy || policy.Same(t.policy, p, t.stream.Name)
			known[t] = same
		}
		return same
	}
}
