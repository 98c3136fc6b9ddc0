package celrules

import (
	"fmt"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// A Range is a set of versions of lws, such as ">=4.3 <5.0". The zero value
// contains all versions.
type Range struct {
	text   string
	bounds []bound
}

type bound struct {
	operator string
	version  schema.Version
}

// operators are longest first, since one may begin with another.
var operators = []string{">=", "<=", ">", "<", "="}

// ParseRange parses comparisons that are separated by spaces. All must hold.
func ParseRange(text string) (Range, error) {
	r := Range{text: strings.Join(strings.Fields(text), " ")}
	for word := range strings.FieldsSeq(text) {
		b := bound{operator: "="}
		for _, o := range operators {
			if rest, ok := strings.CutPrefix(word, o); ok {
				b.operator, word = o, rest
				break
			}
		}
		if err := b.version.UnmarshalText([]byte(word)); err != nil {
			return Range{}, err
		}
		if b.version != b.version.Line() {
			return Range{}, fmt.Errorf("%v is a release: a range has release lines, such as >=%v", b.version, b.version.Line())
		}
		r.bounds = append(r.bounds, b)
	}
	if len(r.bounds) == 0 {
		return Range{}, fmt.Errorf("empty range: want one such as \">=4.3 <5.0\"")
	}
	for _, v := range schema.Versions {
		if r.Has(v) {
			return r, nil
		}
	}
	return Range{}, fmt.Errorf("no lws version is in the range %s", r.text)
}

// Has reports whether a version is in the range.
func (r Range) Has(v schema.Version) bool {
	for _, b := range r.bounds {
		c := v.Compare(b.version)
		ok := map[string]bool{">=": c >= 0, "<=": c <= 0, ">": c > 0, "<": c < 0, "=": c == 0}
		if !ok[b.operator] {
			return false
		}
	}
	return true
}

// Versions returns the release lines in the range.
func (r Range) Versions() (all []schema.Version) {
	for _, v := range schema.Versions {
		if r.Has(v) {
			all = append(all, v)
		}
	}
	return all
}
