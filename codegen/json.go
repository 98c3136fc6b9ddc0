package codegen

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// JSON returns a policy as source text that compiles to the same tables, in the
// layout of schema.Format. Equal definitions are merged; those without a name get
// one.
func JSON(p *policy.Policy) string {
	w := &jsonWriter{retries: map[string]bool{}, names: map[any]string{}, values: map[string]string{}, used: map[schema.Section]*symbols{}}
	seen := map[*policy.Retry]bool{} // many streamtypes may share a long scheme
	for _, st := range p.StreamTypes {
		if st.Retry != nil && !seen[st.Retry] {
			seen[st.Retry] = true
			w.retries[fmt.Sprint(*st.Retry)] = true
		}
	}
	streams := make([]string, len(p.StreamTypes))
	for i, st := range p.StreamTypes {
		streams[i] = w.entry(st.Name, w.stream(st))
	}
	metrics := make([]string, len(p.Metrics))
	for i, m := range p.Metrics {
		metrics[i] = w.object(reflect.ValueOf(m).Elem(), plans()[reflect.TypeFor[policy.Metric]()], nil)
	}
	members := w.members(reflect.ValueOf(p).Elem(), plans()[reflect.TypeFor[policy.Policy]()], nil)
	for _, s := range []struct {
		name schema.Section
		list []string
	}{
		{schema.Retry, w.sections.retry}, {schema.Certs, w.sections.certs}, {schema.TrustStores, w.sections.stores},
		{schema.Auth, w.sections.auth}, {schema.Metrics, metrics}, {schema.Streams, streams},
	} {
		if len(s.list) > 0 {
			members = append(members, schema.Quote(string(s.name))+": ["+strings.Join(s.list, ",")+"]")
		}
	}
	text := "{" + strings.Join(members, ",") + "}"
	if formatted, err := schema.Format(schema.Parse("", []byte(text))); err == nil {
		return formatted
	}
	return text // too large or nested too deep to be a policy
}

type jsonWriter struct {
	retries  map[string]bool   // by value
	names    map[any]string    // of definitions
	values   map[string]string // names by section and value
	used     map[schema.Section]*symbols
	sections struct{ retry, certs, stores, auth []string }
}

func (w *jsonWriter) entry(name, value string) string {
	return "{" + schema.Quote(name) + ":" + value + "}"
}

// object returns a struct as an object. It skips fields that skip reports.
func (w *jsonWriter) object(r reflect.Value, p *plan, skip func(*schema.Key) bool) string {
	return "{" + strings.Join(w.members(r, p, skip), ",") + "}"
}

func (w *jsonWriter) members(r reflect.Value, p *plan, skip func(*schema.Key) bool) (members []string) {
	for i := range p.fields {
		f := &p.fields[i]
		if v := f.value(r); !v.IsZero() && (skip == nil || !skip(f.key)) {
			if text := w.value(v, f.key); text != "" {
				members = append(members, schema.Quote(f.key.Name)+":"+text)
			}
		}
	}
	return members
}

func (w *jsonWriter) stream(st *policy.StreamType) string {
	a := armOf(st.Protocol)
	skip := func(k *schema.Key) bool { return !inTrust(k, st.Server) || k.Name == "protocol" }
	r := reflect.ValueOf(st).Elem()
	members := []string{`"protocol":` + schema.Quote(st.Protocol.String())}
	members = append(members, w.members(r, streamPlans()[a], skip)...)
	if h := st.HTTP; h != nil && h.Multipart && h.MultipartName == "" && h.MultipartFilename == "" && h.MIMEContentType == "" {
		members = append(members, `"http_multipart_name":""`)
	}
	if st.HTTP != nil && st.HTTP.URL == "" && !st.Server {
		members = append(members, `"http_url":""`) // lws requests another path without it
	}
	return "{" + strings.Join(members, ",") + "}"
}

// value returns a field as a JSON value, or "" for none.
func (w *jsonWriter) value(field reflect.Value, k *schema.Key) string {
	switch x := field.Interface().(type) {
	case string:
		return schema.Quote(x)
	case bool:
		return "true"
	case time.Duration:
		return strconv.FormatInt(int64(x/unit(k)), 10)
	case []time.Duration:
		return list(x, func(d time.Duration) string { return strconv.FormatInt(int64(d/unit(k)), 10) })
	case []policy.Metadata:
		return list(x, func(m policy.Metadata) string { return w.entry(m.Name, schema.Quote(m.Header)) })
	case []policy.Option:
		return list(x, func(o policy.Option) string { return w.entry(o.Name, schema.Quote(o.Value)) })
	case []policy.StatusState:
		return list(x, func(s policy.StatusState) string {
			return w.entry(strconv.Itoa(int(s.Status)), strconv.Itoa(int(s.State)))
		})
	case []*policy.Cert:
		return list(x, func(c *policy.Cert) string { return schema.Quote(w.cert(c)) })
	case *policy.Cert:
		return schema.Quote(w.cert(x))
	case *policy.Retry:
		return schema.Quote(w.retry(x))
	case *policy.TrustStore:
		return schema.Quote(w.define(schema.TrustStores, x, x.Name, "store", func(name string) string {
			members := []string{`"name":` + schema.Quote(name)}
			rest := w.members(reflect.ValueOf(x).Elem(), plans()[reflect.TypeFor[policy.TrustStore]()], isName)
			return "{" + strings.Join(append(members, rest...), ",") + "}"
		}, &w.sections.stores))
	case *policy.Auth:
		return schema.Quote(w.define(schema.Auth, x, x.Name, "auth", func(name string) string {
			members := []string{`"name":` + schema.Quote(name)}
			rest := w.members(reflect.ValueOf(x).Elem(), plans()[reflect.TypeFor[policy.Auth]()], isName)
			return "{" + strings.Join(append(members, rest...), ",") + "}"
		}, &w.sections.auth))
	}
	if field.CanInt() {
		return strconv.FormatInt(field.Int(), 10)
	}
	n := field.Uint()
	if k.Name == "client_cert" {
		n-- // 0 means none, as in setInteger
	}
	return strconv.FormatUint(n, 10)
}

func isName(k *schema.Key) bool { return k.Name == "name" }

func list[T any](items []T, value func(T) string) string {
	texts := make([]string, len(items))
	for i, x := range items {
		texts[i] = value(x)
	}
	return "[" + strings.Join(texts, ",") + "]"
}

func (w *jsonWriter) cert(c *policy.Cert) string {
	return w.define(schema.Certs, c, c.Name, "cert", func(name string) string {
		return w.entry(name, schema.Quote(base64.StdEncoding.EncodeToString([]byte(c.DER))))
	}, &w.sections.certs)
}

// retry defines a backoff scheme. Generated names all have the same length, since
// lws takes the first name that begins with the reference.
func (w *jsonWriter) retry(x *policy.Retry) string {
	fallback := "default"
	if len(w.retries) > 1 {
		fallback = fmt.Sprintf("retry_%0*d", len(strconv.Itoa(len(w.retries))), len(w.sections.retry)+1)
	}
	return w.define(schema.Retry, x, x.Name, fallback, func(name string) string {
		return w.entry(name, w.object(reflect.ValueOf(x).Elem(), plans()[reflect.TypeFor[policy.Retry]()], nil))
	}, &w.sections.retry)
}

// define adds a definition to a section, unless an equal one exists, and returns
// its name.
func (w *jsonWriter) define(s schema.Section, x any, name, fallback string, value func(name string) string, section *[]string) string {
	if known, ok := w.names[x]; ok {
		return known
	}
	key := string(s) + " " + name + " " + value(name)
	known, ok := w.values[key]
	if !ok {
		if w.used[s] == nil {
			w.used[s] = newSymbols()
		}
		known = w.used[s].unique(cmp.Or(name, fallback))
		w.values[key] = known
		*section = append(*section, value(known))
	}
	w.names[x] = known
	return known
}
