package schema

import (
	"math/big"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v5"
)

// TestPlainly checks that plainly accepts only what the general validation accepts, and
// accepts common values.
func TestPlainly(t *testing.T) {
	values := []string{"true", "false", "null", "0", "1", "-1", "255", "65535", "65536", "1.0", "1e2", "18446744073709551615",
		`""`, `"x"`, `"h1"`, `"GET"`, `"true"`, `"\u0068\u0031"`, `"é"`,
		`"` + strings.Repeat("x", 253) + `"`, `"` + strings.Repeat("x", 254) + `"`, `"` + strings.Repeat("é", 200) + `"`}
	accepted := 0
	for s := range scalarSchemas() {
		limits := values
		for _, r := range []*big.Rat{s.Minimum, s.Maximum} {
			if r != nil && r.IsInt() {
				for d := int64(-1); d <= 1; d++ {
					limits = append(limits, new(big.Int).Add(r.Num(), big.NewInt(d)).String())
				}
			}
		}
		for _, e := range s.Enum {
			limits = append(limits, Quote(e.(string)))
		}
		for _, raw := range limits {
			src := &Source{Text: raw}
			v := (&parser{src: src, text: raw}).value()
			if !plainly(s, &v) {
				continue
			}
			accepted++
			if err := s.Validate(goValue(&v)); err != nil {
				t.Errorf("%s: %s is accepted: %v", s.Location, raw, err)
			}
			if v.Kind == String && s.MaxLength >= 0 && len(v.Text()) > s.MaxLength {
				t.Errorf("%s: %s is accepted, and lws does not keep it all", s.Location, raw)
			}
		}
	}
	if accepted < 500 {
		t.Errorf("%d values are accepted: the fast path does nothing", accepted)
	}
}

// TestPlainlyUnknown checks that a schema with other keywords accepts nothing
// plainly.
func TestPlainlyUnknown(t *testing.T) {
	src := &Source{Text: `"x"`}
	v := (&parser{src: src, text: src.Text}).value()
	for _, text := range []string{
		`{"type":"string","pattern":"y"}`, `{"type":"string","const":"y"}`, `{"type":"string","enum":[1]}`, `{"type":"string","minLength":2}`,
		`{"$ref":"#/$defs/x","$defs":{"x":{"const":"y"}}}`, `{"type":"string","not":{"const":"x"}}`, `{"type":"string","allOf":[{"const":"y"}]}`,
	} {
		if s := newScalarSchema(jsonschema.MustCompileString("x.json", text)); s.accepts(&v) {
			t.Errorf("%s accepts it", text)
		}
	}
}
