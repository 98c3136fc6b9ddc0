package mqtt

import "slices"

// A subscription is a filter of the connection, with the streams that use it.
type subscription struct {
	filter string
	refs   int
	level  byte    // highest QoS of a SUBSCRIBE so far, plus 1
	latest *outMsg // that SUBSCRIBE
}

// subscribe makes sure that the server has the filter of the policy.
func (st *stream) subscribe() error {
	if st.filter == "" {
		return nil
	}
	c, qos := st.c, st.n.st.MQTT.QoS
	c.mu.Lock()
	m, err := c.subscribeLocked(st, qos)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err := st.await(func() bool { return m.done }); err != nil {
		return err
	}
	if m.failed {
		return ErrSubscribe
	}
	return nil
}

// subscribeLocked adds a stream to the subscription of its filter. It returns the
// SUBSCRIBE whose answer the stream must wait for.
func (c *conn) subscribeLocked(st *stream, qos byte) (*outMsg, error) {
	if c.err != nil {
		return nil, c.err
	}
	s := c.subs[st.filter]
	if s == nil {
		s = &subscription{filter: st.filter}
		if qos, ok := c.sess.filters[st.filter]; ok { // the server has it from an earlier connection
			s.level, s.latest = qos+1, &outMsg{done: true}
		}
		c.subs[st.filter] = s
	}
	s.refs++
	st.sub = s
	if s.level > qos {
		return s.latest, nil
	}
	m := &outMsg{kind: typeSubscribe, sub: s, qos: qos}
	s.level, s.latest = qos+1, m
	if err := c.useLocked(m); err != nil {
		return nil, err
	}
	c.w.post(func(b []byte) []byte { return appendSubscribe(b, m.id, qos, s.filter) })
	return m, nil
}

// subscribed handles a SUBACK.
func (c *conn) subscribed(id uint16, codes []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.liveness.validity.Confirm()
	if c.err != nil {
		return c.err
	}
	m := c.sess.out[id]
	if m == nil || m.kind != typeSubscribe {
		return malformed("a SUBACK of nothing")
	}
	c.sess.free(m)
	want := 1
	if m.sub == nil {
		want = 2 // of a shadow
	}
	if len(codes) != want { // [MQTT-3.8.4-5]
		return malformed("a SUBACK with %d codes for %d filters", len(codes), want)
	}
	m.done, m.failed = true, slices.Contains(codes, subscribeFailed)
	if s := m.sub; s != nil {
		switch inUse := c.subs[s.filter] == s; {
		case m.failed:
			delete(c.sess.filters, s.filter)
			if inUse {
				delete(c.subs, s.filter) // the next stream tries again
			}
		case inUse:
			c.sess.filters[s.filter] = m.qos
		}
	}
	for _, st := range c.streams {
		st.wakeUp()
	}
	return nil
}

// unsubscribeLocked sends an UNSUBSCRIBE, unless the connection has ended.
func (c *conn) unsubscribeLocked(filter string) *outMsg {
	m := &outMsg{kind: typeUnsubscribe, answer: make(chan struct{})}
	if c.useLocked(m) != nil {
		return nil
	}
	delete(c.sess.filters, filter)
	c.w.post(func(b []byte) []byte { return appendUnsubscribe(b, m.id, filter) })
	return m
}

// dropShadowLocked drops the filters of a shadow that no stream has.
func (c *conn) dropShadowLocked(filters []string) {
	for _, f := range filters {
		if c.err == nil && !slices.ContainsFunc(c.streams, func(st *stream) bool { return slices.Contains(st.shadow.filters, f) }) {
			c.unsubscribeLocked(f)
		}
	}
}

// attachLocked adds a stream to the connection.
func (c *conn) attachLocked(st *stream) {
	st.c = c
	c.streams = append(c.streams, st)
	c.retired = false
	if c.kept { // it would not get these messages
		c.failLocked(errHandOver)
	}
	if len(c.streams) == 2 && c.err == nil {
		c.liveness.slow.Reset(slowAfter)
	}
}

// detachLocked removes a stream from the connection. It returns the UNSUBSCRIBE to
// wait for, or nil. The last stream of a connection that ends without unsubscribing
// leaves its messages, and those that still arrive, to the next connection if the
// server keeps the session; handOver reports whether there are any.
func (c *conn) detachLocked(st *stream, unsubscribe bool) (m *outMsg, handOver bool) {
	c.streams = slices.DeleteFunc(c.streams, func(o *stream) bool { return o == st })
	c.retired = !unsubscribe && !c.set.clean && len(c.streams) == 0 && c.err == nil
	handOver = st.dropLocked(c.retired)
	if c.err == nil {
		for _, m := range st.out.inflight {
			m.st = nil
		}
	}
	s := st.sub
	st.sub = nil
	if s == nil {
		return nil, handOver
	}
	s.refs--
	if s.refs > 0 || c.subs[s.filter] != s || c.err != nil || !unsubscribe && len(c.streams) == 0 {
		return nil, handOver
	}
	delete(c.subs, s.filter)
	return c.unsubscribeLocked(s.filter), handOver
}
