package schema

import (
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v5"
)

// A scalarSchema holds the constraints of a schema on a scalar, if plainly supports
// them all. The zero value accepts nothing.
type scalarSchema struct {
	bool, integer, string bool // the accepted types

	min, max          uint64   // of an integer
	shortest, longest int      // of a string, in bytes
	enum              []string // the strings, if not nil
}

// plainly reports whether a scalar is certainly valid, by a check that is fast and
// covers nearly all scalars. It avoids the general validation, whose conversions
// and errors take most of the time of checking a policy. If it returns false, the
// scalar may still be valid.
func plainly(s *jsonschema.Schema, v *Value) bool {
	t := scalarSchemas()[s]
	return t != nil && t.accepts(v)
}

func (t *scalarSchema) accepts(v *Value) bool {
	raw := v.Raw()
	switch v.Kind {
	case Bool:
		return t.bool
	case Number:
		if !t.integer || len(raw) > 18 || !digits(raw) {
			return false
		}
		n, err := strconv.ParseUint(raw, 10, 64)
		return err == nil && t.min <= n && n <= t.max
	case String:
		if !t.string || len(raw) < 2 || strings.IndexByte(raw, '\\') >= 0 {
			return false
		}
		return t.acceptsText(raw[1 : len(raw)-1])
	}
	return false
}

func (t *scalarSchema) acceptsText(text string) bool {
	if t.enum != nil {
		return slices.Contains(t.enum, text)
	}
	return t.string && t.shortest <= len(text) && len(text) <= t.longest
}

// nameFits reports whether a schema for property names accepts name.
func nameFits(s *jsonschema.Schema, name string) bool {
	t := scalarSchemas()[s]
	return t != nil && t.acceptsText(name) || s.Validate(name) == nil
}

// scalarSchemas returns the schemas of the policy's JSON Schema whose constraints
// on a scalar a scalarSchema can express.
var scalarSchemas = sync.OnceValue(func() map[*jsonschema.Schema]*scalarSchema {
	all := map[*jsonschema.Schema]*scalarSchema{}
	var add func(s *jsonschema.Schema)
	add = func(s *jsonschema.Schema) {
		if s == nil || all[s] != nil {
			return
		}
		all[s] = newScalarSchema(s)
		add(s.Ref)
		add(s.Items2020)
		add(s.PropertyNames)
		for _, sub := range s.Properties {
			add(sub)
		}
		for _, sub := range s.PatternProperties {
			add(sub)
		}
		if sub, ok := s.AdditionalProperties.(*jsonschema.Schema); ok {
			add(sub)
		}
	}
	add(policySchema())
	return all
})

func newScalarSchema(s *jsonschema.Schema) *scalarSchema {
	t := &scalarSchema{max: math.MaxUint64, shortest: max(0, s.MinLength), longest: math.MaxInt}
	for _, e := range s.Enum {
		if e, ok := e.(string); ok {
			t.enum = append(t.enum, e)
		}
	}
	known := s.Ref == nil && s.Pattern == nil && s.Format == "" && s.Constant == nil && s.Not == nil && s.AllOf == nil && s.AnyOf == nil && s.OneOf == nil &&
		s.If == nil && s.ExclusiveMinimum == nil && s.ExclusiveMaximum == nil && s.MultipleOf == nil &&
		t.shortest <= 1 && len(t.enum) == len(s.Enum) // JSON Schema counts characters
	for limit, r := range map[*uint64]*big.Rat{&t.min: s.Minimum, &t.max: s.Maximum} {
		if r != nil {
			known = known && r.IsInt() && r.Num().IsUint64()
			*limit = r.Num().Uint64()
		}
	}
	if s.MaxLength >= 0 {
		t.longest = s.MaxLength
	}
	if known {
		anyType := len(s.Types) == 0
		t.string = anyType || allows(s, "string")
		t.integer = t.enum == nil && (anyType || allows(s, "integer"))
		t.bool = t.enum == nil && (anyType || allows(s, "boolean"))
	}
	return t
}
