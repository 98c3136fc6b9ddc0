package runtime

import (
	"fmt"
	"slices"
)

// Rideshares returns the streamtypes whose messages make up one request: st,
// the one that its rideshare names, the one that that one names, and so on. An
// error names the key and what is wrong. It is for Prepare of a [Transport]; anywhere
// else the others are those of the policy in force, or of the one that an Overlay is
// about to put in force.
func (c *Context) Rideshares(st *StreamType) ([]*StreamType, error) {
	chain := []*StreamType{st}
	for last := st; last.Rideshare != ""; {
		if last.Protocol > ProtocolH3 {
			return nil, fmt.Errorf("%w: rideshare over %v", ErrUnsupported, last.Protocol)
		}
		next := c.tables().StreamType(last.Rideshare)
		switch {
		case next == nil:
			return nil, fmt.Errorf("rideshare of %q: %w: %q", last.Name, ErrUnknownStreamType, last.Rideshare)
		case slices.Contains(chain, next):
			return nil, fmt.Errorf("%w: rideshare of %q to %q, which comes before it: the request would never end",
				ErrUnsupported, last.Name, next.Name)
		case next.Protocol != st.Protocol:
			return nil, fmt.Errorf("%w: rideshare of %q to %q, which speaks another protocol",
				ErrUnsupported, last.Name, next.Name)
		case next.HTTP == nil:
			return nil, fmt.Errorf("rideshare of %q: streamtype %q lacks the settings of its protocol", last.Name, next.Name)
		}
		chain = append(chain, next)
		last = next
	}
	return chain, nil
}
