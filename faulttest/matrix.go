package faulttest

import (
	"context"
	"slices"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Cell is a fault and a streamtype that it applies to.
type Cell struct {
	Policy *policy.Policy
	Stream string
	Fault  *Fault
}

// Cells returns the cells of a policy, by streamtype. Empty lists mean all.
func Cells(p *policy.Policy, streams []string, faults []*Fault) (all []Cell) {
	if len(faults) == 0 {
		faults = catalogue
	}
	for _, st := range p.StreamTypes {
		if len(streams) > 0 && !slices.Contains(streams, st.Name) {
			continue
		}
		for _, f := range faults {
			if ok, _ := f.Fits(st); ok {
				all = append(all, Cell{p, st.Name, f})
			}
		}
	}
	return all
}

// workers is the number of concurrent cells, which mostly wait.
const workers = 48

// maxRepeats is the maximum number of cells that are repeated.
const maxRepeats = 20

// Matrix runs cells in parallel. It calls done, from one goroutine at a time, with
// the index of each cell and the results of Run. When all cells are done it repeats
// those that failed, with timeouts of at least [Patient], since a busy machine
// misses shorter ones; the second result counts. The error is that of ctx.
func Matrix(ctx context.Context, cells []Cell, o Options, done func(i int, r *Report, err error)) error {
	if o.Authority == nil {
		o.Authority = NewAuthority()
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var again []int
	slots := make(chan struct{}, workers)
	for i, c := range cells {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			r, err := Run(ctx, c.Policy, c.Stream, c.Fault, o)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && !r.OK && !o.healthy && len(again) < maxRepeats {
				again = append(again, i)
				return
			}
			done(i, r, err)
		})
	}
	wg.Wait()
	o.Shortest = max(o.Shortest, Patient)
	for _, i := range again {
		if ctx.Err() != nil {
			break
		}
		r, err := Run(ctx, cells[i].Policy, cells[i].Stream, cells[i].Fault, o)
		done(i, r, err)
	}
	return ctx.Err()
}
