package sspc_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspctrace"
	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// FuzzProxy sends the bytes of a hostile proxy. The link closes or continues, and the
// stream works on the next one.
func FuzzProxy(f *testing.F) {
	links, err := sspctrace.Links()
	if err != nil {
		f.Fatal(err)
	}
	for _, l := range links {
		if b := l.Bytes(true); len(b) < 4000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			p, c := newProxied(t, runtime.Options{})
			tr := &program{out: []piece{{"hello", both}}}
			s := teststream.Must(c.NewStream("get", tr.handlers(), runtime.WithMetadata("m", "v")))
			s.RequestTxLen(5)
			s.StartTimeout(time.Hour)
			p.link(1).send(b)
			p.survives(s)
		})
	})
}

// TestRandomProxy sends frames in random order, some of them damaged.
func TestRandomProxy(t *testing.T) {
	whole := [][]byte{created("s"), created(), rx("data", both), rx("", policy.FlagEOM), rx("x", 0),
		sspcwire.AppendCreateResult(nil, sspcwire.CreateResult{Failure: 1}),
		sspcwire.AppendCredit(nil, sspcwire.FromProxy, -1),
		teststream.Must(sspcwire.AppendMetadata(nil, sspcwire.FromProxy, "m", "v")),
		teststream.Must(sspcwire.AppendPerf(nil, []byte("{}"))),
	}
	for s := policy.StateCreating; s <= policy.StateSinkPart; s++ {
		whole = append(whole, states(s))
	}
	whole = append(whole, states(policy.StateUserBase))
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		tr := &program{}
		s := teststream.Must(c.NewStream("s", tr.handlers()))
		n := 1
		for seed := range uint64(300) {
			r := rand.New(rand.NewPCG(seed, 1))
			l := p.link(n)
			if r.IntN(8) > 0 {
				l.send(created("s"))
			}
			for range 20 {
				b := append([]byte(nil), whole[r.IntN(len(whole))]...)
				switch r.IntN(12) {
				case 0:
					b[r.IntN(len(b))] ^= byte(1 << r.IntN(8))
				case 1:
					b = b[:r.IntN(len(b))]
				}
				l.send(b)
				switch r.IntN(6) {
				case 0:
					s.RequestTx()
				case 1:
					s.Connect()
				case 2:
					s.StartTimeout(time.Duration(r.IntN(3)) * time.Second)
				case 3:
					s.CancelTimeout()
				}
			}
			l.Close()
			time.Sleep(time.Second + time.Millisecond)
			if n++; p.count() != n {
				t.Fatalf("seed %d: %d links, want %d; %v", seed, p.count(), n, s.Err())
			}
		}
		p.survives(s)
	})
}
