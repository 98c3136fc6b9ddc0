package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v5"
)

// The rules that Validate reports.
const (
	RuleDuplicateKey = "duplicate-key"
	RuleUnknownKey   = "unknown-key"
	RuleLegacyForm   = "legacy-form"
	RuleMissingKey   = "missing-key"
	RuleWrongType    = "wrong-type"
	RuleBadValue     = "bad-value"
	RuleOutOfRange   = "out-of-range"
	RuleBadLength    = "bad-length"
	RuleBadCount     = "bad-count"
)

var policySchema = sync.OnceValue(func() *jsonschema.Schema {
	return jsonschema.MustCompileString("policy.schema.json", JSONSchema) // a test compiles it
})

// Validate checks the shape of a policy against the JSON Schema: keys, types,
// ranges. It does not repeat syntax errors.
//
// It walks the tree and the schema together and gives only scalars to jsonschema.
// So it sees all members that share a key, and each diagnostic has a position.
func Validate(d *Document) []Diagnostic {
	v := &validator{}
	if d.Root.Kind == ObjectKind {
		v.object(policySchema(), Top, nil, &d.Root)
	}
	return SortDiagnostics(v.diags)
}

type validator struct {
	diags  []Diagnostic
	parent *Object // of the member that is being checked
}

// has reports whether the parent has a member with this key.
func (v *validator) has(key string) bool {
	return slices.ContainsFunc(v.parent.Members, func(m *Member) bool { return m.Key == key })
}

func (v *validator) report(rule string, sev Severity, at Span, format string, args ...any) *Diagnostic {
	v.diags = append(v.diags, Diagnostic{Rule: rule, Severity: sev, Span: at, Message: fmt.Sprintf(format, args...)})
	return &v.diags[len(v.diags)-1]
}

// value checks a value of a definition in section in. k is its key, or nil if the
// table does not have it.
func (v *validator) value(s *jsonschema.Schema, in Section, k *Key, val *Value) {
	for s.Ref != nil {
		s = s.Ref
	}
	switch {
	case val.Kind == Missing || val.Kind == Invalid:
		return // a syntax error
	case val.Kind == ObjectKind && allows(s, "object"):
		v.object(s, in, k, val)
	case val.Kind == ArrayKind && allows(s, "array"):
		v.array(s, in, k, val)
	default:
		v.leaf(s, k, val)
	}
}

func allows(s *jsonschema.Schema, typ string) bool { return slices.Contains(s.Types, typ) }

func (v *validator) array(s *jsonschema.Schema, in Section, k *Key, val *Value) {
	n := len(val.Array.Elems)
	if s.MaxItems >= 0 && n > s.MaxItems {
		e := val.Array.Elems[s.MaxItems]
		v.report(RuleBadCount, Error, e.Value.Span, "%s has %d entries, but takes at most %d", k.Name, n, s.MaxItems)
	}
	if s.MinItems >= 0 && n < s.MinItems {
		v.report(RuleBadCount, Error, val.Span, "%s is empty, but needs at least %d", k.Name, s.MinItems)
	}
	if s.Items2020 != nil {
		for _, e := range val.Array.Elems {
			v.value(s.Items2020, in, k, &e.Value)
		}
	}
}

func (v *validator) object(s *jsonschema.Schema, in Section, k *Key, val *Value) {
	defer func(o *Object) { v.parent = o }(v.parent)
	seen := make(map[string]*Member, len(val.Object.Members))
	for _, m := range val.Object.Members {
		if m.Name.Kind == Missing {
			continue
		}
		v.parent = val.Object
		first := seen[m.Key]
		if first == nil {
			seen[m.Key] = m
		}
		v.member(s, in, k, m, first)
	}
	for _, name := range s.Required {
		if seen[name] != nil {
			continue
		}
		if in == TrustStores && (name == "stack" && seen["name"] == nil || legacyStore(val)) {
			continue // the entry has a diagnostic already
		}
		at := val.Span
		at.End = at.Start + 1
		v.report(RuleMissingKey, Error, at, "this %s has no %q", in.Noun(), name)
	}
}

// member checks a member of an object that s describes. first is the first member
// with the same key, or nil.
func (v *validator) member(s *jsonschema.Schema, in Section, k *Key, m, first *Member) {
	prop := s.Properties[m.Key]
	if prop != nil {
		k = LookupKey(in, m.Key)
		if in == Top {
			in = Section(m.Key)
		}
	}
	for re, p := range s.PatternProperties {
		if prop == nil && re.MatchString(m.Key) {
			prop = p
		}
	}
	if prop != nil && first != nil {
		v.duplicate(k, first, m)
	}
	if rest, ok := s.AdditionalProperties.(*jsonschema.Schema); ok && prop == nil {
		prop = rest
	}
	switch {
	case prop == nil && s.AdditionalProperties == false:
		v.unknown(in, k, m)
	case prop != nil:
		if s.PropertyNames != nil && s.PropertyNames.Validate(m.Key) != nil {
			v.report(RuleBadLength, Error, m.Name.Span, "the name is empty: lws 4.1 to 5.0 crash, or add its settings to the previous entry")
		}
		v.value(prop, in, k, &m.Value)
	}
}

// legacyStore reports whether a trust store has the form that lws's README shows.
func legacyStore(val *Value) bool {
	for _, m := range val.Object.Members {
		if LookupKey(TrustStores, m.Key) == nil && m.Value.Kind == ArrayKind {
			return true
		}
	}
	return false
}

// duplicate reports a key, or nil for one of a map such as http_resp_map, that an
// object has twice.
func (v *validator) duplicate(k *Key, first, second *Member) {
	top := k != nil && k.Section == Top
	if top && sections[Section(second.Key)].noun != "" {
		return // sections may be repeated
	}
	d := v.report(RuleDuplicateKey, Error, second.Name.Span, "%s is set twice", QuoteName(second.Key))
	d.Related = []Related{{first.Name.Span, "the first one"}}
	switch {
	case first.Value.Span.Text() == second.Value.Span.Text():
		d.Severity = Warning
		d.Message += ", to the same value"
	case top && k.Inert:
		d.Severity = Warning
	case k != nil && (k.Name == "metadata" || k.Name == "stack" || k.Name == "backoff"):
		d.Severity = Warning
		d.Message += ": lws joins the lists"
	case k != nil && k.Is("boolean") && k.Flag != "":
		d.Message += ": lws reads true if one of them is true"
	default:
		d.Message += ": only the last counts"
	}
}

// unknown reports a key that the schema does not have.
func (v *validator) unknown(in Section, k *Key, m *Member) {
	switch {
	case k != nil && k.Name == "http_resp_map":
		v.report(RuleBadValue, Error, m.Name.Span, "%s is not an HTTP status from 100 to 599", QuoteName(m.Key))
		return
	case k != nil && k.Name == "x-sspolicy":
		v.report(RuleUnknownKey, Error, m.Name.Span, "x-sspolicy has no key %s, only \"streams\"", QuoteName(m.Key))
		return
	case in == TrustStores && m.Value.Kind == ArrayKind:
		d := v.report(RuleLegacyForm, Error, m.Name.Span,
			"lws ignores this form of a trust store, although its README shows it: write {\"name\": %s, \"stack\": [...]}", QuoteName(m.Key))
		d.Fixes = []Fix{{"write name and stack", []Edit{{
			Span{m.Name.Span.Source, m.Name.Span.Start, m.Value.Span.Start},
			`"name": ` + m.Name.Raw + `, "stack": `}}}}
		return
	}
	d := v.report(RuleUnknownKey, Error, m.Name.Span, "%s is not a key of a %s", QuoteName(m.Key), in.Noun())
	join := "; "
	if better, only := nearest(in, m.Key); better != "" {
		d.Message += ": did you mean " + QuoteName(better) + "?"
		join = " "
		if only {
			d.Fixes = []Fix{{"write " + better, []Edit{{m.Name.Span, Quote(better)}}}}
		}
	} else if use, ok := table().documented[in][m.Key]; ok {
		d.Message += ", although lws's documentation has it"
		if use != "" {
			d.Message += ": use " + QuoteName(use)
			if !v.has(use) {
				d.Fixes = []Fix{{"write " + use, []Edit{{m.Name.Span, Quote(use)}}}}
			}
		}
	}
	switch in {
	case Streams, Retry:
		d.Message += join + "lws makes it a phantom " + in.Noun() + " that takes every later key of this one"
	default:
		d.Severity = Warning
		d.Message += join + "lws ignores it"
	}
}

// leaf checks a scalar, or a value of the wrong type.
func (v *validator) leaf(s *jsonschema.Schema, k *Key, val *Value) {
	err, ok := s.Validate(goValue(val)).(*jsonschema.ValidationError)
	if !ok {
		if val.Kind == String && s.MaxLength >= 0 && len(val.Text()) > s.MaxLength {
			v.tooLong(s, k, k.Name, val)
		}
		if val.Kind == Number && allows(s, "integer") && strings.ContainsAny(val.Raw, ".eE") {
			v.report(RuleBadValue, Error, val.Span, "write this integer without point or exponent: lws reads %s and stops at the next character", shortNumber(leadingDigits(val.Raw)))
		}
		return
	}
	for len(err.Causes) > 0 {
		err = err.Causes[0]
	}
	name := "this"
	if k != nil {
		name = k.Name
	}
	switch keyword := err.KeywordLocation[strings.LastIndexByte(err.KeywordLocation, '/')+1:]; keyword {
	case "type":
		v.wrongType(s, k, name, val)
	case "minimum", "maximum":
		d := v.report(RuleOutOfRange, Error, val.Span, "%s must be %s to %s, not %s", name, bound(s.Minimum, "0"), bound(s.Maximum, ""), shortNumber(val.Raw))
		if k != nil && k.Width > 0 {
			d.Message += "; lws keeps " + Wrap(val.Raw, k)
		}
	case "enum":
		v.badEnum(k, name, val)
	case "pattern":
		v.report(RuleBadValue, Error, val.Span, "%s must be host:port or user:password@host:port", name)
	case "minLength":
		v.report(RuleBadLength, Error, val.Span, "%s is empty", name)
	case "maxLength":
		v.tooLong(s, k, name, val)
	default:
		v.report(RuleBadValue, Error, val.Span, "%s: %s", name, err.Message)
	}
}

func bound(r *big.Rat, none string) string {
	if r == nil {
		return none
	}
	return r.RatString()
}

func (v *validator) wrongType(s *jsonschema.Schema, k *Key, name string, val *Value) {
	var want []string
	for _, t := range s.Types {
		want = append(want, article(t))
	}
	d := v.report(RuleWrongType, Error, val.Span, "%s must be %s, not %s", name, strings.Join(want, " or "), val.Kind)
	text := val.Text()
	switch {
	case k != nil && k.Inert && k.Section == Top:
		d.Severity = Warning
	case k != nil && k.Section == Top && allows(s, "array"):
		d.Message += "; lws ignores it"
	case allows(s, "boolean"):
		switch {
		case text == "true" || text == "1":
			d.Message += "; lws treats it as unset"
			d.Fixes = []Fix{{"write true", []Edit{{val.Span, "true"}}}}
		case val.LikeFalse():
			d.Severity = Warning
			d.Message += "; lws treats it as unset"
			d.Fixes = []Fix{{"write false", []Edit{{val.Span, "false"}}}}
		}
	case allows(s, "integer") && val.Kind == String && text != "" && strings.Trim(text, "0123456789") == "":
		d.Severity = Warning
		d.Message += "; lws reads the digits"
		d.Fixes = []Fix{{"write " + text, []Edit{{val.Span, text}}}}
	case allows(s, "string") && val.Kind == Number:
		d.Severity = Warning
		d.Message += "; lws reads its digits as the string"
		d.Fixes = []Fix{{"write " + Quote(text), []Edit{{val.Span, Quote(text)}}}}
	}
}

func article(typ string) string {
	if strings.IndexByte("aio", typ[0]) >= 0 {
		return "an " + typ
	}
	return "a " + typ
}

func (v *validator) badEnum(k *Key, name string, val *Value) {
	d := v.report(RuleBadValue, Error, val.Span, "%s is not a valid %s: use one of %s", QuoteName(val.Text()), name, strings.Join(k.Enum, ", "))
	if use := k.ValueAliases[val.Text()]; use != nil {
		text := Quote(use[k.Name])
		for _, other := range slices.Sorted(maps.Keys(use)) {
			if other != k.Name && !v.has(other) {
				text += ", " + Quote(other) + ": " + Quote(use[other])
			}
		}
		d.Rule = RuleLegacyForm
		d.Message = fmt.Sprintf("lws refuses the %s %s, although its README shows it: write %s", name, QuoteName(val.Text()), text)
		d.Fixes = []Fix{{"write " + text, []Edit{{val.Span, text}}}}
	}
}

// tooLong reports a string that lws truncates. JSON Schema counts characters, but
// lws counts bytes.
func (v *validator) tooLong(s *jsonschema.Schema, k *Key, name string, val *Value) {
	n := len(val.Text())
	d := v.report(RuleBadLength, Error, val.Span, "%s has %d bytes; lws keeps at most %d", name, n, s.MaxLength)
	switch chunk := s.MaxLength + 1; {
	case k != nil && k.Ref != Top:
		d.Message += ", and refuses this one"
	case k != nil && k.Name == "metadata":
		d.Message += fmt.Sprintf(", and splits it into items of %d bytes", chunk)
	case n%chunk == 0:
		d.Message += ", and nothing of this one"
	default:
		d.Message += fmt.Sprintf(", and of this one the last %d", n%chunk)
	}
}

// Plain returns a value as encoding/json decodes it into an any, with json.Number for
// numbers. The last of members with the same key counts.
func Plain(v *Value) any {
	switch v.Kind {
	case ObjectKind:
		o := make(map[string]any, len(v.Object.Members))
		for _, m := range v.Object.Members {
			o[m.Key] = Plain(&m.Value)
		}
		return o
	case ArrayKind:
		a := make([]any, 0, len(v.Array.Elems))
		for _, e := range v.Array.Elems {
			a = append(a, Plain(&e.Value))
		}
		return a
	}
	return goValue(v)
}

// goValue returns a scalar for jsonschema. Objects and arrays are empty: only their
// type is checked.
func goValue(v *Value) any {
	switch v.Kind {
	case Bool:
		return v.Raw == "true"
	case Number:
		return plainNumber(v.Raw)
	case String:
		return v.Text()
	case ObjectKind:
		return map[string]any{}
	case ArrayKind:
		return []any{}
	}
	return nil
}

// plainNumber returns a number for jsonschema, which parses it as a fraction of all
// its digits. A very long number is replaced by a short one of the same sign that is
// also out of range or not an integer.
func plainNumber(raw string) json.Number {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(raw), "e")
	if len(mantissa) <= maxDigits && len(exponent) <= 4 {
		return json.Number(raw)
	}
	text := "1e30"
	if strings.ContainsRune(mantissa, '.') || strings.HasPrefix(exponent, "-") {
		text = "0.5"
	}
	if strings.HasPrefix(raw, "-") {
		text = "-" + text
	}
	return json.Number(text)
}

// maxDigits is how many digits of a number are parsed, and shown.
const maxDigits = 40

// shortNumber shortens a number for a message.
func shortNumber(raw string) string {
	if len(raw) > maxDigits {
		return raw[:maxDigits] + "…"
	}
	return raw
}

// Wrap returns the value that lws stores for a number that is out of the range of its
// C member. lws parses the leading digits and keeps the lowest bits (atoi and a C
// conversion: lws 4.1.6 to 5.0.0, lib/secure-streams/policy-json.c).
func Wrap(raw string, k *Key) string {
	digits := leadingDigits(raw)
	var n uint64 // modulo 2^64, a multiple of every width
	for _, d := range strings.TrimPrefix(digits, "-") {
		n = n*10 + uint64(d-'0')
	}
	if strings.HasPrefix(digits, "-") {
		n = -n
	}
	mask := ^uint64(0) >> (64 - k.Width)
	if k.Name == "client_cert" {
		n = (n + 1) & mask // lws stores it plus 1: 0 means none
		if n == 0 {
			return "none"
		}
		return strconv.FormatUint(n-1, 10)
	}
	return strconv.FormatUint(n&mask, 10)
}

func leadingDigits(raw string) string {
	sign := ""
	if strings.HasPrefix(raw, "-") {
		sign, raw = "-", raw[1:]
	}
	if i := strings.IndexFunc(raw, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		raw = raw[:i]
	}
	return sign + raw
}
