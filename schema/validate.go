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
	// The URL is absolute so that the library does not look up the working
	// directory, which may not exist. A test compiles the schema.
	return jsonschema.MustCompileString("schema:policy.schema.json", JSONSchema)
})

// Validate checks the shape of a policy against the JSON Schema: keys, types,
// ranges. Each diagnostic is at the key or value that is wrong. Syntax errors are
// not repeated. It reports at most MaxFindings of a rule, and the number of the
// rest.
//
// It walks the tree together with the schema, to check all members that share a
// key, and to know the position of each value.
func Validate(d *Document) []Diagnostic {
	v := &validator{excess: map[string]*Limiter{}}
	return v.document(d)
}

// ValidateAll is like [Validate] without the limit of MaxFindings.
func ValidateAll(d *Document) []Diagnostic {
	v := &validator{}
	return v.document(d)
}

// ValidateFragment checks the shape of a fragment for an overlay. That is the shape
// of a policy, except that null removes a streamtype, its settings and the named
// entries of their lists, a backoff scheme, a certificate or a setting of the
// policy.
func ValidateFragment(d *Document) []Diagnostic {
	v := &validator{excess: map[string]*Limiter{}, fragment: true}
	return v.document(d)
}

func (v *validator) document(d *Document) []Diagnostic {
	for _, half := range d.Root.LoneSurrogates() {
		v.report(RuleBadValue, Error, half, "%s is half of a character: lws makes bytes of it that are not UTF-8, and no table can hold it", half.Text())
	}
	if d.Root.Kind == ObjectKind {
		v.object(policySchema(), Top, nil, &d.Root)
	}
	for _, e := range v.excess {
		if rest := e.Rest(); rest != nil {
			v.diags = append(v.diags, *rest)
		}
	}
	return SortDiagnostics(v.diags)
}

type validator struct {
	diags  []Diagnostic
	excess map[string]*Limiter // by rule; nil means no limit
	around *Object             // the object being checked
	entry  bool                // the value being checked is an element of the list of its key

	fragment bool // null removes named entries
}

// has reports whether the object being checked has a member with this key.
func (v *validator) has(key string) bool {
	return slices.ContainsFunc(v.around.Members, func(m *Member) bool { return m.Key == key })
}

func (v *validator) report(rule string, sev Severity, at Span, format string, args ...any) *Diagnostic {
	d := Diagnostic{Rule: rule, Severity: sev, Span: at, Message: fmt.Sprintf(format, args...)}
	if v.excess != nil {
		e := v.excess[rule]
		if e == nil {
			e = &Limiter{}
			v.excess[rule] = e
		}
		if instead, keep := e.Add(d); !keep {
			return instead
		}
	}
	v.diags = append(v.diags, d)
	return &v.diags[len(v.diags)-1]
}

// value checks a value in a definition of a section. The key is nil if the table
// does not have it.
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
	if n := len(val.Array.Elems); s.MinItems >= 0 && n < s.MinItems {
		v.report(RuleBadCount, Error, val.Span, "%s is empty: it takes at least %d", k.Name, s.MinItems)
	}
	if s.Items2020 != nil {
		defer func(entry bool) { v.entry = entry }(v.entry)
		for _, e := range val.Array.Elems {
			v.entry = true
			v.value(s.Items2020, in, k, &e.Value)
		}
	}
}

func (v *validator) object(s *jsonschema.Schema, in Section, k *Key, val *Value) {
	defer func(o *Object, entry bool) { v.around, v.entry = o, entry }(v.around, v.entry)
	v.entry = false
	seen := newKeyIndex(val.Object.Members)
	var lists []*Member // the first member of each key with a limited number of entries
	for i, m := range val.Object.Members {
		if m.NameKind == Missing {
			continue
		}
		v.around = val.Object
		prop, sub := s.Properties[m.Key], in
		for re, p := range s.PatternProperties {
			if prop == nil && re.MatchString(m.Key) {
				prop = p
			}
		}
		known := prop != nil
		if rest, ok := s.AdditionalProperties.(*jsonschema.Schema); ok && !known {
			prop = rest
		}
		memberKey := k
		if s.Properties[m.Key] != nil {
			memberKey = LookupKey(in, m.Key)
			if in == Top {
				sub = Section(m.Key)
			}
		}
		if first := seen.first(i); first == m {
			if p := s.Properties[m.Key]; p != nil && p.MaxItems >= 0 {
				lists = append(lists, m)
			}
		} else if known {
			v.duplicate(in, memberKey, first, m)
		}
		switch {
		case prop == nil && s.AdditionalProperties == false:
			v.unknown(in, k, m)
		case prop != nil:
			if s.PropertyNames != nil && !nameFits(s.PropertyNames, m.Key) {
				v.report(RuleBadLength, Error, m.Name.Span, "this name is empty: lws 4.1 to 5.0 crash on it or add its settings to the entry before")
			}
			if v.fragment && m.Value.Kind == Null && removable(in, k, m.Key, known) {
				continue
			}
			if !known && k != nil && k.Section == Top && sections[in].keyed && !allowsKind(prop, m.Value.Kind) {
				v.notADefinition(in, prop, m)
			} else {
				v.value(prop, sub, memberKey, &m.Value)
			}
		}
	}
	for _, m := range lists {
		v.count(m.Key, s.Properties[m.Key].MaxItems, LookupKey(in, m.Key), val.Object)
	}
	for _, name := range s.Required {
		if v.has(name) || v.misspelt(in, name) {
			continue
		}
		if in == TrustStores && name == "stack" && !v.has("name") || in == TrustStores && v.legacyStore(val) {
			continue // one diagnostic for the entry is enough
		}
		at := val.Span
		at.End = at.Start + 1
		v.report(RuleMissingKey, Error, at, "this %s has no %q", in.Noun(), name)
	}
}

// removable reports whether null as a member of an object in a fragment removes
// that member. The object is the value of the key k, or an entry of its list.
func removable(in Section, k *Key, member string, known bool) bool {
	switch {
	case in == Streams:
		return true // a streamtype, a setting, or an entry of a list
	case in == Top && k == nil:
		return known && sections[Section(member)].noun == ""
	}
	return sections[in].keyed && !known // a definition
}

// A keyIndex finds members by key.
type keyIndex struct {
	members []*Member
	byKey   map[string]*Member // the first member of each key; nil for few members
}

func newKeyIndex(members []*Member) keyIndex {
	const few = 32 // up to here a search is faster than making a map
	x := keyIndex{members: members}
	if len(members) > few {
		x.byKey = make(map[string]*Member, len(members))
		for _, m := range slices.Backward(members) {
			if m.NameKind != Missing {
				x.byKey[m.Key] = m
			}
		}
	}
	return x
}

// first returns the first member that has the key of member i.
func (x keyIndex) first(i int) *Member {
	key := x.members[i].Key
	if x.byKey != nil {
		return x.byKey[key]
	}
	for _, m := range x.members[:i] {
		if m.Key == key && m.NameKind != Missing {
			return m
		}
	}
	return x.members[i]
}

// notADefinition reports an entry of a section that has a type other than that of
// its definitions.
func (v *validator) notADefinition(in Section, s *jsonschema.Schema, m *Member) {
	for s.Ref != nil {
		s = s.Ref
	}
	d := v.report(RuleWrongType, Error, m.Value.Span, "%s %s is %s, not %s", in.Noun(), QuoteName(m.Key), article(s.Types[0]), m.Value.Kind)
	if m.Key == "name" {
		d.Message += ": the name of a " + in.Noun() + " is its key"
	}
}

// allowsKind reports whether a schema allows a value of this kind. A missing value
// is allowed, since the parser has reported it.
func allowsKind(s *jsonschema.Schema, kind Kind) bool {
	for s.Ref != nil {
		s = s.Ref
	}
	switch kind {
	case ObjectKind:
		return allows(s, "object")
	case ArrayKind:
		return allows(s, "array")
	case String:
		return allows(s, "string")
	}
	return kind == Missing || kind == Invalid
}

// count checks the number of entries in all lists of a key, or in the last one if
// lws keeps only that. An object in a list has as many entries as members.
func (v *validator) count(name string, most int, k *Key, o *Object) {
	var entries []Span
	for _, m := range o.Members {
		if m.Key != name {
			continue
		}
		if k == nil || !k.Joined() {
			entries = entries[:0]
		}
		n := len(entries)
		for _, e := range m.Value.Elems() {
			if len(e.Value.Members()) == 0 {
				entries = append(entries, e.Value.Span)
			}
			for _, item := range e.Value.Members() {
				entries = append(entries, item.Span())
			}
		}
		if m.Value.Kind != ArrayKind {
			entries = append(entries, m.Value.Span)
		}
		if n <= most && len(entries) > most {
			v.report(RuleBadCount, Error, entries[most], "this is one too many of %d: %s takes at most %d", len(entries), name, most)
		}
	}
}

// misspelt reports whether the object being checked has an unknown key that is
// probably meant to be key.
func (v *validator) misspelt(in Section, key string) bool {
	return slices.ContainsFunc(v.around.Members, func(m *Member) bool {
		if LookupKey(in, m.Key) != nil {
			return false
		}
		best, _ := nearest(in, m.Key)
		return best == key
	})
}

// legacyStore reports whether a trust store has the form of lws's README.
func (v *validator) legacyStore(val *Value) bool {
	return !v.has("name") && slices.ContainsFunc(val.Object.Members, func(m *Member) bool {
		return LookupKey(TrustStores, m.Key) == nil && m.Value.Kind == ArrayKind
	})
}

func (v *validator) duplicate(in Section, k *Key, first, again *Member) {
	if in == Top && Section(again.Key) != Top && sections[Section(again.Key)].noun != "" {
		return // sections may be repeated
	}
	d := v.report(RuleDuplicateKey, Error, again.Name.Span, "duplicate key %s", QuoteName(again.Key))
	d.Related = []Related{{first.Name.Span, "the first one"}}
	switch {
	case first.Value.Span.Text() == again.Value.Span.Text():
		d.Severity = Warning
		d.Message += ", with the same value"
	case k != nil && k.Inert && in == Top:
		d.Severity = Warning
	case k != nil && k.Joined():
		d.Severity = Warning
		d.Message += ": lws joins the lists"
	case k != nil && k.Is("boolean") && k.Sticky:
		d.Message += ": for lws it is true if one of them is"
	default:
		d.Message += ": only the last counts"
	}
}

// unknown reports a key that is not in the schema.
func (v *validator) unknown(in Section, k *Key, m *Member) {
	switch {
	case k != nil && k.Name == "http_resp_map":
		v.report(RuleBadValue, Error, m.Name.Span, "%s is not an HTTP status: these are 100 to 599", QuoteName(m.Key))
		return
	case in == own:
		v.report(RuleUnknownKey, Error, m.Name.Span, "x-sspolicy has no setting %s of a streamtype: it has \"metadata\"", QuoteName(m.Key))
		return
	case k != nil && k.Name == string(own):
		v.report(RuleUnknownKey, Error, m.Name.Span, "x-sspolicy has no %s: it holds \"streams\" and \"base\"", QuoteName(m.Key))
		return
	case in == TrustStores && m.Value.Kind == ArrayKind && !v.has("name"):
		d := v.report(RuleLegacyForm, Error, m.Name.Span,
			"lws ignores a trust store in this form, though its README has it: write {\"name\": %s, \"stack\": [...]}", QuoteName(m.Key))
		d.Fixes = []Fix{newFix("write name and stack",
			Span{m.Name.Span.Source, m.Name.Span.Start, m.Value.Span.Start}, `"name": `+m.RawName()+`, "stack": `)}
		return
	}
	d := v.report(RuleUnknownKey, Error, m.Name.Span, "%s is not a key of a %s", QuoteName(m.Key), in.Noun())
	if e := v.excess[RuleUnknownKey]; e != nil && e.dropped > 0 {
		if in != Streams && in != Retry {
			d.Severity = Warning
		}
		return // the rest of the message would not help
	}
	join := "; "
	rename := func(key string, safe bool) {
		if k := LookupKey(in, key); v.has(key) || k == nil || !k.Accepts(&m.Value) {
			return
		}
		fix := newFix("write "+key, m.Name.Span, Quote(key))
		fix.Safe = safe
		d.Fixes = []Fix{fix}
	}
	if advice := table().common[in][m.Key]; advice != "" {
		d.Message += ": " + advice
	} else if better, only := nearest(in, m.Key); better != "" {
		d.Message += ": did you mean " + QuoteName(better)
		if v.has(better) {
			d.Message += ", which is set too"
		}
		d.Message += "?"
		join = " "
		if only {
			rename(better, slices.Contains(LookupKey(in, better).Aliases, m.Key) || fold(better) == fold(m.Key) || in != Top && misspelt(m.Key, better))
		}
	} else if use, ok := table().documented[in][m.Key]; ok {
		d.Message += ", though lws's documentation has it"
		if use != "" {
			d.Message += ": use " + QuoteName(use)
			rename(use, true)
		}
	}
	switch {
	case in == Streams:
		d.Message += join + "lws makes a phantom streamtype of it, which takes every later key of this one"
	case in == Retry:
		d.Message += join + "lws makes a phantom backoff scheme of it, which takes every later key of this one"
	default:
		d.Severity = Warning
		d.Message += join + "lws ignores it"
	}
}

// leaf checks a scalar, or a value of the wrong type.
func (v *validator) leaf(s *jsonschema.Schema, k *Key, val *Value) {
	if plainly(s, val) {
		return
	}
	err, ok := s.Validate(goValue(val)).(*jsonschema.ValidationError)
	if !ok {
		if val.Kind == String && s.MaxLength >= 0 && len(val.Text()) > s.MaxLength {
			v.tooLong(s, k, k.Name, val)
		}
		if val.Kind == Number && allows(s, "integer") && strings.ContainsAny(val.Raw(), ".eE") {
			d := v.report(RuleBadValue, Error, val.Span, "write this integer without %s: lws reads %s and stops at the next character", "point or exponent", shortNumber(leadingDigits(val.Raw())))
			v.rewrite(d, k, val)
		}
		return
	}
	for len(err.Causes) > 0 {
		err = err.Causes[0]
	}
	name := "this"
	if k != nil {
		name = k.Name
		if v.entry {
			name = "an entry of " + name
		}
	}
	switch keyword := err.KeywordLocation[strings.LastIndexByte(err.KeywordLocation, '/')+1:]; keyword {
	case "type":
		v.wrongType(s, k, name, val)
	case "minimum", "maximum":
		d := v.report(RuleOutOfRange, Error, val.Span, "%s must be %s to %s, not %s", name, bound(s.Minimum, "0"), bound(s.Maximum, ""), shortNumber(val.Raw()))
		if k != nil && k.Width > 0 {
			d.Message += "; lws keeps " + Wrap(val.Raw(), k)
		}
		if k != nil && k.Name == "conceal" && !strings.HasPrefix(val.Raw(), "-") {
			d.Fixes = []Fix{{Message: "write 65535, which means forever", Edits: []Edit{{val.Span, "65535"}}}}
		}
	case "enum":
		v.badEnum(s, k, name, val)
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
	not := val.Kind.String()
	if val.Kind == Number {
		not = shortNumber(val.Raw())
	}
	d := v.report(RuleWrongType, Error, val.Span, "%s must be %s, not %s", name, strings.Join(want, " or "), not)
	text := val.Text()
	switch {
	case k != nil && k.Inert && k.Section == Top:
		d.Severity = Warning
	case k != nil && k.Section == Top && allows(s, "array"):
		d.Message += "; lws ignores it"
	case allows(s, "boolean"):
		if val.LikeFalse() {
			d.Severity = Warning
		}
		if val.Kind != ObjectKind && val.Kind != ArrayKind {
			d.Message += "; lws takes it as not set"
			v.rewrite(d, k, val)
		}
	case allows(s, "integer") && val.Kind == String:
		if text != "" && strings.Trim(text, "0123456789") == "" {
			d.Severity = Warning
			d.Message += "; lws reads the digits"
		}
		v.rewrite(d, k, val)
	case allows(s, "string") && val.Kind == Number:
		d.Severity = Warning
		d.Message += "; lws takes its digits as the string"
		d.Fixes = []Fix{newFix("write "+Quote(text), val.Span, Quote(text))}
	}
}

// rewrite adds the fix that writes a value in the type of its key, if the value is
// unambiguous.
func (v *validator) rewrite(d *Diagnostic, k *Key, val *Value) {
	if want, ok := k.convert(val.Text()); ok {
		d.Fixes = []Fix{newFix("write "+want, val.Span, want)}
	}
}

// Accepts reports whether a value has a type of the key, or unambiguously stands
// for one.
func (k *Key) Accepts(v *Value) bool {
	switch v.Kind {
	case ObjectKind:
		return k.Is("object")
	case ArrayKind:
		return k.Is("array")
	case String:
		if k.Is("string") {
			return k.Enum == nil || slices.Contains(k.Enum, v.Text()) || k.ValueAliases[v.Text()] != nil
		}
	case Number:
		if k.Is("integer") && digits(v.Raw()) {
			n, ok := new(big.Int).SetString(v.Raw(), 10)
			return ok && k.holds(n)
		}
	case Bool:
		return k.Is("boolean")
	}
	_, ok := k.convert(v.Text())
	return ok
}

func article(typ string) string {
	if strings.IndexByte("aio", typ[0]) >= 0 {
		return "an " + typ
	}
	return "a " + typ
}

func (v *validator) badEnum(s *jsonschema.Schema, k *Key, name string, val *Value) {
	if k == nil {
		v.report(RuleBadValue, Error, val.Span, "unknown value %s: want %v", QuoteName(val.Text()), s.Enum[0])
		return
	}
	d := v.report(RuleBadValue, Error, val.Span, "unknown %s %s: want one of %s", name, QuoteName(val.Text()), strings.Join(k.Enum, ", "))
	use := k.Replacement(val.Text())
	if use == nil {
		return
	}
	text, certain := Quote(use[k.Name].(string)), true
	for _, other := range slices.Sorted(maps.Keys(use)) {
		if other == k.Name {
			continue
		}
		value, _ := json.Marshal(use[other])
		if v.has(other) {
			certain = certain && slices.ContainsFunc(v.around.Members, func(m *Member) bool { return m.Key == other && m.Value.Raw() == string(value) })
		} else {
			text += ", " + Quote(other) + ": " + string(value)
		}
	}
	d.Message = fmt.Sprintf("unknown %s %s: write %s", name, QuoteName(val.Text()), text)
	if k.ValueAliases[val.Text()] != nil {
		d.Rule = RuleLegacyForm
		d.Message = fmt.Sprintf("lws refuses the %s %s, though its README has it: write %s", name, QuoteName(val.Text()), text)
		certain = true
	}
	d.Fixes = []Fix{newFix("write "+text, val.Span, text)}
	d.Fixes[0].Safe = certain
}

// tooLong reports a string that lws truncates. JSON Schema counts characters; lws
// counts bytes.
func (v *validator) tooLong(s *jsonschema.Schema, k *Key, name string, val *Value) {
	n := len(val.Text())
	d := v.report(RuleBadLength, Error, val.Span, "%s has %d bytes, and lws keeps at most %d", name, n, s.MaxLength)
	switch chunk := s.MaxLength + 1; {
	case k != nil && k.Ref != Top && k.Match != MatchUnchecked:
		d.Message += "; lws refuses it"
	case k != nil && k.Name == "metadata":
		d.Message += fmt.Sprintf("; lws makes several items of it, each %d bytes", chunk)
	case n%chunk == 0:
		d.Message += "; lws keeps nothing of it"
	default:
		d.Message += fmt.Sprintf("; lws keeps the last %d", n%chunk)
	}
}

// goValue returns a scalar in the type that jsonschema expects, and an empty object
// or array for any other value.
func goValue(v *Value) any {
	switch v.Kind {
	case Bool:
		return v.Raw() == "true"
	case Number:
		return plainNumber(v.Raw())
	case String:
		return v.Text()
	case ObjectKind:
		return map[string]any{}
	case ArrayKind:
		return []any{}
	}
	return nil
}

// plainNumber returns a number in the type that jsonschema expects. jsonschema
// converts all digits to a fraction, so a number that is too long is replaced by a
// short one of the same sign that is also out of range or not an integer.
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

// maxDigits is the maximum number of digits that are read and shown.
const maxDigits = 40

// shortNumber shortens a number for a message.
func shortNumber(raw string) string {
	if len(raw) > maxDigits {
		return raw[:maxDigits] + "…"
	}
	return raw
}

// Wrap returns the value that lws stores for a number that its member cannot hold.
// lws reads the leading digits as a 64-bit integer, which saturates, and keeps the
// lowest bits: glibc's atoi and a C conversion (lws 4.1.6 to 5.0.0,
// lib/secure-streams/policy-json.c).
func Wrap(raw string, k *Key) string {
	i, _ := strconv.ParseInt(leadingDigits(raw), 10, 64) // saturates if out of range
	n := uint64(i)
	mask := ^uint64(0) >> (64 - k.Width)
	if k.Name == "client_cert" {
		n = (n + 1) & mask // lws stores one more, so that 0 means none
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
