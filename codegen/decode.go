package codegen

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// A decoder reads tables of lws from an image.
type decoder struct {
	*image
	target  Target
	shapes  map[string]*shape
	objects map[uint64]any // parts of the policy by address
	known   uint32         // flags of the target
	spent   uint64         // approximate number of bytes read
}

func newDecoder(m *image, b build) *decoder {
	d := &decoder{image: m, target: b.target, shapes: map[string]*shape{}, objects: map[uint64]any{}}
	for typ := range layouts {
		d.shapes[typ] = b.shape(typ)
	}
	for _, k := range schema.Keys(schema.Streams) {
		if k.Flag != "" && b.target.has(k.Since, "") {
			d.known |= 1 << k.Bit
		}
	}
	return d
}

// spend counts n bytes as read. It fails if the total exceeds that of any policy,
// as with a cyclic list.
func (d *decoder) spend(n uint64) error {
	if n > schema.MaxSize || d.spent > schema.MaxSize-n {
		return errors.New("the tables are larger than a policy, or have no end")
	}
	d.spent += n
	return nil
}

// policy returns the policy whose list of streamtypes begins at an address.
func (d *decoder) policy(head uint64) (*policy.Policy, error) {
	p := &policy.Policy{}
	metrics, err := d.pointer(head, "lws_ss_policy_t", "metrics")
	if err != nil {
		return nil, err
	}
	err = d.list(metrics, "lws_metric_policy_t", func(at uint64) error {
		m := &policy.Metric{}
		p.Metrics = append(p.Metrics, m)
		return d.fill(reflect.ValueOf(m).Elem(), plans()[reflect.TypeFor[policy.Metric]()], at, "lws_metric_policy_t")
	})
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	names := map[string]bool{}
	err = d.list(head, "lws_ss_policy_t", func(at uint64) error {
		st, err := d.stream(at)
		if err != nil {
			return err
		}
		if names[st.Name] {
			return fmt.Errorf("streamtype %s occurs twice", schema.QuoteName(st.Name))
		}
		names[st.Name] = true
		p.StreamTypes = append(p.StreamTypes, st)
		return nil
	})
	slices.Reverse(p.Metrics) // lws's lists begin with the last definition
	slices.Reverse(p.StreamTypes)
	return p, err
}

// stream returns the streamtype at an address.
func (d *decoder) stream(at uint64) (*policy.StreamType, error) {
	const typ = "lws_ss_policy_t"
	name, err := d.string(at, typ, "streamtype")
	if err != nil {
		return nil, fmt.Errorf("the name of a streamtype: %w", err)
	}
	st := &policy.StreamType{Name: name}
	fail := func(err error) (*policy.StreamType, error) {
		return nil, fmt.Errorf("streamtype %s: %w", schema.QuoteName(name), err)
	}
	number, err := d.integer(at, typ, "protocol")
	if err != nil {
		return fail(err)
	}
	for _, p := range cProtocols {
		if !d.target.has(p.since, "") {
			continue
		}
		if number == 0 {
			st.Protocol = p.protocol
			break
		}
		number--
	}
	if number > 0 {
		return fail(errors.New("unknown protocol"))
	}
	a := armOf(st.Protocol)
	switch a {
	case armHTTP:
		st.HTTP = &policy.HTTP{}
	case armMQTT:
		st.MQTT = &policy.MQTT{}
	}
	flags, err := d.integer(at, typ, "flags")
	if err != nil {
		return fail(err)
	}
	if unknown := uint32(flags) &^ d.known; unknown != 0 {
		return fail(fmt.Errorf("unknown flags 0x%x", unknown))
	}
	r := reflect.ValueOf(st).Elem()
	plan := streamPlans()[a]
	for i := range plan.fields {
		f := &plan.fields[i]
		set := f.key.Flag != "" && flags>>f.key.Bit&1 != 0
		if set && f.key.Name == "http_multipart_name" {
			st.HTTP.Multipart = true
		}
		if set && f.key.Member == "" {
			f.value(r).SetBool(true)
		}
	}
	if err := d.fill(r, plan, at, typ); err != nil {
		return fail(err)
	}
	return st, nil
}

// fill sets the fields of a struct from its C struct at an address.
func (d *decoder) fill(r reflect.Value, p *plan, at uint64, typ string) error {
	for i := range p.fields {
		f := &p.fields[i]
		if st, ok := r.Addr().Interface().(*policy.StreamType); ok && !inTrust(f.key, st.Server) {
			continue
		}
		if f.key.Member == "" || !d.has(typ, f.key.Member) {
			continue
		}
		if err := d.member(f.value(r), f.key, at, typ); err != nil {
			return fmt.Errorf("%s: %w", f.key.Name, err)
		}
	}
	return nil
}

// has reports whether a struct has a member, or an array, of that name.
func (d *decoder) has(typ, path string) bool {
	at := d.shapes[typ].at
	_, plain := at[path]
	_, array := at[path+"[0]"]
	return plain || array
}

// member sets a field from a member of the struct at an address.
func (d *decoder) member(field reflect.Value, k *schema.Key, at uint64, typ string) error {
	var v any
	var err error
	switch x := field.Interface().(type) {
	case string:
		v, err = d.string(at, typ, k.Member)
	case []policy.Metadata:
		v, err = d.metadata(at)
	case []policy.StatusState:
		v, err = d.respmap(at)
	case []policy.Option:
		v, err = d.options(at)
	case []time.Duration:
		v, err = d.durations(at, k)
	case []*policy.Cert:
		v, err = d.stack(at)
	case *policy.Retry:
		v, err = object(d, at, typ, k.Member, "lws_retry_bo_t", x)
	case *policy.TrustStore:
		v, err = object(d, at, typ, k.Member, "lws_ss_trust_store_t", x)
	case *policy.Auth:
		v, err = object(d, at, typ, k.Member, "lws_ss_auth_t", x)
	case *policy.Cert:
		v, err = d.cert(at, typ, k.Member)
	default:
		n, err := d.integer(at, typ, k.Member)
		switch {
		case err != nil:
			return err
		case field.Kind() == reflect.Bool:
			field.SetBool(n != 0)
		case field.Type() == reflect.TypeFor[time.Duration]():
			field.SetInt(int64(n) * int64(unit(k)))
		case field.Type() == reflect.TypeFor[policy.Protocol](): // set already
		default:
			field.SetUint(n)
		}
		return nil
	}
	if err == nil {
		field.Set(reflect.ValueOf(v))
	}
	return err
}

// object returns the part of the policy that a member points to, or nil. It returns
// the same value for the same address.
func object[T any](d *decoder, at uint64, typ, path, to string, _ *T) (*T, error) {
	address, err := d.pointer(at, typ, path)
	if err != nil || address == 0 {
		return nil, err
	}
	if v, ok := d.objects[address].(*T); ok {
		return v, nil
	}
	v := new(T)
	d.objects[address] = v
	r := reflect.ValueOf(v).Elem()
	return v, d.fill(r, plans()[r.Type()], address, to)
}

func (d *decoder) metadata(at uint64) ([]policy.Metadata, error) {
	const typ = "lws_ss_metadata_t"
	first, err := d.pointer(at, "lws_ss_policy_t", "metadata")
	if err != nil {
		return nil, err
	}
	var list []policy.Metadata
	var indexes []uint64
	err = d.list(first, typ, func(at uint64) error {
		name, err := d.string(at, typ, "name")
		if err != nil {
			return err
		}
		index, err := d.integer(at, typ, "length")
		if err != nil {
			return err
		}
		path := "value__may_own_heap"
		if !d.has(typ, path) {
			path = "value"
		}
		header, err := d.string(at, typ, path)
		if err != nil {
			return err
		}
		list = append(list, policy.Metadata{Name: name, Header: header})
		indexes = append(indexes, index)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if n, err := d.integer(at, "lws_ss_policy_t", "metadata_count"); err != nil || n != uint64(len(list)) {
		return nil, errors.Join(err, fmt.Errorf("%d items, but the count is %d", len(list), n))
	}
	if len(list) == 0 {
		return nil, nil
	}
	// lws numbers the values by the indexes.
	sorted, used := make([]policy.Metadata, len(list)), make([]bool, len(list))
	for i, index := range indexes {
		if index >= uint64(len(list)) || used[index] {
			return nil, errors.New("the indexes are not those of a list")
		}
		sorted[index], used[index] = list[i], true
	}
	return sorted, nil
}

func (d *decoder) respmap(at uint64) ([]policy.StatusState, error) {
	const typ = "lws_ss_http_respmap_t"
	first, err := d.pointer(at, "lws_ss_policy_t", "u.http.respmap")
	if err != nil {
		return nil, err
	}
	n, err := d.integer(at, "lws_ss_policy_t", "u.http.count_respmap")
	if err != nil || first == 0 {
		return nil, err
	}
	var list []policy.StatusState
	for i := range n {
		at := first + i*uint64(d.shapes[typ].size)
		status, err := d.integer(at, typ, "resp")
		if err != nil {
			return nil, err
		}
		state, err := d.integer(at, typ, "state")
		if err != nil {
			return nil, err
		}
		list = append(list, policy.StatusState{Status: uint16(status), State: policy.State(state)})
	}
	return list, nil
}

func (d *decoder) options(at uint64) ([]policy.Option, error) {
	const typ = "struct lws_protocol_vhost_options"
	first, err := d.pointer(at, "lws_ss_policy_t", "pvo")
	if err != nil {
		return nil, err
	}
	var list []policy.Option
	err = d.list(first, typ, func(at uint64) error {
		name, err := d.string(at, typ, "name")
		if err != nil {
			return err
		}
		value, err := d.string(at, typ, "value")
		list = append(list, policy.Option{Name: name, Value: value})
		return err
	})
	return list, err
}

func (d *decoder) durations(at uint64, k *schema.Key) ([]time.Duration, error) {
	first, err := d.pointer(at, "lws_retry_bo_t", "retry_ms_table")
	if err != nil {
		return nil, err
	}
	n, err := d.integer(at, "lws_retry_bo_t", "retry_ms_table_count")
	if err != nil || first == 0 {
		return nil, err
	}
	if n > uint64(k.MaxItems) {
		return nil, fmt.Errorf("%d entries, but a policy has at most %d", n, k.MaxItems)
	}
	if err := d.spend(4 * n); err != nil {
		return nil, err
	}
	var list []time.Duration
	for i := range n {
		b, err := d.bytes(first+4*i, 4)
		if err != nil {
			return nil, err
		}
		list = append(list, time.Duration(d.number(b))*time.Millisecond)
	}
	return list, nil
}

// stack returns the certificates of a trust store. lws's policy2c writes no count;
// the list then ends with the first empty place.
func (d *decoder) stack(at uint64) ([]*policy.Cert, error) {
	const typ = "lws_ss_trust_store_t"
	n, err := d.integer(at, typ, "count")
	if err != nil {
		return nil, err
	}
	var list []*policy.Cert
	for i := uint64(0); ; i++ {
		path := fmt.Sprintf("ssx509[%d]", i)
		if n > 0 && i == n || !d.has(typ, path) {
			break
		}
		c, err := d.cert(at, typ, path)
		if err != nil {
			return nil, err
		}
		if c == nil {
			break
		}
		list = append(list, c)
	}
	if n > 0 && uint64(len(list)) != n {
		return nil, fmt.Errorf("%d certificates, but the count is %d", len(list), n)
	}
	return list, nil
}

func (d *decoder) cert(at uint64, typ, path string) (*policy.Cert, error) {
	const to = "lws_ss_x509_t"
	address, err := d.pointer(at, typ, path)
	if err != nil || address == 0 {
		return nil, err
	}
	if c, ok := d.objects[address].(*policy.Cert); ok {
		return c, nil
	}
	c := &policy.Cert{}
	d.objects[address] = c
	if c.Name, err = d.string(address, to, "vhost_name"); err != nil {
		return nil, err
	}
	der, err := d.pointer(address, to, "ca_der")
	if err != nil {
		return nil, err
	}
	n, err := d.integer(address, to, "ca_der_len")
	if err != nil || n == 0 {
		return c, err
	}
	data, err := d.after(der)
	if err == nil {
		err = d.spend(n)
	}
	if err == nil && n > uint64(len(data)) {
		err = fmt.Errorf("certificate %s is cut off", schema.QuoteName(c.Name))
	}
	if err != nil {
		return nil, err
	}
	c.DER = string(data[:n])
	return c, nil
}

// list calls each for the items of a list.
func (d *decoder) list(first uint64, typ string, each func(at uint64) error) error {
	for at := first; at != 0; {
		err := d.spend(uint64(d.shapes[typ].size))
		if err == nil {
			err = each(at)
		}
		if err != nil {
			return err
		}
		if at, err = d.pointer(at, typ, "next"); err != nil {
			return err
		}
	}
	return nil
}

// pointer returns the address in a member, or 0 if the struct lacks the member.
func (d *decoder) pointer(at uint64, typ, path string) (uint64, error) {
	p, ok := d.shapes[typ].at[path]
	if !ok {
		return 0, nil
	}
	return d.address(at + uint64(p.offset))
}

// string returns the string that a member points to. NULL is the empty string.
func (d *decoder) string(at uint64, typ, path string) (string, error) {
	address, err := d.pointer(at, typ, path)
	if err != nil || address == 0 {
		return "", err
	}
	s, err := d.text(address)
	if err == nil {
		err = d.spend(uint64(len(s)))
	}
	if err == nil && !utf8.ValidString(s) {
		err = fmt.Errorf("%q is not UTF-8", s)
	}
	return s, err
}

// integer returns the value of a member, or 0 if the struct lacks the member.
func (d *decoder) integer(at uint64, typ, path string) (uint64, error) {
	p, ok := d.shapes[typ].at[path]
	if !ok {
		return 0, nil
	}
	b, err := d.bytes(at+uint64(p.offset), p.size)
	if err != nil {
		return 0, err
	}
	n := d.number(b)
	if p.bit > 0 {
		shift := p.bit - 1
		if b := d.order.Uint16([]byte{0, 1}); b == 1 { // big-endian ABIs allocate from the highest bit
			shift = 7 - shift
		}
		n = n >> shift & 1
	}
	return n, nil
}
