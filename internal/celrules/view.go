package celrules

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

// A class is a type of objects in expressions: one for each section of a policy.
type class struct {
	section schema.Section
	name    string // of the variable and the target
	typ     *cel.Type
	summary string // describes an object of the class, for the documentation
}

var (
	policyClass = newClass(schema.Top, "policy", "the policy as a whole")
	streamClass = newClass(schema.Streams, "stream", "a streamtype")
	storeClass  = newClass(schema.TrustStores, "trust_store", "a trust store")
	certClass   = newClass(schema.Certs, "certificate", "a certificate")
	retryClass  = newClass(schema.Retry, "retry", "a backoff scheme")
	authClass   = newClass(schema.Auth, "auth", "an auth scheme")
	metricClass = newClass(schema.Metrics, "metric", "a metric policy")
)

// classes are all classes, in the order of the documentation.
var classes = []*class{streamClass, storeClass, certClass, retryClass, authClass, metricClass, policyClass}

func newClass(s schema.Section, name, summary string) *class {
	return &class{s, name, cel.ObjectType("sspolicy." + name), summary}
}

// Targets returns the values that Spec.Target may have.
func Targets() (names []string) {
	for _, c := range classes {
		names = append(names, c.name)
	}
	return names
}

func classOf(name string) *class {
	if i := slices.IndexFunc(classes, func(c *class) bool { return c.name == name }); i >= 0 {
		return classes[i]
	}
	return nil
}

// A field is a field of a class.
type field struct {
	name string
	typ  *cel.Type
	doc  string
	key  *schema.Key // whose value it is; nil for a computed field
	get  func(*object) any
}

// fields returns the fields of each class by name: the keys of its section, and the
// computed ones.
var fields = sync.OnceValue(func() map[*class]map[string]*field {
	all := map[*class]map[string]*field{}
	for _, c := range classes {
		all[c] = map[string]*field{}
		for _, k := range schema.Keys(c.section) {
			if f := keyField(k); f != nil {
				all[c][f.name] = f
			}
		}
		for _, f := range computed(c) {
			if key := all[c][f.name]; key != nil {
				f.key = key.key
			}
			all[c][f.name] = &f
		}
	}
	return all
})

// fieldNames returns the names of the fields of a class, sorted.
func fieldNames(c *class) []string {
	var names []string
	for name := range fields()[c] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// keyField returns the field for a key, or nil for one whose values are objects that
// policy has as lists.
func keyField(k *schema.Key) *field {
	f := &field{name: strings.ReplaceAll(strings.TrimPrefix(k.Name, "$"), "-", "_"), doc: k.Description, key: k}
	switch {
	case k.Name == "http_resp_map":
		f.typ, f.get = cel.MapType(cel.IntType, cel.IntType), responses
	case k.Name == "metadata" || k.Name == "options":
		f.typ, f.get = cel.MapType(cel.StringType, cel.StringType), f.pairs
	case k.Is("array") && k.Width > 0:
		f.typ, f.get = cel.ListType(cel.IntType), f.integers
	case k.Is("array") && k.Is("string"):
		f.typ, f.get = cel.ListType(cel.StringType), f.texts
	case k.Is("boolean"):
		f.typ, f.get = cel.BoolType, func(o *object) any { return o.def.Bool(k.Name) }
	case k.Is("integer"):
		f.typ, f.get = cel.IntType, func(o *object) any { return integer(o.value(k.Name)) }
	case k.Is("string"):
		f.typ, f.get = cel.StringType, func(o *object) any { return o.value(k.Name).Text() }
	default:
		return nil
	}
	return f
}

var missing schema.Value

// integer returns the number that a value stands for, or 0.
func integer(v *schema.Value) int64 {
	n, err := strconv.ParseInt(v.Raw(), 10, 64)
	if v.Kind != schema.Number || err != nil {
		return 0
	}
	return n
}

// elems returns the elements of a list, or a single value as a list.
func elems(v *schema.Value) (all []*schema.Value) {
	if v.Array == nil && v.Kind != schema.Missing {
		return []*schema.Value{v}
	}
	for _, e := range v.Elems() {
		all = append(all, &e.Value)
	}
	return all
}

func (f *field) integers(o *object) any {
	list := []int64{}
	for _, v := range elems(o.value(f.key.Name)) {
		list = append(list, integer(v))
	}
	return list
}

func (f *field) texts(o *object) any {
	list := []string{}
	for _, v := range elems(o.value(f.key.Name)) {
		list = append(list, v.Text())
	}
	return list
}

// pairs returns a list of objects as one map.
func (f *field) pairs(o *object) any {
	pairs := map[string]string{}
	for _, v := range elems(o.value(f.key.Name)) {
		for _, m := range v.Members() {
			pairs[m.Key] = m.Value.Text()
		}
	}
	return pairs
}

// responses returns http_resp_map as one map.
func responses(o *object) any {
	codes := map[int64]int64{}
	for _, v := range elems(o.value("http_resp_map")) {
		for _, m := range v.Members() {
			if status, err := strconv.ParseInt(m.Key, 10, 64); err == nil {
				codes[status] = integer(&m.Value)
			}
		}
	}
	return codes
}

// A view is a pass as expressions see it.
type view struct {
	policy  *schema.Policy
	objects map[*schema.Definition]*object
	targets map[*schema.Definition]map[string]*schema.Definition // of references, by key
	users   map[*schema.Definition][]string                      // the names of the definitions that refer to one
	root    *object
	cost    uint64 // of all evaluations
}

var viewOf = lint.Memo(func(p *lint.Pass) *view {
	v := &view{
		policy: p.Policy, objects: map[*schema.Definition]*object{},
		targets: map[*schema.Definition]map[string]*schema.Definition{}, users: map[*schema.Definition][]string{},
	}
	top := &schema.Definition{Value: &p.Document.Root, Settings: p.Policy.Settings}
	v.root = &object{class: policyClass, view: v, def: top}
	for _, r := range p.Policy.References {
		if r.Target == nil {
			continue
		}
		if v.targets[r.From] == nil {
			v.targets[r.From] = map[string]*schema.Definition{}
		}
		v.targets[r.From][r.Key.Name+"/"+r.Name] = r.Target
		if users := v.users[r.Target]; !slices.Contains(users, r.From.Name) {
			v.users[r.Target] = append(users, r.From.Name)
		}
	}
	return v
})

// object returns the object for a definition; def may be nil.
func (v *view) object(c *class, def *schema.Definition) *object {
	if def == nil {
		return &object{class: c, view: v, def: &schema.Definition{Section: c.section, Value: &missing}}
	}
	o := v.objects[def]
	if o == nil {
		o = &object{class: c, view: v, def: def}
		v.objects[def] = o
	}
	return o
}

// section returns the objects of a section.
func (v *view) section(c *class) []*object {
	if c == policyClass {
		return []*object{v.root}
	}
	all := []*object{}
	for _, d := range v.policy.Section(c.section) {
		if !d.Unreadable {
			all = append(all, v.object(c, d))
		}
	}
	return all
}

// An object is a definition as expressions see it. It implements ref.Val.
type object struct {
	class *class
	view  *view
	def   *schema.Definition
	cert  *parsedCert // of a certificate; set when it is parsed
}

// value returns the value of a key.
func (o *object) value(key string) *schema.Value {
	if s := o.setting(key); s != nil {
		return &s.Member.Value
	}
	return &missing
}

// setting returns the setting of a key, or nil. Unlike Get, it accepts definitions
// that this package has made.
func (o *object) setting(key string) *schema.Setting {
	if o.class != policyClass {
		return o.def.Get(key)
	}
	for _, s := range slices.Backward(o.def.Settings) {
		if s.Member.Key == key {
			return s
		}
	}
	return nil
}

// target returns the object that the reference in a key refers to.
func (o *object) target(c *class, key string) *object {
	return o.view.object(c, o.view.targets[o.def][key+"/"+o.value(key).Text()])
}

// ConvertToNative implements ref.Val.
func (o *object) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("no conversion of %v to %v", o.class.typ, t)
}

// ConvertToType implements ref.Val.
func (o *object) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return o.class.typ
	}
	return types.NewErr("no conversion of %v to %v", o.class.typ, t.TypeName())
}

// Equal implements ref.Val: an object is equal to itself.
func (o *object) Equal(other ref.Val) ref.Val {
	p, ok := other.(*object)
	return types.Bool(ok && (p == o || p.class == o.class && p.def.Value == o.def.Value))
}

// Type implements ref.Val.
func (o *object) Type() ref.Type { return o.class.typ }

// Value implements ref.Val.
func (o *object) Value() any { return o }

// A provider provides the types of objects to CEL.
type provider struct{ types.Provider }

func (p provider) class(name string) *class {
	if i := slices.IndexFunc(classes, func(c *class) bool { return c.typ.TypeName() == name }); i >= 0 {
		return classes[i]
	}
	return nil
}

// FindStructType implements types.Provider.
func (p provider) FindStructType(name string) (*types.Type, bool) {
	if c := p.class(name); c != nil {
		return types.NewTypeTypeWithParam(c.typ), true
	}
	return p.Provider.FindStructType(name)
}

// FindStructFieldNames implements types.Provider.
func (p provider) FindStructFieldNames(name string) ([]string, bool) {
	if c := p.class(name); c != nil {
		return fieldNames(c), true
	}
	return p.Provider.FindStructFieldNames(name)
}

// FindStructFieldType implements types.Provider.
func (p provider) FindStructFieldType(name, fieldName string) (*types.FieldType, bool) {
	c := p.class(name)
	if c == nil {
		return p.Provider.FindStructFieldType(name, fieldName)
	}
	f := fields()[c][fieldName]
	if f == nil {
		return nil, false
	}
	return &types.FieldType{
		Type:    f.typ,
		IsSet:   func(target any) bool { return f.set(target.(*object)) },
		GetFrom: func(target any) (any, error) { return f.get(target.(*object)), nil },
	}, true
}

// NewValue implements types.Provider. Expressions cannot create objects of
// policies.
func (p provider) NewValue(name string, values map[string]ref.Val) ref.Val {
	if p.class(name) != nil {
		return types.NewErr("an expression cannot make a %s", name)
	}
	return p.Provider.NewValue(name, values)
}

// set implements the macro has(): whether a policy has a key, or whether a computed
// field is not empty.
func (f *field) set(o *object) bool {
	if f.key != nil {
		return o.setting(f.key.Name) != nil
	}
	switch v := f.get(o).(type) {
	case *object:
		return v.def.Value != &missing
	default:
		r := reflect.ValueOf(v)
		return !r.IsZero() && (r.Kind() != reflect.Slice || r.Len() > 0)
	}
}

// An adapter converts values to CEL.
type adapter struct{ types.Adapter }

// NativeToValue implements types.Adapter.
func (a adapter) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case *object:
		return v
	case []*object:
		list := make([]ref.Val, len(v))
		for i, o := range v {
			list[i] = o
		}
		return types.NewRefValList(a, list)
	}
	return a.Adapter.NativeToValue(v)
}
