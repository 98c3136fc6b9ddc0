package farm

import (
	"bytes"
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/runtime/tlssession"
)

// A ticketKey is a ticket key with its creation time.
type ticketKey struct {
	made time.Time
	key  [tlssession.KeySize]byte
}

// A keySet holds ticket keys, the newest first. All members that know the same keys
// have the same order, whoever made them: after a partition the sets are merged.
type keySet []ticketKey

// merge returns the newest keys of two sets, and whether b has added any.
func (a keySet) merge(b keySet, limit int, now time.Time) (merged keySet, changed bool) {
	if !slices.ContainsFunc(b, func(k ticketKey) bool { return !slices.Contains(a, k) }) {
		return a, false
	}
	merged = slices.Clone(a)
	for _, k := range b {
		if k.key != ([tlssession.KeySize]byte{}) && !k.made.After(now.Add(maxAge)) {
			merged = append(merged, k)
		}
	}
	slices.SortFunc(merged, func(a, b ticketKey) int {
		if c := b.made.Compare(a.made); c != 0 {
			return c
		}
		return bytes.Compare(a.key[:], b.key[:])
	})
	merged = slices.CompactFunc(merged, func(a, b ticketKey) bool { return a == b })
	merged = merged[:min(len(merged), limit)]
	return merged, !slices.Equal(a, merged)
}

// data returns the keys for tlssession.Keys, in which the first one encrypts: the
// newest that all members have had time to learn.
func (a keySet) data(now time.Time, grace time.Duration) []byte {
	use := slices.IndexFunc(a, func(k ticketKey) bool { return !k.made.Add(grace).After(now) })
	if use < 0 {
		use = len(a) - 1
	}
	var data []byte
	if use >= 0 {
		data = append(data, a[use].key[:]...)
	}
	for i, k := range a {
		if i != use {
			data = append(data, k.key[:]...)
		}
	}
	return data
}
