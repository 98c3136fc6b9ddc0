package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// draws is a source of random numbers. Each name has its own, so the order in which
// goroutines draw does not matter. It is not safe for concurrent use.
type draws struct {
	*rand.Rand
	skew time.Duration // fraction of a millisecond, unique to the name
}

// fork returns the source for a name.
func fork(seed uint64, name ...any) draws {
	h := sha256.Sum256([]byte(fmt.Sprintln(name...)))
	x := binary.LittleEndian.Uint64(h[:])
	return draws{rand.New(rand.NewPCG(seed, x)), time.Duration(1 + x%999_983)}
}

// oneIn returns true once in n calls on average.
func (d draws) oneIn(n int) bool { return d.IntN(n) == 0 }

// ms returns a duration of lo to hi milliseconds.
func (d draws) ms(lo, hi int) time.Duration {
	return time.Duration(lo+d.IntN(hi-lo+1)) * time.Millisecond
}

// at returns an instant about after from now. Each call uses another fraction of a
// millisecond, since waits are whole milliseconds and would otherwise coincide.
func (d *draws) at(now time.Time, after time.Duration) time.Time {
	t := now.Add(after).Truncate(time.Millisecond).Add(d.skew)
	d.skew = (d.skew+7919)%999_983 + 1
	if !t.After(now) {
		t = t.Add(time.Millisecond)
	}
	return t
}

// instant returns the first at of a source.
func instant(d draws, now time.Time, after time.Duration) time.Time { return d.at(now, after) }

// clockReader is a source of cryptographic randomness. Its output depends on the instant
// and on what was read at that instant. It does not depend on earlier reads, whose number
// may vary between runs.
type clockReader struct {
	seed uint64

	mu  sync.Mutex
	now time.Time
	src *rand.ChaCha8
}

func (r *clockReader) Read(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.src == nil || !now.Equal(r.now) {
		r.now, r.src = now, rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, r.seed, now.UnixNano())))
	}
	return r.src.Read(b)
}
