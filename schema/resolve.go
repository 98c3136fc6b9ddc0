package schema

// MaxString is the maximum number of bytes of a string that the parser of lws
// passes on in one piece. It passes a longer one in pieces of MaxString+1 bytes,
// and refuses a name that exceeds the first piece.
const MaxString = 253

// A Resolution holds the definition that lws uses for each reference of a policy.
type Resolution struct {
	// Definition is the definition that lws uses for a reference. In a correct
	// policy it is the Target of the reference. A reference that lws cannot
	// resolve, for which it refuses the policy, has no entry.
	Definition map[*Reference]*Definition

	// Owner is the first server's reference to a certificate or key. lws then moves
	// the certificate out of its list, and later references do not find it.
	Owner map[*Definition]*Reference

	// Conflict maps a reference to a certificate that an earlier server owns to the
	// reference of that server.
	Conflict map[*Reference]*Reference
}

// Resolve finds the definition that lws uses for each reference. Where lws compares
// by prefix, that is the newest definition whose name begins with the reference.
func (p *Policy) Resolve() *Resolution {
	type query struct {
		section Section
		match   Match
		name    string
	}
	r := &Resolution{
		Definition: map[*Reference]*Definition{},
		Owner:      map[*Definition]*Reference{},
		Conflict:   map[*Reference]*Reference{},
	}

	candidates := map[query][]*Definition{} // for each name in use, newest last
	lengths := map[Section][]int{}          // of the names used by prefix
	seen := map[Section]*[MaxString + 1]bool{}
	for _, ref := range p.References {
		if len(ref.Name) > MaxString {
			continue
		}
		candidates[query{ref.Key.Ref, ref.Key.Match, ref.Name}] = nil
		if ref.Key.Match == MatchPrefix {
			if seen[ref.Key.Ref] == nil {
				seen[ref.Key.Ref] = &[MaxString + 1]bool{}
			}
			if !seen[ref.Key.Ref][len(ref.Name)] {
				seen[ref.Key.Ref][len(ref.Name)] = true
				lengths[ref.Key.Ref] = append(lengths[ref.Key.Ref], len(ref.Name))
			}
		}
	}
	add := func(q query, d *Definition) {
		if defs, known := candidates[q]; known {
			candidates[q] = append(defs, d)
		}
	}
	refs := p.References
	for _, d := range p.Definitions {
		for ; len(refs) > 0 && refs[0].From == d; refs = refs[1:] {
			ref := refs[0]
			if ref.Key.Match == MatchUnchecked {
				if ref.Target != nil {
					r.Definition[ref] = ref.Target
				}
				continue
			}
			q := query{ref.Key.Ref, ref.Key.Match, ref.Name}
			defs := candidates[q]
			for len(defs) > 0 && r.Owner[defs[len(defs)-1]] != nil {
				defs = defs[:len(defs)-1]
			}
			candidates[q] = defs
			var got *Definition
			if len(defs) > 0 {
				got = defs[len(defs)-1]
				r.Definition[ref] = got
			}
			switch {
			case got == nil || got.Name != ref.Name:
				if given := r.Owner[ref.Target]; given != nil {
					r.Conflict[ref] = given
				}
			case ref.Key.Name == "server_cert" || ref.Key.Name == "server_key":
				r.Owner[got] = ref
			}
		}
		if d.Unreadable {
			continue
		}
		add(query{d.Section, MatchExact, d.Name}, d)
		for _, n := range lengths[d.Section] {
			if n <= len(d.Name) {
				add(query{d.Section, MatchPrefix, d.Name[:n]}, d)
			}
		}
	}
	return r
}
