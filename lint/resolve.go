package lint

import "github.com/secure-streams/sspolicy/schema"

// longestReference is the longest string that lws takes whole. It gets a longer
// one in pieces, and refuses a name that is not the first of them.
const longestReference = 253

// A resolution says what lws makes of the references of a policy.
type resolution struct {
	// taken holds the definition that lws takes for a reference. It is the
	// target of the reference in a sound policy. Where lws finds nothing, and
	// refuses the policy, there is none.
	taken map[*schema.Reference]*schema.Definition

	// given holds the first use of a certificate by a server. lws takes the
	// certificate out of its list then, so that nothing finds it any more.
	given map[*schema.Definition]*schema.Reference

	// lost holds the references whose certificate a server has by then, and
	// where that server names it.
	lost map[*schema.Reference]*schema.Reference
}

// resolve finds what lws takes for each reference. Where it compares by prefix,
// that is the newest definition whose name begins with the reference.
func (p *pass) resolve() *resolution {
	if p.facts.resolution != nil {
		return p.facts.resolution
	}
	type query struct {
		section schema.Section
		match   schema.Match
		name    string
	}
	r := &resolution{
		taken: map[*schema.Reference]*schema.Definition{},
		given: map[*schema.Definition]*schema.Reference{},
		lost:  map[*schema.Reference]*schema.Reference{},
	}
	p.facts.resolution = r

	candidates := map[query][]*schema.Definition{} // for each name that is asked for, the newest last
	lengths := map[schema.Section][]int{}          // of the names asked for by prefix
	seen := map[schema.Section]*[longestReference + 1]bool{}
	for _, ref := range p.policy.References {
		if len(ref.Name) > longestReference {
			continue
		}
		candidates[query{ref.Key.Ref, ref.Key.Match, ref.Name}] = nil
		if ref.Key.Match == schema.MatchPrefix {
			if seen[ref.Key.Ref] == nil {
				seen[ref.Key.Ref] = &[longestReference + 1]bool{}
			}
			if !seen[ref.Key.Ref][len(ref.Name)] {
				seen[ref.Key.Ref][len(ref.Name)] = true
				lengths[ref.Key.Ref] = append(lengths[ref.Key.Ref], len(ref.Name))
			}
		}
	}
	add := func(q query, d *schema.Definition) {
		if defs, asked := candidates[q]; asked {
			candidates[q] = append(defs, d)
		}
	}
	refs := p.policy.References
	for _, d := range p.policy.Definitions {
		for ; len(refs) > 0 && refs[0].From == d; refs = refs[1:] {
			ref := refs[0]
			if ref.Key.Match == schema.MatchUnchecked {
				if ref.Target != nil {
					r.taken[ref] = ref.Target
				}
				continue
			}
			q := query{ref.Key.Ref, ref.Key.Match, ref.Name}
			defs := candidates[q]
			for len(defs) > 0 && r.given[defs[len(defs)-1]] != nil {
				defs = defs[:len(defs)-1]
			}
			candidates[q] = defs
			var got *schema.Definition
			if len(defs) > 0 {
				got = defs[len(defs)-1]
				r.taken[ref] = got
			}
			switch {
			case got == nil || got.Name != ref.Name:
				if given := r.given[ref.Target]; given != nil {
					r.lost[ref] = given
				}
			case ref.Key.Name == "server_cert" || ref.Key.Name == "server_key":
				r.given[got] = ref
			}
		}
		if d.Unreadable {
			continue
		}
		add(query{d.Section, schema.MatchExact, d.Name}, d)
		for _, n := range lengths[d.Section] {
			if n <= len(d.Name) {
				add(query{d.Section, schema.MatchPrefix, d.Name[:n]}, d)
			}
		}
	}
	return r
}
