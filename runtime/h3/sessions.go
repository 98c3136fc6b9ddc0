package h3

import "crypto/tls"

// copyingCache is a cache of TLS sessions that returns copies. quic-go (0.65.0)
// writes to the session that it resumes, and concurrent dials may get the same one
// from a cache.
type copyingCache struct{ tls.ClientSessionCache }

func (c copyingCache) Get(key string) (*tls.ClientSessionState, bool) {
	s, ok := c.ClientSessionCache.Get(key)
	if !ok || s == nil {
		return nil, false
	}
	ticket, state, err := s.ResumptionState()
	if err != nil || state == nil {
		return nil, false
	}
	b, err := state.Bytes()
	if err != nil {
		return nil, false
	}
	if state, err = tls.ParseSessionState(b); err != nil {
		return nil, false
	}
	s, err = tls.NewResumptionState(ticket, state)
	return s, err == nil
}
