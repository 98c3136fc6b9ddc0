package policy

import (
	"math"
	"time"
)

// The defaults of lws 5.0.0: lib/core-net/sorted-usec-list.c for the wait,
// lib/core/context.c for a streamtype without a "retry".
const (
	defaultBackoff     = 3 * time.Second
	defaultJitter      = 30 // percent
	defaultValidPing   = 40 * time.Second
	defaultValidHangup = 50 * time.Second
)

// Delay returns the wait before the next attempt, in whole milliseconds. tries is
// the number of previous waits in the series; random is uniform over 0 to 65535. A
// nil Retry is like an empty one. The arithmetic is that of lws 5.0.0
// (lib/core-net/sorted-usec-list.c, lws_retry_get_delay_ms), applied to all of
// Backoff.
func (r *Retry) Delay(tries, random uint16) time.Duration {
	base := defaultBackoff
	percent := uint64(defaultJitter)
	if r != nil {
		if n := len(r.Backoff); n > 0 {
			base = r.Backoff[min(int(tries), n-1)]
		}
		if r.JitterPercent != 0 {
			percent = uint64(r.JitterPercent)
		}
	}
	ms := uint64(max(base, 0).Milliseconds())
	ms += ms * percent * uint64(random) / 65536 / 100
	return time.Duration(min(ms, math.MaxInt64/1_000_000)) * time.Millisecond
}

// shortestSteady is the minimum result of Steady.
const shortestSteady = 10 * time.Second

// Steady returns how long a connection must last to end a series of failures: the
// longest wait of the policy, but at least 10 s. So a stream tries ever more slowly
// to reach a peer that soon closes each connection, and two clients that displace
// each other wait. In lws every connection ends the series at once.
func (r *Retry) Steady() time.Duration {
	waits := 1
	if r != nil {
		waits = max(waits, min(len(r.Backoff), math.MaxUint16))
	}
	longest := shortestSteady
	for tries := range waits {
		longest = max(longest, r.Delay(uint16(tries), math.MaxUint16))
	}
	return longest
}

// Conceals reports whether a retry follows the given number of successive failures.
// A nil Retry conceals none. The caller must not count beyond 65535, so that a
// Conceal of 65535 conceals all.
func (r *Retry) Conceals(failures uint16) bool { return r != nil && failures <= r.Conceal }

// Validity returns how long a connection may last without proof that it works in
// both directions before it is probed and before it is closed; 0 means forever.
// Without a Retry they are 40 s and 50 s.
func (st *StreamType) Validity() (ping, hangup time.Duration) {
	if st.Retry == nil {
		return defaultValidPing, defaultValidHangup
	}
	return max(st.Retry.ValidPing, 0), max(st.Retry.ValidHangup, 0)
}
