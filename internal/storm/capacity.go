package storm

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Search is the result of FindCapacity.
type Search struct {
	// Capacity is the minimum number of handshakes per second with which 99 % of the
	// devices come back. Result is the simulation with it.
	Capacity float64
	Result   *Result

	// Outage and Calm hold the share of the devices that are connected at the end,
	// by capacity: after the outage, and without it. Between the two lines the
	// system stays in its state, up or down.
	Outage, Calm []Share
}

// A Share is the part of a fleet that is connected.
type Share struct{ Capacity, Connected float64 }

// ErrNoCapacity is returned when the fleet does not come back even with a server of
// unlimited capacity.
var ErrNoCapacity = errors.New("no capacity is enough")

// precision is the relative precision of the smallest capacity.
const precision = 0.01

// FindCapacity searches for the smallest capacity with which a fleet comes back.
func FindCapacity(c Client, s Scenario) (*Search, error) {
	s.Capacity = 0
	f, err := newFleet(&c, &s)
	if err != nil {
		return nil, err
	}
	at := s.runner(&c, f)
	enough := func(r *Result) bool { return r.Back.P99 != Never }
	if r := at(0); !enough(r) {
		return nil, fmt.Errorf("%w: %s of %s devices are not connected at the end\n%s", ErrNoCapacity, count(int64(r.Away)), count(int64(s.Devices)), strings.Join(r.Remarks(), "\n"))
	}
	low, high := 0.0, math.Max(1, math.Ceil(float64(s.Devices)/(s.end()-s.From-s.Outage).Seconds()))
	found := at(high)
	for !enough(found) {
		low, high = high, high*2
		found = at(high)
	}
	for high-low > math.Max(1, high*precision) {
		middle := math.Round((low + high) / 2)
		if r := at(middle); enough(r) {
			high, found = middle, r
		} else {
			low = middle
		}
	}
	search := &Search{Capacity: high, Result: found}
	calm := s
	calm.From, calm.Outage, calm.For = 0, 0, s.end()
	for i := -8; i <= 8; i++ {
		capacity := high * math.Pow(2, float64(i)/4)
		search.Outage = append(search.Outage, Share{capacity, at(capacity).share()})
		share := 1.0
		if calm.Churn > 0 || calm.Boot > 0 {
			calm.Capacity = capacity
			f := start(&c, &calm)
			f.serve(0, f.end)
			share = f.result().share()
		}
		search.Calm = append(search.Calm, Share{capacity, share})
	}
	return search, nil
}

func (r *Result) share() float64 { return 1 - float64(r.Away)/float64(r.Scenario.Devices) }

// runner returns a function that simulates a capacity, starting with the fleet f.
// If the server works before the outage, the capacity applies there too; otherwise
// all simulations share the outage.
func (s Scenario) runner(c *Client, f *fleet) func(capacity float64) *Result {
	shared := s.From == 0
	if shared {
		f.toOutageEnd()
	}
	return func(capacity float64) *Result {
		scenario := s
		scenario.Capacity = capacity
		if !shared {
			g := start(c, &scenario)
			g.toOutageEnd()
			g.serve(g.outageEnd, g.end)
			return g.result()
		}
		g := *f
		g.scenario = &scenario
		g.devices, g.attempts, g.connects = slices.Clone(f.devices), slices.Clone(f.attempts), slices.Clone(f.connects)
		g.serve(g.outageEnd, g.end)
		return g.result()
	}
}
