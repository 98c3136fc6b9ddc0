package overlay

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// An Operation is an operation of a JSON Patch (RFC 6902).
type Operation struct {
	Op    string          `json:"op"`   // add, remove or replace
	Path  string          `json:"path"` // a JSON Pointer
	Value json.RawMessage `json:"value,omitempty"`
}

// Patch returns the operations that turn one document into another. It ignores
// comments, and all but the last of several members with the same key.
//
// JSON does not order members, but lws depends on their order. A program that applies
// the patch must keep it, and append new members.
func Patch(before, after *schema.Document) []Operation {
	ops := []Operation{}
	diff("", &before.Root, &after.Root, &ops)
	return ops
}

func diff(path string, a, b *schema.Value, ops *[]Operation) {
	switch {
	case a.Kind == schema.ObjectKind && b.Kind == schema.ObjectKind:
		diffObjects(path, a.Object, b.Object, ops)
	case a.Kind == schema.ArrayKind && b.Kind == schema.ArrayKind:
		diffArrays(path, a.Array.Elems, b.Array.Elems, ops)
	case !same(a, b):
		*ops = append(*ops, Operation{"replace", path, Plain(b)})
	}
}

// effective returns the members of an object that count, in order.
func effective(o *schema.Object) []*schema.Member {
	lasts := make(map[string]*schema.Member, len(o.Members))
	for _, m := range o.Members {
		lasts[m.Key] = m
	}
	return slices.DeleteFunc(slices.Clone(o.Members), func(m *schema.Member) bool { return lasts[m.Key] != m })
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

func diffObjects(path string, a, b *schema.Object, ops *[]Operation) {
	for _, m := range effective(a) {
		at := path + "/" + pointerEscapes.Replace(m.Key)
		if n := last(b, m.Key); n == nil {
			*ops = append(*ops, Operation{Op: "remove", Path: at})
		} else {
			diff(at, &m.Value, &n.Value, ops)
		}
	}
	for _, m := range effective(b) {
		if last(a, m.Key) == nil {
			*ops = append(*ops, Operation{"add", path + "/" + pointerEscapes.Replace(m.Key), Plain(&m.Value)})
		}
	}
}

// diffArrays keeps what two arrays begin and end with alike, and compares the
// elements between by their index.
func diffArrays(path string, a, b []*schema.Element, ops *[]Operation) {
	start := 0
	for start < len(a) && start < len(b) && same(&a[start].Value, &b[start].Value) {
		start++
	}
	a, b = a[start:], b[start:]
	for len(a) > 0 && len(b) > 0 && same(&a[len(a)-1].Value, &b[len(b)-1].Value) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	at := func(i int) string { return path + "/" + strconv.Itoa(start+i) }
	common := min(len(a), len(b))
	for i := range common {
		diff(at(i), &a[i].Value, &b[i].Value, ops)
	}
	for i := len(a) - 1; i >= common; i-- {
		*ops = append(*ops, Operation{Op: "remove", Path: at(i)})
	}
	for i := common; i < len(b); i++ {
		*ops = append(*ops, Operation{"add", at(i), Plain(&b[i].Value)})
	}
}

// Plain returns a value as JSON without comments and space, or nil for none.
func Plain(v *schema.Value) json.RawMessage {
	if v == nil {
		return nil
	}
	var b strings.Builder
	write(&b, v)
	return json.RawMessage(b.String())
}

func write(b *strings.Builder, v *schema.Value) {
	switch v.Kind {
	case schema.ObjectKind:
		b.WriteByte('{')
		for i, m := range effective(v.Object) {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(schema.Quote(m.Key))
			b.WriteByte(':')
			write(b, &m.Value)
		}
		b.WriteByte('}')
	case schema.ArrayKind:
		b.WriteByte('[')
		for i, e := range v.Array.Elems {
			if i > 0 {
				b.WriteByte(',')
			}
			write(b, &e.Value)
		}
		b.WriteByte(']')
	case schema.String:
		b.WriteString(schema.Quote(v.Text()))
	default:
		b.WriteString(v.Raw())
	}
}
