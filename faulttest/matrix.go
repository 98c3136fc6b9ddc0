package faulttest

import (
	"context"
	"slices"
	"sync"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Cell is a fault and a streamtype that it fits.
type Cell struct {
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
				all = append(all, Cell{st.Name, f})
			}
		}
	}
	return all
}

// workers is how many cells run at a time. They mostly wait.
const workers = 32

// Matrix runs cells in parallel. It calls done, from one goroutine at a time, with the
// index of each cell and the results of Run. It returns early only if ctx is done, and
// then its error.
func Matrix(ctx context.Context, p *policy.Policy, cells []Cell, o Options, done func(i int, r *Report, err error)) error {
	if o.authority == nil {
		o.authority = testcert.New(authorityName)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
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
			r, err := Run(ctx, p, c.Stream, c.Fault, o)
			mu.Lock()
			defer mu.Unlock()
			done(i, r, err)
		})
	}
	wg.Wait()
	return ctx.Err()
}
