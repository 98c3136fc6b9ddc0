package policytest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// A kind is the form of a value in a test file.
type kind uint8

const (
	text  kind = iota // string
	flag              // bool
	list              // []string
	pairs             // map[string]string; null in a file means that the key must be missing
)

// check reports a value that is not of the kind.
func (k kind) check(r *reader, v *schema.Value) {
	switch k {
	case text:
		r.Is(v, schema.String)
	case flag:
		r.Is(v, schema.Bool)
	case list:
		r.List(v, func(e *schema.Value) { r.Is(e, schema.String) })
	case pairs:
		if r.Is(v, schema.ObjectKind) {
			for _, m := range v.Members() {
				if m.Value.Kind != schema.Null {
					r.Is(&m.Value, schema.String)
				}
			}
		}
	}
}

// A field is a property of a stream that a test may check.
type field struct {
	name string
	kind kind
	doc  string

	// get returns the value for a stream, and whether the field applies to its protocol.
	get func(*observation) (any, bool)
}

// fields lists all fields, in the order in which they are written.
var fields = []field{
	{"protocol", text, "the protocol", func(o *observation) (any, bool) { return o.st.Protocol.String(), true }},
	{"endpoint", text, "where the stream connects to: `HOST:PORT`, or `+PATH` for a unix socket", func(o *observation) (any, bool) { return o.dialed(), o.dialed() != "" }},
	{"proxy", text, "the SOCKS5 proxy", func(o *observation) (any, bool) { return o.proxy, o.proxy != "" }},
	{"tls", flag, "whether the connection uses TLS", func(o *observation) (any, bool) { return o.tls(), o.client() }},
	{"trust", text, "the name of the trust store; empty for the roots of the operating system", func(o *observation) (any, bool) { return o.trust, o.client() && o.tls() }},
	{"method", text, "the method of the request", func(o *observation) (any, bool) { return o.requested().method, o.requested().method != "" }},
	{"url", text, "the URL of the request", func(o *observation) (any, bool) { return o.requested().url, o.requested().url != "" }},
	{"headers", pairs, "the headers of the request that matter, names in lower case; null for one that must not be there", func(o *observation) (any, bool) { return o.requested().headers, o.requested().headers != nil }},
	{"topic", text, "the MQTT topic to publish on", func(o *observation) (any, bool) { return o.topic(func(m *policy.MQTT) string { return m.Topic }) }},
	{"subscribe", text, "the MQTT filter to subscribe to", func(o *observation) (any, bool) { return o.topic(func(m *policy.MQTT) string { return m.Subscribe }) }},
	{"retry", list, "the waits before the next attempts, each without and with the largest jitter, as `1s to 1.2s`; at the end `gives up`, if the stream does. Only as many as are listed are compared", func(o *observation) (any, bool) { return o.retry(), o.client() }},
	{"states", text, "the states under the fault; `…` at the end stands for any more", func(o *observation) (any, bool) { return o.states, o.states != "" }},
}

// A Failure is a failed expectation.
type Failure struct {
	Field     string // "" if the test could not run
	At        schema.Span
	Want, Got string // as JSON
	Problem   string // in place of Want and Got
}

// compare returns the differences between a value and the expected one.
func (f *field) compare(want *schema.Value, got any) (failures []Failure) {
	fail := func(field string, at schema.Span, want, got any) {
		failures = append(failures, Failure{Field: field, At: at, Want: toJSON(want), Got: toJSON(got)})
	}
	switch f.kind {
	case text:
		if !same(want.Text(), got.(string), f.name) {
			fail(f.name, want.Span, want.Text(), got)
		}
	case flag:
		if expected := want.Raw() == "true"; expected != got.(bool) {
			fail(f.name, want.Span, expected, got)
		}
	case list:
		var expected []string
		for _, e := range want.Elems() {
			expected = append(expected, e.Value.Text())
		}
		actual := got.([]string)
		if last := len(expected); last < len(actual) {
			actual = actual[:last]
		}
		if !slices.EqualFunc(expected, actual, sameWait) {
			fail(f.name, want.Span, expected, actual)
		}
	case pairs:
		actual := got.(map[string]string)
		for _, m := range want.Members() {
			value, ok := actual[strings.ToLower(m.Key)]
			switch {
			case m.Value.Kind == schema.Null && ok:
				fail(f.name+"."+m.Key, m.Value.Span, nil, value)
			case m.Value.Kind == schema.Null:
			case !ok:
				fail(f.name+"."+m.Key, m.Value.Span, m.Value.Text(), nil)
			case value != m.Value.Text():
				fail(f.name+"."+m.Key, m.Value.Span, m.Value.Text(), value)
			}
		}
	}
	return failures
}

// same reports whether two texts are equal. An expectation of states may be a prefix.
func same(want, got, field string) bool {
	if field != "states" {
		return want == got
	}
	want = strings.Join(strings.Fields(want), " ")
	beginning, open := strings.CutSuffix(want, "…")
	return want == got || open && strings.HasPrefix(got, beginning)
}

// sameWait reports whether two waits are equal, whatever their notation.
func sameWait(want, got string) bool {
	if want == got {
		return true
	}
	a, okA := parseWait(want)
	b, okB := parseWait(got)
	return okA && okB && a == b
}

func parseWait(s string) (w [2]time.Duration, ok bool) {
	least, most, jittered := strings.Cut(s, " to ")
	var err, err2 error
	w[0], err = time.ParseDuration(least)
	w[1] = w[0]
	if jittered {
		w[1], err2 = time.ParseDuration(most)
	}
	return w, cmp.Or(err, err2) == nil
}

// toJSON returns a value as JSON on one line.
func toJSON(v any) string {
	if m, ok := v.(map[string]string); ok {
		var members []string
		for _, name := range slices.Sorted(maps.Keys(m)) {
			members = append(members, toJSON(name)+": "+toJSON(m[name]))
		}
		return "{" + strings.Join(members, ", ") + "}"
	}
	if l, ok := v.([]string); ok {
		var elems []string
		for _, e := range l {
			elems = append(elems, toJSON(e))
		}
		return "[" + strings.Join(elems, ", ") + "]"
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
