package codegen

import (
	"errors"
	"iter"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// A setter sets a field to the value of a setting. If the field cannot hold the
// value, the setter reports that and leaves the field unchanged.
type setter func(c *compiler, dst reflect.Value, s *schema.Setting)

// setters holds the setter of each type that a field with a policy tag may have.
var setters map[reflect.Type]setter

func init() { // avoids an initialization cycle: setters use plans, and plans use this map
	setters = map[reflect.Type]setter{
		reflect.TypeFor[bool]():                 setBool,
		reflect.TypeFor[string]():               setString,
		reflect.TypeFor[uint8]():                setInteger,
		reflect.TypeFor[uint16]():               setInteger,
		reflect.TypeFor[uint32]():               setInteger,
		reflect.TypeFor[uint64]():               setInteger,
		reflect.TypeFor[int64]():                setInteger,
		reflect.TypeFor[time.Duration]():        setDuration,
		reflect.TypeFor[[]time.Duration]():      addDurations,
		reflect.TypeFor[policy.Protocol]():      setProtocol,
		reflect.TypeFor[[]policy.Metadata]():    addPairs,
		reflect.TypeFor[[]policy.Option]():      addPairs,
		reflect.TypeFor[[]policy.StatusState](): setStatuses,
		reflect.TypeFor[*policy.Retry]():        setReference(entry[policy.Retry]),
		reflect.TypeFor[*policy.TrustStore]():   setReference(entry[policy.TrustStore]),
		reflect.TypeFor[*policy.Auth]():         setReference(entry[policy.Auth]),
		reflect.TypeFor[*policy.Cert]():         setReference((*compiler).cert),
		reflect.TypeFor[[]*policy.Cert]():       addCerts,
	}
}

func setBool(c *compiler, dst reflect.Value, s *schema.Setting) {
	v := &s.Member.Value
	if v.Kind != schema.Bool && !v.LikeFalse() {
		c.wrongType(v, s, "true or false")
		return
	}
	dst.SetBool(v.Raw() == "true")
}

// setString accepts a number, as its digits, like lws.
func setString(c *compiler, dst reflect.Value, s *schema.Setting) {
	if v := &s.Member.Value; v.Kind != schema.String && v.Kind != schema.Number {
		c.wrongType(v, s, "a string")
	} else {
		dst.SetString(v.Text())
	}
}

func setInteger(c *compiler, dst reflect.Value, s *schema.Setting) {
	v := &s.Member.Value
	negative, n, ok := c.integer(v, s)
	switch {
	case !ok:
	case dst.CanInt():
		if n > math.MaxInt64 {
			c.outOfRange(v, s)
		} else if dst.SetInt(int64(n)); negative {
			dst.SetInt(-int64(n))
		}
	default:
		if s.Key.Name == "client_cert" {
			n++ // as in lws, 0 means none
		}
		if negative || dst.OverflowUint(n) {
			c.outOfRange(v, s)
		} else {
			dst.SetUint(n)
		}
	}
}

func setDuration(c *compiler, dst reflect.Value, s *schema.Setting) {
	if d, ok := c.duration(&s.Member.Value, s); ok {
		dst.SetInt(int64(d))
	}
}

func addDurations(c *compiler, dst reflect.Value, s *schema.Setting) {
	for v := range scalars(s) {
		if d, ok := c.duration(v, s); ok {
			dst.Set(reflect.Append(dst, reflect.ValueOf(d)))
		}
	}
}

func setProtocol(c *compiler, dst reflect.Value, s *schema.Setting) {
	v := &s.Member.Value
	if v.Kind != schema.String {
		c.wrongType(v, s, "a string")
	} else if p, ok := policy.ParseProtocol(v.Text()); !ok {
		c.report("out-of-range", v.Span, "unknown protocol %s", schema.QuoteName(v.Text()))
	} else {
		dst.Set(reflect.ValueOf(p))
	}
}

// addPairs sets a list of objects whose members are strings.
func addPairs(c *compiler, dst reflect.Value, s *schema.Setting) {
	for m := range c.pairs(s) {
		if m.Value.Kind != schema.String && m.Value.Kind != schema.Number { // lws uses the digits of a number
			c.wrongType(&m.Value, s, "a list of names with a string each")
			continue
		}
		pair := reflect.New(dst.Type().Elem()).Elem()
		pair.Field(0).SetString(m.Key)
		pair.Field(1).SetString(m.Value.Text())
		dst.Set(reflect.Append(dst, pair))
	}
}

func setStatuses(c *compiler, dst reflect.Value, s *schema.Setting) {
	var list []policy.StatusState
	for m := range c.pairs(s) {
		_, state, ok := c.integer(&m.Value, s)
		status, err := strconv.ParseUint(m.Key, 10, 16)
		if err != nil {
			c.report("wrong-type", m.Name.Span, "%s is not an HTTP status", schema.QuoteName(m.Key))
		} else if ok {
			list = append(list, policy.StatusState{Status: uint16(status), State: policy.State(state)})
		}
	}
	dst.Set(reflect.ValueOf(list))
}

// setReference returns the setter of a pointer to the compiled form of the
// definition that a setting names.
func setReference[T any](compile func(*compiler, *schema.Definition) *T) setter {
	return func(c *compiler, dst reflect.Value, s *schema.Setting) {
		if d := c.target(&s.Member.Value, s); d != nil {
			dst.Set(reflect.ValueOf(compile(c, d)))
		}
	}
}

func addCerts(c *compiler, dst reflect.Value, s *schema.Setting) {
	for v := range scalars(s) {
		if d := c.target(v, s); d != nil {
			dst.Set(reflect.Append(dst, reflect.ValueOf(c.cert(d))))
		}
	}
}

// scalars returns the elements of a list, or the single value: lws treats both the
// same.
func scalars(s *schema.Setting) iter.Seq[*schema.Value] {
	return func(yield func(*schema.Value) bool) {
		v := &s.Member.Value
		if v.Kind != schema.ArrayKind {
			yield(v)
			return
		}
		for _, e := range v.Elems() {
			if !yield(&e.Value) {
				return
			}
		}
	}
}

// pairs returns the members of the objects in a list.
func (c *compiler) pairs(s *schema.Setting) iter.Seq[*schema.Member] {
	return func(yield func(*schema.Member) bool) {
		if v := &s.Member.Value; v.Kind != schema.ArrayKind {
			c.wrongType(v, s, "a list of objects")
		}
		for _, e := range s.Member.Value.Elems() {
			if e.Value.Kind != schema.ObjectKind {
				c.wrongType(&e.Value, s, "a list of objects")
			}
			for _, m := range e.Value.Members() {
				if !yield(m) {
					return
				}
			}
		}
	}
}

// integer returns an integer that fits into the C member of the key. Like lws, it
// accepts a string of digits.
func (c *compiler) integer(v *schema.Value, s *schema.Setting) (negative bool, n uint64, ok bool) {
	text := v.Text()
	switch {
	case v.Kind == schema.Number:
		text, negative = strings.CutPrefix(text, "-")
	case v.Kind != schema.String || strings.Trim(text, "0123456789") != "" || text == "":
		c.wrongType(v, s, "an integer")
		return false, 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if errors.Is(err, strconv.ErrSyntax) { // 443.0 and 1e3 are integers too
		f, ferr := strconv.ParseFloat(text, 64)
		if ferr == nil && f != math.Trunc(f) {
			c.wrongType(v, s, "an integer")
			return false, 0, false
		}
		if ferr == nil && f < 1<<53 {
			n, err = uint64(f), nil
		}
	}
	if width := s.Key.Width; err != nil || width > 0 && (negative && n > 0 || n>>(width-1)>>1 > 0) {
		c.outOfRange(v, s)
		return false, 0, false
	}
	return negative && n > 0, n, true
}

func (c *compiler) duration(v *schema.Value, s *schema.Setting) (time.Duration, bool) {
	_, n, ok := c.integer(v, s) // of at most 32 bits
	return time.Duration(n) * unit(s.Key), ok
}

func (c *compiler) outOfRange(v *schema.Value, s *schema.Setting) {
	c.report("out-of-range", v.Span, "%s is out of the range of %s", schema.QuoteName(v.Text()), s.Key.Name)
}
