package runtime

import (
	"math"
	"time"
)

const (
	// fallbackBackoff is the wait of a policy whose backoff table is empty.
	fallbackBackoff = 3 * time.Second
	// fallbackJitter is what a jitter of 0 per cent means in lws.
	fallbackJitter = 30
)

// delay returns how long to wait before the next attempt, when tries have
// failed in this series before. random is uniform over 0 to 65535. The
// arithmetic, in whole milliseconds, is that of lws 5.0.0 (lib/core-net/
// sorted-usec-list.c, lws_retry_get_delay_ms) with the whole of the table.
func (r *Retry) delay(tries, random uint16) time.Duration {
	base := fallbackBackoff
	percent := uint64(fallbackJitter)
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

// conceals reports whether the failure that made the number of them tries is
// followed by another attempt. A Conceal of 65535 conceals all, since tries is
// never more.
func (r *Retry) conceals(tries uint16) bool {
	return r != nil && tries <= r.Conceal
}
