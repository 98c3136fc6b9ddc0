package policy

import (
	"sync"
	"sync/atomic"
)

// An Index finds the streamtypes of a policy by name, in a time that does not depend on
// their number. The policy must not change. Methods may be called concurrently.
type Index struct {
	Policy *Policy

	calls  atomic.Int32
	once   sync.Once
	byName map[string]*StreamType
}

// NewIndex returns an index of a policy.
func NewIndex(p *Policy) *Index { return &Index{Policy: p} }

// mapAfter is how many searches through all streamtypes StreamType makes before it maps
// their names, which costs as much: most programs use few streamtypes.
const mapAfter = 16

// StreamType returns the streamtype with exactly that name, or nil.
func (x *Index) StreamType(name string) *StreamType {
	all := x.Policy.StreamTypes
	if len(all) <= mapAfter || x.calls.Load() < mapAfter && x.calls.Add(1) <= mapAfter {
		return x.Policy.StreamType(name)
	}
	x.once.Do(func() {
		x.byName = make(map[string]*StreamType, len(all))
		for _, st := range all {
			if x.byName[st.Name] == nil {
				x.byName[st.Name] = st
			}
		}
	})
	return x.byName[name]
}

// Effective is [Policy.Effective].
func (x *Index) Effective(name string) *StreamType { return x.Policy.effective(x.StreamType(name)) }

// Chain is [Policy.Chain].
func (x *Index) Chain(st *StreamType) ([]*StreamType, error) { return chain(st, x.StreamType) }
