package codegen

import (
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// A plan maps the keys of a section to the fields of a runtime type.
type plan struct {
	fields []field
	byKey  map[string]int // index into fields
}

// A field is a struct field with a policy tag.
type field struct {
	key   *schema.Key
	index []int // for reflect.Value.FieldByIndex
	set   setter
	adds  bool // a setting of the key adds to earlier ones
}

// newPlan returns the plan of a type, including the structs that the fields in arms
// point to.
func newPlan(s schema.Section, t reflect.Type, arms ...string) *plan {
	p := &plan{byKey: map[string]int{}}
	p.add(s, t, nil)
	for _, arm := range arms {
		f, _ := t.FieldByName(arm)
		p.add(s, f.Type.Elem(), f.Index)
	}
	return p
}

func (p *plan) add(s schema.Section, t reflect.Type, at []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("policy")
		if key == "" {
			continue
		}
		p.byKey[key] = len(p.fields)
		p.fields = append(p.fields, field{
			key:   schema.LookupKey(s, key),
			index: append(slices.Clip(at), i),
			set:   setters[f.Type],
			// In lws, lists grow with each repetition of their key, except the
			// response map.
			adds: f.Type.Kind() == reflect.Slice && f.Type != reflect.TypeFor[[]policy.StatusState](),
		})
	}
}

// value returns the field of a struct.
func (f *field) value(of reflect.Value) reflect.Value { return of.FieldByIndex(f.index) }

// plans returns the plan of each type except streamtypes.
var plans = sync.OnceValue(func() map[reflect.Type]*plan {
	m := map[reflect.Type]*plan{}
	for t, s := range map[reflect.Type]schema.Section{
		reflect.TypeFor[policy.Policy]():     schema.Top,
		reflect.TypeFor[policy.Retry]():      schema.Retry,
		reflect.TypeFor[policy.TrustStore](): schema.TrustStores,
		reflect.TypeFor[policy.Metric]():     schema.Metrics,
		reflect.TypeFor[policy.Auth]():       schema.Auth,
	} {
		m[t] = newPlan(s, t)
	}
	return m
})

// streamPlans returns the plan of streamtypes with each arm.
var streamPlans = sync.OnceValue(func() map[arm]*plan {
	t := reflect.TypeFor[policy.StreamType]()
	return map[arm]*plan{
		noArm:   newPlan(schema.Streams, t),
		armHTTP: newPlan(schema.Streams, t, "HTTP"),
		armMQTT: newPlan(schema.Streams, t, "MQTT"),
	}
})

// An arm is the protocol-specific part of a streamtype: in lws, a member of the
// union u.
type arm int

const (
	noArm arm = iota
	armHTTP
	armMQTT
)

func armOf(p policy.Protocol) arm {
	switch p {
	case policy.ProtocolH1, policy.ProtocolH2, policy.ProtocolH3, policy.ProtocolWS:
		return armHTTP
	case policy.ProtocolMQTT:
		return armMQTT
	}
	return noArm
}

// unit returns the unit of a key whose value is a duration.
func unit(k *schema.Key) time.Duration {
	switch k.Name {
	case "svalidping", "svalidhup", "mqtt_keep_alive":
		return time.Second
	}
	return time.Millisecond
}
