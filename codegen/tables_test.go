package codegen

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// notCompiled are the keys without a field: sections, notes, and a list that lws
// ignores since 4.4.
var notCompiled = map[schema.Section][]string{
	schema.Top:     {"retry", "certs", "trust_stores", "metrics", "auth", "s", "$schema", "x-sspolicy"},
	schema.Streams: {"plugins"},
}

func TestEveryKeyHasAField(t *testing.T) {
	all := map[schema.Section]*plan{
		schema.Top:         plans()[reflect.TypeFor[policy.Policy]()],
		schema.Retry:       plans()[reflect.TypeFor[policy.Retry]()],
		schema.TrustStores: plans()[reflect.TypeFor[policy.TrustStore]()],
		schema.Metrics:     plans()[reflect.TypeFor[policy.Metric]()],
		schema.Auth:        plans()[reflect.TypeFor[policy.Auth]()],
		schema.Streams:     newPlan(schema.Streams, reflect.TypeFor[policy.StreamType](), "HTTP", "MQTT"),
	}
	for s, p := range all {
		for _, k := range schema.Keys(s) {
			_, ok := p.byKey[k.Name]
			if no := slices.Contains(notCompiled[s], k.Name); ok == no {
				t.Errorf("section %q: key %s has a field: %v, want %v", s, k.Name, ok, !no)
			}
		}
		for name, i := range p.byKey {
			f := p.fields[i]
			if f.key == nil {
				t.Fatalf("section %q: a field has the tag %s, which is not a key", s, name)
			}
			if f.set == nil {
				t.Errorf("section %q: the field of %s has no setter", s, name)
			}
			if s != schema.Top && f.key.Member == "" && f.key.Flag == "" {
				t.Errorf("section %q: %s has neither a member nor a flag", s, name)
			}
		}
		if len(p.fields) != len(p.byKey) {
			t.Errorf("section %q: two fields have the same key", s)
		}
	}
}

// TestEveryMemberIsLaidOut checks that the key table and the layouts agree on members
// and their first release.
func TestEveryMemberIsLaidOut(t *testing.T) {
	since := map[string]string{}
	var walk func(path string, list []member)
	walk = func(path string, list []member) {
		for i := range list {
			m := &list[i]
			walk(path+m.name+".", m.members)
			for _, e := range m.elements(path + m.name) {
				since[e] = m.since
			}
		}
	}
	for s, typ := range map[schema.Section]string{
		schema.Retry: "lws_retry_bo_t", schema.TrustStores: "lws_ss_trust_store_t", schema.Metrics: "lws_metric_policy_t",
		schema.Auth: "lws_ss_auth_t", schema.Streams: "lws_ss_policy_t",
	} {
		clear(since)
		walk("", layouts[typ])
		for _, k := range schema.Keys(s) {
			if k.Member == "" || k.Name == "stack" {
				continue
			}
			got, ok := since[k.Member]
			if !ok {
				t.Errorf("%s has no member %s, for %s", typ, k.Member, k.Name)
			}
			if got == "" {
				got = "4.1"
			}
			// A struct of a section may be older than the first key.
			if got != k.Since && !(got == "4.1" && k.Since == "4.2" && s != schema.Streams) {
				t.Errorf("%s.%s is since %s, but %s since %s", typ, k.Member, got, k.Name, k.Since)
			}
		}
	}
}

func TestEveryProtocol(t *testing.T) {
	for p := policy.Protocol(0); ; p++ {
		name := p.String()
		if _, known := policy.ParseProtocol(name); !known {
			break
		}
		found := false
		for _, c := range cProtocols {
			if c.protocol == p {
				found = c.symbol == "LWSSSP_"+strings.ToUpper(name)
				if want := schema.LookupKey(schema.Streams, "protocol").ValueSince[name]; want != "" && want != c.since {
					t.Errorf("%v is since %s, want %s", p, c.since, want)
				}
			}
		}
		if !found {
			t.Errorf("%v has no C constant", p)
		}
	}
}

func TestTarget(t *testing.T) {
	for _, test := range []struct {
		target       Target
		since, until string
		want         bool
	}{
		{Target{Major: 4, Minor: 1}, "", "", true},
		{Target{Major: 4, Minor: 1}, "4.1", "", true},
		{Target{Major: 4, Minor: 1}, "4.2", "", false},
		{Target{Major: 4, Minor: 3}, "4.3.2", "", true},
		{Target{Major: 4, Minor: 2}, "4.3.2", "", false},
		{Target{Major: 5}, "4.5", "", true},
		{Target{Major: 4, Minor: 5}, "5.0", "", false},
		{Target{Major: 4, Minor: 1}, "", "4.2", true},
		{Target{Major: 4, Minor: 2}, "", "4.2", false},
		{Target{Major: 5}, "", "4.2", false},
	} {
		if got := test.target.has(test.since, test.until); got != test.want {
			t.Errorf("lws %v: has(%q, %q) = %v", test.target, test.since, test.until, got)
		}
	}
}

func TestLookupHeader(t *testing.T) {
	for mapping, want := range map[string]string{
		"content-type:":  "WSI_TOKEN_HTTP_CONTENT_TYPE",
		"content-type":   "WSI_TOKEN_HTTP_CONTENT_TYPE",
		"Content-Type:":  "WSI_TOKEN_HTTP_CONTENT_TYPE",
		"accept":         "WSI_TOKEN_HTTP_ACCEPT",
		":status":        "WSI_TOKEN_HTTP_COLON_STATUS",
		"":               "", // the lws parser finds "get "
		"c":              "", // the lws parser finds "connection:"
		"content-typ":    "",
		"content-type::": "",
		"x-own:":         "",
		"coo\u212aie:":   "",
	} {
		got := ""
		if h := lookupHeader(mapping); h != nil {
			got = h.symbol
		}
		if got != want {
			t.Errorf("%q is %q, want %q", mapping, got, want)
		}
	}
}
