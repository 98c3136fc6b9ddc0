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

// workers is the number of concurrent cells, which mostly wait. fewWorkers is that of
// cells that are repeated.
const (
	workers    = 48
	fewWorkers = 8
)

// maxRepeats is the maximum number of cells that are repeated.
const maxRepeats = 160

// Matrix runs cells in parallel. It calls done, from one goroutine at a time, with
// the index of each cell and the results of Run. When all cells are done it repeats
// those that failed, fewer at a time and with timeouts of at least [Patient], since a
// busy machine misses shorter ones; the second result counts. The error is that of ctx.
func Matrix(ctx context.Context, cells []Cell, o Options, done func(i int, r *Report, err error)) error {
	if o.Authority == nil {
		o.Authority = NewAuthority()
	}
	var mu sync.Mutex
	var all, again []int
	for i := range cells {
		all = append(all, i)
	}
	run := func(list []int, workers int, repeat bool) {
		each(ctx, list, workers, func(i int) {
			r, err := Run(ctx, cells[i].Policy, cells[i].Stream, cells[i].Fault, o)
			mu.Lock()
			defer mu.Unlock()
			if repeat && err == nil && !r.OK && len(again) < maxRepeats {
				again = append(again, i)
				return
			}
			done(i, r, err)
		})
	}
	run(all, workers, !o.healthy)
	o.Shortest = max(o.Shortest, Patient)
	run(again, fewWorkers, false)
	return ctx.Err()
}

// each calls f for each element of list, from n goroutines at a time. It returns when
// the calls have. It starts no call once ctx is done.
func each(ctx context.Context, list []int, n int, f func(i int)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, n)
	for _, i := range list {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() == nil {
				f(i)
			}
		})
	}
}
