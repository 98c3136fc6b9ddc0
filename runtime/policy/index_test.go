package policy

import (
	"fmt"
	"testing"
)

// TestIndex checks that an index finds the same streamtypes as the policy, before and
// after it maps the names.
func TestIndex(t *testing.T) {
	for _, n := range []int{0, 1, mapAfter, 100} {
		p := &Policy{SOCKS5Proxy: "proxy:1080"}
		for i := range n {
			p.StreamTypes = append(p.StreamTypes, &StreamType{Name: fmt.Sprint("s", i*37%n)})
		}
		p.StreamTypes = append(p.StreamTypes, p.StreamTypes...) // the first of a name counts
		for i := range n {
			second := *p.StreamTypes[i]
			p.StreamTypes[n+i] = &second
		}
		x := NewIndex(p)
		for range 2 {
			for i := range n + 1 {
				name := fmt.Sprint("s", i)
				if got, want := x.StreamType(name), p.StreamType(name); got != want {
					t.Fatalf("%d streamtypes: %s is %p, want %p", n, name, got, want)
				}
				got := x.Effective(name)
				if i < n && (got.Name != name || got.SOCKS5Proxy != p.SOCKS5Proxy) || i == n && got != nil {
					t.Fatalf("%d streamtypes: the effective %s is %v", n, name, got)
				}
			}
		}
	}
}
