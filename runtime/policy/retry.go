package policy

import (
	"math"
	"time"
)

// Defaults of lws 5.0.0: lib/core-net/sorted-usec-list.c for the wait,
// lib/core/context.c for a streamtype without a "retry".
const (
	defaultBackoff     = 3 * time.Second
	defaultJitter      = 30 // percent
	defaultValidPing   = 40 * time.Second
	defaultValidHangup = 50 * time.Second
)

// Delay returns how long to wait before the next attempt after tries failures in
// this series. random is uniform over 0 to 65535. A nil Retry waits 3 s and up
// to 30 % more. The arithmetic, in whole milliseconds, is that of lws 5.0.0
// (lib/core-net/sorted-usec-list.c, lws_retry_get_delay_ms) on the whole table.
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

// Conceals reports whether another attempt follows the given number of failures
// in a row. A Conceal of 65535 conceals all of them. A nil Retry conceals none.
func (r *Retry) Conceals(failures uint16) bool { return r != nil && failures <= r.Conceal }

// Validity returns how long a connection may go without proof that it works in
// both directions before it is probed, and before it is closed; 0 means never.
// Without a retry in the policy they are 40 s and 50 s.
func (st *StreamType) Validity() (ping, hangup time.Duration) {
	if st.Retry == nil {
		return defaultValidPing, defaultValidHangup
	}
	return max(st.Retry.ValidPing, 0), max(st.Retry.ValidHangup, 0)
}
