package breaking

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// base is the policy that the cases change. ROOT1 to ROOT3 and RENEWED are certificates;
// RENEWED has the name and the key of ROOT1.
const base = `{
  "release": "1",
  "schema-version": 1,
  "retry": [
    {"default": {"backoff": [1000, 2000, 5000], "conceal": 10, "jitterpc": 20, "svalidping": 30, "svalidhup": 60}},
    {"forever": {"backoff": [3000], "conceal": 65535}}
  ],
  "certs": [{"root1": "ROOT1"}, {"root2": "ROOT2"}, {"site": "ROOT3"}, {"key": "MAA="}],
  "trust_stores": [{"name": "store", "stack": ["root1", "root2"]}],
  "auth": [{"name": "sig", "type": "sigv4", "blob": 0}],
  "metrics": [{"name": "m", "us_schedule": 1000, "report": "cpu"}],
  "s": [
    {"api": {
      "endpoint": "api.example.com", "port": 443, "tls": true, "tls_trust_store": "store", "retry": "default", "protocol": "h2",
      "http_method": "POST", "http_url": "v1/${item}", "http_expect": 200, "http_resp_map": [{"404": 1001}, {"410": 1002}],
      "http_auth_header": "authorization:", "http_cookies": true, "allow_redirects": true, "use_auth": "sig", "direct_proto_str": true,
      "metadata": [{"item": ""}, {"trace": "x-trace:"}], "timeout_ms": 20000, "perf": true, "proxy_buflen": 65536,
      "http_multipart_name": "part", "payload_fmt": "json"
    }},
    {"events": {
      "endpoint": "mqtt.example.com", "port": 8883, "tls": true, "tls_trust_store": "store", "retry": "forever", "protocol": "mqtt", "nailed_up": true,
      "mqtt_topic": "d/${id}/up", "mqtt_subscribe": "d/${id}/down", "mqtt_qos": 1, "mqtt_keep_alive": 60, "mqtt_clean_start": false,
      "mqtt_will_topic": "d/${id}/gone", "metadata": [{"id": ""}]
    }},
    {"live": {
      "endpoint": "ws.example.com", "port": 443, "tls": true, "protocol": "ws", "http_url": "live", "ws_subprotocol": "v1", "retry": "default"
    }},
    {"plain": {"endpoint": "+/run/x", "protocol": "raw"}},
    {"web": {"server": true, "port": 8443, "protocol": "h1", "tls": true, "server_cert": "site", "server_key": "key"}},
    {"share": {"endpoint": "api.example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "POST", "http_url": "a"}}
  ]
}
`

// A replacement changes a text. old must occur once.
type replacement struct{ old, new string }

func replace(t *testing.T, text string, rs []replacement) string {
	t.Helper()
	for _, r := range rs {
		if n := strings.Count(text, r.old); n != 1 {
			t.Fatalf("%q occurs %d times", r.old, n)
		}
		text = strings.Replace(text, r.old, r.new, 1)
	}
	return text
}

func TestCompare(t *testing.T) {
	one := func(old, new string) []replacement { return []replacement{{old, new}} }
	for _, test := range []struct {
		name   string
		change []replacement
		lws    string   // "" for none
		want   []string // rules; none if nothing breaks
	}{
		// API
		{"a streamtype is gone", one(`,
    {"share": {"endpoint": "api.example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "POST", "http_url": "a"}}`, ""), "", []string{"streamtype-removed"}},
		{"a streamtype has another name", one(`"share"`, `"shared"`), "", []string{"streamtype-removed"}},
		{"a new streamtype", one(`{"share"`, `{"new": {"endpoint": "a", "port": 1, "protocol": "raw"}}, {"share"`), "", nil},
		{"a metadata item is gone", one(`, {"trace": "x-trace:"}`, ""), "", []string{"metadata-removed"}},
		{"a metadata item has another name", []replacement{{`{"item": ""}`, `{"thing": ""}`}, {"${item}", "${thing}"}}, "", []string{"metadata-removed", "metadata-needed", "request-changed"}},
		{"a new metadata item for a header", one(`{"trace": "x-trace:"}`, `{"trace": "x-trace:"}, {"more": "x-more:"}`), "", nil},
		{"a new metadata item in the URL", []replacement{{`{"item": ""}`, `{"item": ""}, {"page": ""}`}, {"v1/${item}", "v1/${item}?p=${page}"}}, "", []string{"metadata-needed", "request-changed"}},
		{"a client becomes a server", one(`{"endpoint": "+/run/x", "protocol": "raw"}`, `{"server": true, "port": 1, "protocol": "raw"}`), "", []string{"role-changed"}},
		{"messages instead of requests", one(`"protocol": "h1", "http_method": "POST", "http_url": "a"`, `"protocol": "ws", "http_url": "a"`), "", []string{"use-changed"}},
		{"a sink instead of the network", one(`"endpoint": "+/run/x"`, `"local_sink": true, "endpoint": "+/run/x"`), "", []string{"use-changed", "build-changed"}},
		{"no longer nailed up", one(`, "nailed_up": true`, ``), "", []string{"start-changed"}},
		{"opportunistic", one(`"payload_fmt": "json"`, `"payload_fmt": "json", "opportunistic": true`), "", []string{"start-changed"}},
		{"another expected status", one(`"http_expect": 200`, `"http_expect": 204`), "", []string{"states-changed"}},
		{"all good statuses are expected", one(`"http_expect": 200, `, ``), "", nil},
		{"a status leads to another state", one(`{"404": 1001}`, `{"404": 1003}`), "", []string{"states-changed"}},
		{"a status leads to no state of its own", one(`{"404": 1001}, `, ``), "", []string{"states-changed"}},
		{"a status leads to a new state", one(`{"404": 1001}`, `{"404": 1001}, {"500": 1004}`), "", []string{"states-changed"}},
		{"another payload format", one(`"json"`, `"cbor"`), "", []string{"payload-changed"}},
		{"responses in parts", one(`"payload_fmt": "json"`, `"payload_fmt": "json", "long_poll": true`), "", []string{"payload-changed"}},
		{"undeclared headers are refused", one(`"direct_proto_str": true`, `"direct_proto_str": false`), "", []string{"undeclared-headers"}},
		{"a smaller buffer", one(`65536`, `16384`), "", []string{"buffer-smaller"}},
		{"the default buffer is smaller", one(`, "proxy_buflen": 65536`, ``), "", []string{"buffer-smaller"}},
		{"a larger buffer", one(`65536`, `131072`), "", nil},
		{"no timings", one(`"perf": true`, `"perf": false`), "", []string{"report-removed"}},
		{"no metrics", one(`{"name": "m", "us_schedule": 1000, "report": "cpu"}`, ``), "", []string{"report-removed"}},
		{"metrics at another time", one(`"us_schedule": 1000`, `"us_schedule": 2000`), "", nil},
		{"another transport", one(`"endpoint": "+/run/x", "protocol": "raw"`, `"endpoint": "file:///a", "protocol": "raw"`), "", []string{"use-changed", "build-changed"}},
		{"another build of lws", one(`"protocol": "h1", "http_method": "POST", "http_url": "a"`, `"protocol": "h3", "http_method": "POST", "http_url": "a"`), "", []string{"build-changed", "build-changed", "protocol-changed"}},

		// WIRE
		{"another host", one(`"mqtt.example.com"`, `"mqtt2.example.com"`), "", []string{"endpoint-moved"}},
		{"another port", one(`8883`, `8884`), "", []string{"endpoint-moved"}},
		{"the default port, left out", one(`"endpoint": "ws.example.com", "port": 443`, `"endpoint": "ws.example.com"`), "", []string{"endpoint-moved"}},
		{"the default port, written", one(`"endpoint": "+/run/x", "protocol": "raw"`, `"endpoint": "+/run/x", "port": 0, "protocol": "raw"`), "", nil},
		{"a server listens elsewhere", one(`8443`, `9443`), "", []string{"endpoint-moved"}},
		{"HTTP/1.1 instead of HTTP/2", one(`"protocol": "h2"`, `"protocol": "h1"`), "", []string{"protocol-changed"}},
		{"TLS", one(`"port": 443, "tls": true, "protocol": "h1"`, `"port": 443, "protocol": "h1"`), "", []string{"tls-removed"}},
		{"another method", one(`"http_method": "POST", "http_url": "v1`, `"http_method": "PUT", "http_url": "v1`), "", []string{"request-changed"}},
		{"another URL", one(`"http_url": "live"`, `"http_url": "live2"`), "", []string{"request-changed"}},
		{"shared requests", one(`"payload_fmt": "json"`, `"payload_fmt": "json", "rideshare": "share"`), "", []string{"request-changed"}},
		{"another header", one(`x-trace:`, `x-span:`), "", []string{"header-changed"}},
		{"a header in capitals", one(`x-trace:`, `X-Trace:`), "", nil},
		{"another auth header", one(`"authorization:"`, `"x-token:"`), "", []string{"header-changed"}},
		{"no multipart", one(`"http_multipart_name": "part", `, ``), "", []string{"body-changed", "body-changed"}},
		{"redirects are refused", one(`"allow_redirects": true`, `"allow_redirects": false`), "", []string{"redirects-changed"}},
		{"no cookies", one(`"http_cookies": true, `, ``), "", []string{"cookies-off"}},
		{"no auth", one(`"use_auth": "sig", `, ``), "", []string{"auth-changed"}},
		{"another credential", one(`"blob": 0`, `"blob": 1`), "", []string{"auth-changed"}},
		{"another subprotocol", one(`"ws_subprotocol": "v1"`, `"ws_subprotocol": "v2"`), "", []string{"frames-changed"}},
		{"binary frames", one(`"ws_subprotocol": "v1"`, `"ws_subprotocol": "v1", "ws_binary": true`), "", []string{"frames-changed"}},
		{"another topic", one(`d/${id}/up`, `d/${id}/new`), "", []string{"topic-changed"}},
		{"another subscription", one(`d/${id}/down`, `d/${id}/#`), "", []string{"topic-changed"}},
		{"lower quality of service", one(`"mqtt_qos": 1`, `"mqtt_qos": 0`), "", []string{"qos-lowered"}},
		{"higher quality of service", one(`"mqtt_qos": 1`, `"mqtt_qos": 2`), "", nil},
		{"a clean session", one(`"mqtt_clean_start": false`, `"mqtt_clean_start": true`), "", []string{"session-changed"}},
		{"no will", one(`"mqtt_will_topic": "d/${id}/gone", `, ``), "", []string{"session-changed"}},
		{"raw metadata", one(`"release": "1",`, `"release": "1", "x-sspolicy": {"streams": {"api": {"metadata": {"item": "raw"}}}},`), "", []string{"encoding-changed"}},
		{"a proxy", one(`"release": "1",`, `"release": "1", "via-socks5": "user:secret@proxy:1080",`), "", []string{"proxy-changed"}},
		{"a key that lws 4.3 reads only from 4.3.2 on", one(`"mqtt_qos": 1`, `"mqtt_qos": 1, "mqtt_birth_topic": "d"`), "4.2", []string{"key-unread"}},
		{"a protocol that lws 4.5 does not have", one(`"protocol": "h1", "http_method": "POST", "http_url": "a"`, `"protocol": "h3", "http_method": "POST", "http_url": "a"`), "4.5", []string{"build-changed", "key-unread", "protocol-changed", "build-changed"}},

		// TRUST
		{"a root is gone", one(`"stack": ["root1", "root2"]`, `"stack": ["root1"]`), "", []string{"trust-narrowed"}},
		{"another root", one(`"stack": ["root1", "root2"]`, `"stack": ["root1", "root2", "site"]`), "", []string{"trust-widened"}},
		{"a root is replaced", one(`"root2": "ROOT2"`, `"root2": "ROOT3"`), "", []string{"trust-narrowed", "trust-widened"}},
		{"a root is renewed", one(`"root1": "ROOT1"`, `"root1": "RENEWED"`), "", nil},
		{"the roots of the operating system", one(`"tls_trust_store": "store", "retry": "forever"`, `"retry": "forever"`), "", []string{"trust-widened"}},
		{"roots of its own", one(`"protocol": "ws"`, `"tls_trust_store": "store", "protocol": "ws"`), "", []string{"trust-narrowed"}},
		{"a client certificate", one(`"payload_fmt": "json"`, `"payload_fmt": "json", "client_cert": 0`), "", []string{"client-cert-changed"}},
		{"another server certificate", one(`"site": "ROOT3"`, `"site": "ROOT1"`), "", []string{"server-cert-changed"}},
		{"another server key", one(`"MAA="`, `"MAAA"`), "", []string{"server-cert-changed"}},

		// TIMING
		{"fewer retries", one(`"conceal": 10`, `"conceal": 3`), "", []string{"gives-up-sooner"}},
		{"an end to retries", one(`65535`, `100`), "", []string{"gives-up-sooner"}},
		{"no end to retries", one(`"conceal": 10`, `"conceal": 65535`), "", nil},
		{"no retries", one(`"retry": "forever", `, ``), "", []string{"gives-up-sooner", "hangs-up-sooner"}},
		{"shorter waits", one(`[1000, 2000, 5000]`, `[1000, 1000, 5000]`), "", []string{"gives-up-sooner", "retries-sooner"}},
		{"shorter waits after the last one", one(`[1000, 2000, 5000]`, `[1000, 2000]`), "", []string{"gives-up-sooner", "retries-sooner"}},
		{"longer waits", one(`[1000, 2000, 5000]`, `[1000, 2000, 5000, 10000]`), "", nil},
		{"waits written in another way", one(`"backoff": [3000], `, ``), "", nil},
		{"less jitter", one(`"jitterpc": 20`, `"jitterpc": 5`), "", []string{"jitter-lowered"}},
		{"the default jitter, which is more", one(`, "jitterpc": 20`, ``), "", nil},
		{"no probes", one(`"svalidping": 30, `, ``), "", []string{"probes-later"}},
		{"a dead connection stays", one(`"svalidhup": 60`, `"svalidhup": 600`), "", []string{"notices-later"}},
		{"a silent connection ends", one(`"svalidhup": 60`, `"svalidhup": 40`), "", []string{"hangs-up-sooner"}},
		{"a shorter timeout", one(`20000`, `10000`), "", []string{"timeout-shorter"}},
		{"no timeout", one(`"timeout_ms": 20000, `, ``), "", nil},
		{"another keep-alive", one(`"mqtt_keep_alive": 60`, `"mqtt_keep_alive": 600`), "", []string{"keep-alive-changed"}},
		{"checks that wake the system", one(`"payload_fmt": "json"`, `"payload_fmt": "json", "swake_validity": true`), "", []string{"wake-changed"}},
		{"later waits, which lws 5.0 does not keep", one(`[1000, 2000, 5000]`, `[1000, 500]`), "5.0", nil},
		{"later waits, which lws 4.3 keeps", one(`[1000, 2000, 5000]`, `[1000, 500]`), "4.3", []string{"gives-up-sooner", "retries-sooner"}},

		// None
		{"another release", one(`"release": "1"`, `"release": "2"`), "", nil},
		{"another name of a scheme", []replacement{{`{"forever"`, `{"always"`}, {`"retry": "forever"`, `"retry": "always"`}}, "", nil},
		{"another name of a trust store and its certificates", []replacement{{`"root1": `, `"ca": `}, {`["root1", "root2"]`, `["root2", "ca"]`}, {`"name": "store"`, `"name": "cas"`},
			{`"tls_trust_store": "store", "retry": "default"`, `"tls_trust_store": "cas", "retry": "default"`}, {`"tls_trust_store": "store", "retry": "forever"`, `"tls_trust_store": "cas", "retry": "forever"`}}, "", nil},
		{"metadata in another order", one(`{"item": ""}, {"trace": "x-trace:"}`, `{"trace": "x-trace:"}, {"item": ""}`), "", nil},
		{"statuses in another order", one(`{"404": 1001}, {"410": 1002}`, `{"410": 1002, "404": 1001}`), "", nil},
		{"an unused scheme", one(`{"forever"`, `{"unused": {"backoff": [1]}}, {"forever"`), "", nil},
		{"an inert priority", one(`"payload_fmt": "json"`, `"payload_fmt": "json", "urgent_tx": true`), "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var o Options
			if test.lws != "" {
				var v schema.Version
				if err := v.UnmarshalText([]byte(test.lws)); err != nil {
					t.Fatal(err)
				}
				o.LWS = []schema.Version{v}
			}
			changes := compare(t, withCerts(base), withCerts(replace(t, base, test.change)), o)
			var got []string
			for _, c := range changes {
				if c.Rule != nil {
					got = append(got, c.Rule.ID)
				}
				if c.Old.Source == nil && c.New.Source == nil {
					t.Errorf("%v has no place", &c)
				}
				if strings.Contains(c.Text, "secret") {
					t.Errorf("%v shows a password", &c)
				}
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(test.want))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s%s", diff, show(changes))
			}
		})
	}
}

func show(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&b, &c)
	}
	return b.String()
}

func compare(t testing.TB, old, new string, o Options) []Change {
	t.Helper()
	return Compare(schema.Parse("old.json", []byte(old)), schema.Parse("new.json", []byte(new)), o)
}

// TestErrors checks that a policy with an error is compared except for the part with the
// error, and that a change of that part is reported. want lists the rules, and parts of the
// texts of not-compared.
func TestErrors(t *testing.T) {
	old := withCerts(base)
	for _, test := range []struct {
		name     string
		old, new []replacement
		want     []string
	}{
		{"a port", nil, []replacement{{`8883`, `70000`}, {`"http_cookies": true, `, ``}}, []string{"cookies-off", `"events": port cannot be compared: in the new policy, "70000" is out of the range of port`}},
		{"a port that was wrong", []replacement{{`8883`, `70000`}}, nil, []string{`"events": port cannot be compared: in the old policy, `}},
		{"a port that stays wrong", []replacement{{`8883`, `70000`}}, []replacement{{`8883`, `70000`}}, nil},
		{"wrong in another way", []replacement{{`8883`, `70000`}}, []replacement{{`8883`, `[1]`}}, []string{`"events": port cannot be compared: in the old policy, "70000" is out of the range of port; in the new one, port must be`}},
		{"a reference", nil, []replacement{{`"tls_trust_store": "store", "retry": "forever"`, `"tls_trust_store": "stare", "retry": "forever"`}}, []string{`"events": tls_trust_store cannot be compared: in the new policy, trust store "stare" is not defined`}},
		{"a scheme", nil, []replacement{{`"conceal": 10`, `"conceal": {}`}}, []string{`"api", "live": retry cannot be compared: in the new policy, conceal must be`}},
		{"a certificate of a store", nil, []replacement{{`{"root2": "`, `{"root2": "!`}}, []string{`"api", "events": tls_trust_store cannot be compared: in the new policy, certificate "root2": `}},
		{"a scheme beside an error", []replacement{{`8883`, `70000`}}, []replacement{{`8883`, `70000`}, {`"conceal": 10`, `"conceal": 3`}}, []string{"gives-up-sooner"}},
		{"a protocol", nil, []replacement{{`"protocol": "mqtt"`, `"protocol": "mqt"`}, {`"mqtt_qos": 1`, `"mqtt_qos": 0`}}, []string{`"events": protocol cannot be compared`}},
		{"a key beside a protocol", []replacement{{`"protocol": "mqtt"`, `"protocol": "mqt"`}}, []replacement{{`"protocol": "mqtt"`, `"protocol": "mqt"`}, {`"mqtt_qos": 1`, `"mqtt_qos": 0`}}, []string{`"events": protocol cannot be compared`}},
		{"a streamtype", nil, []replacement{{`{"plain": {"endpoint": "+/run/x", "protocol": "raw"}}`, `{"plain": 1}`}}, []string{`"plain": the streamtype cannot be compared`}},
		{"a streamtype that is gone", []replacement{{`8443`, `84430`}}, []replacement{{`{"web": {"server": true, "port": 8443, "protocol": "h1", "tls": true, "server_cert": "site", "server_key": "key"}},`, ``}}, []string{"streamtype-removed", `"web": port cannot be compared`}},
		{"a new streamtype", nil, []replacement{{`{"share"`, `{"new": {"endpoint": "a", "port": 70000, "protocol": "quic"}}, {"share"`}}, []string{`"new": port cannot be compared`, `"new": protocol cannot be compared`}},
		{"a key of the policy", nil, []replacement{{`"release": "1",`, `"release": "1", "via-socks5": {},`}}, []string{`via-socks5 cannot be compared`}},
		{"a metric policy", nil, []replacement{{`"us_schedule": 1000`, `"us_schedule": {}`}}, []string{`metric policy "m" cannot be compared`}},
		{"half of a character", nil, []replacement{{`"http_url": "live"`, `"http_url": "live\ud800"`}}, []string{`"live": http_url cannot be compared`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			changes := compare(t, replace(t, old, test.old), replace(t, old, test.new), Options{})
			var got []string
			for _, c := range changes {
				switch {
				case c.Rule == notCompared:
					i := slices.IndexFunc(test.want, func(w string) bool { return strings.HasPrefix(c.String(), w) })
					if i < 0 {
						t.Errorf("got %v", &c)
						continue
					}
					got = append(got, test.want[i])
				case c.Rule != nil:
					got = append(got, c.Rule.ID)
				}
				if c.Old.Source == nil && c.New.Source == nil {
					t.Errorf("%v has no place", &c)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(slices.Sorted(slices.Values(test.want)), got); diff != "" {
				t.Errorf("(-want +got):\n%s%s", diff, show(changes))
			}
		})
	}
}

// TestNoSilence checks that a value with a new error is a change, in both directions, and
// that the same error in both policies is none.
func TestNoSilence(t *testing.T) {
	text := withCerts(base)
	p := schema.NewPolicy(schema.Parse("base.json", []byte(text)))
	n := 0
	check := func(at schema.Span) {
		for _, value := range []string{`99999999999999999999`, `{}`} {
			wrong := text[:at.Start] + value + text[at.End:]
			d := schema.Parse("wrong.json", []byte(wrong))
			if _, found := codegen.Compile(schema.NewPolicy(d)); len(found) == 0 || schema.HasErrors(d.Syntax) {
				continue
			}
			n++
			if len(compare(t, text, wrong, Options{})) == 0 || len(compare(t, wrong, text, Options{})) == 0 {
				t.Errorf("%v: %s is no change", at, value)
			}
			if same := compare(t, wrong, wrong, Options{}); len(same) > 0 {
				t.Errorf("%v: %s: %v", at, value, &same[0])
			}
			return
		}
	}
	for _, d := range p.Definitions {
		check(d.Value.Span)
		for _, s := range d.Settings {
			check(s.Member.Value.Span)
			for _, e := range s.Member.Value.Elems() {
				check(e.Value.Span)
			}
		}
	}
	for _, s := range p.Settings {
		check(s.Member.Value.Span)
	}
	if n < 90 {
		t.Errorf("only %d values", n)
	}
}

// TestEveryKey checks that a change of any field of a streamtype is a change.
func TestEveryKey(t *testing.T) {
	for _, protocol := range []policy.Protocol{policy.ProtocolH1, policy.ProtocolMQTT} {
		build := func() *policy.StreamType {
			st := &policy.StreamType{Name: "a", Protocol: protocol}
			if protocol == policy.ProtocolMQTT {
				st.MQTT = &policy.MQTT{}
			} else {
				st.HTTP = &policy.HTTP{}
			}
			return st
		}
		for _, arm := range []string{"", "HTTP", "MQTT"} {
			fields := func(st *policy.StreamType) reflect.Value {
				v := reflect.ValueOf(st).Elem()
				if arm != "" {
					v = v.FieldByName(arm).Elem()
				}
				return v
			}
			of := fields(build())
			for i := range of.NumField() {
				f := of.Type().Field(i)
				if f.Name == "Name" || f.Name == "HTTP" || f.Name == "MQTT" || !of.IsValid() {
					continue
				}
				before, st := build(), build()
				before.Server = strings.HasPrefix(f.Name, "ServerC") || strings.HasPrefix(f.Name, "ServerK")
				st.Server = before.Server
				setAny(fields(st).Field(i))
				document := schema.Parse("policy.json", []byte(`{"s": [{"a": {}}]}`))
				v := func(st *policy.StreamType) *view {
					w := newView(document, schema.Version{})
					w.compiled = &policy.Policy{StreamTypes: []*policy.StreamType{st}}
					w.inherit()
					return w
				}
				c := &comparison{old: v(before), new: v(st)}
				c.compare()
				if len(c.changes) == 0 {
					t.Errorf("%v: no change for %s", protocol, f.Name)
				}
			}
			if protocol == policy.ProtocolH1 && arm == "HTTP" || protocol == policy.ProtocolMQTT && arm == "" {
				break
			}
		}
	}
}

// setAny sets a field to a value that is not zero.
func setAny(v reflect.Value) {
	switch v.Interface().(type) {
	case policy.Protocol:
		v.Set(reflect.ValueOf(policy.ProtocolRaw))
		return
	case time.Duration:
		v.SetInt(int64(time.Second))
		return
	case *policy.Cert:
		v.Set(reflect.ValueOf(&policy.Cert{DER: "x"}))
		return
	case *policy.TrustStore:
		v.Set(reflect.ValueOf(&policy.TrustStore{Stack: []*policy.Cert{{DER: "x"}}}))
		return
	case *policy.Retry:
		v.Set(reflect.ValueOf(&policy.Retry{Conceal: 1}))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	default:
		v.SetUint(1)
	}
}

func TestRules(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rules() {
		if seen[r.ID] || r.ID == "" || r.Summary == "" || strings.HasSuffix(r.Summary, ".") || !strings.HasSuffix(r.Why, ".") {
			t.Errorf("rule %q is there twice, or lacks a text", r.ID)
		}
		seen[r.ID] = true
	}
	used := map[*Rule]bool{}
	for key, k := range keyRules {
		if schema.LookupKey(schema.Streams, key) == nil {
			t.Errorf("%s is not a key", key)
		}
		used[k.rule] = true
	}
}

// certs are certificates in base64. renewed has the name and the key of root1.
var certs = func() (c struct{ root1, root2, root3, renewed string }) {
	ca, key := testcert.New("ca"), testcert.Key()
	issue := func(key crypto.Signer, name string) string {
		return base64.StdEncoding.EncodeToString(ca.Certify(key, time.Now(), name).Certificate[0])
	}
	c.root1, c.root2, c.root3, c.renewed = issue(key, "one"), issue(testcert.Key(), "two"), issue(testcert.Key(), "three"), issue(key, "one")
	return c
}()

func withCerts(text string) string {
	return strings.NewReplacer("ROOT1", certs.root1, "ROOT2", certs.root2, "ROOT3", certs.root3, "RENEWED", certs.renewed).Replace(text)
}

// policies returns the policies of the tree, and those of SSPOLICY_CORPUS, that compile.
func policies(tb testing.TB) map[string]string {
	patterns := []string{"../../fixtures/*.json"}
	if dir := os.Getenv("SSPOLICY_CORPUS"); dir != "" {
		patterns = append(patterns, filepath.Join(dir, "*", "*.json"))
	}
	all := map[string]string{"base": withCerts(base)}
	for _, p := range patterns {
		files, err := filepath.Glob(p)
		if err != nil {
			tb.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				tb.Fatal(err)
			}
			d := schema.Parse(file, text)
			if len(d.Syntax) == 0 {
				all[file] = string(text)
			}
		}
	}
	return all
}

// TestNoFalseAlarm checks that comments, layout and order are not changes.
func TestNoFalseAlarm(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, text := range policies(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			d := schema.Parse(name, []byte(text))
			formatted, err := schema.Format(d)
			if err != nil {
				t.Fatal(err)
			}
			packed, err := schema.Pack(d)
			if err != nil {
				t.Fatal(err)
			}
			variants := map[string]string{"the same": text, "formatted": formatted, "packed": packed, "commented": strings.ReplaceAll(formatted, "\n", " # a comment\n")}
			for i := range 3 {
				variants[fmt.Sprintf("order %d", i)] = shuffle(d, random)
			}
			for how, variant := range variants {
				for _, v := range []schema.Version{{}, {Major: 4, Minor: 1}, schema.Latest()} {
					var o Options
					if v != (schema.Version{}) {
						o.LWS = []schema.Version{v}
					}
					for _, pair := range [][2]string{{text, variant}, {variant, text}} {
						if changes := compare(t, pair[0], pair[1], o); len(changes) > 0 {
							t.Fatalf("%s: lws %v:\n%s", how, v, show(changes))
						}
					}
				}
			}
		})
	}
}

// shuffle returns a policy whose streamtypes, and whose members of objects with unique
// keys, are in another order.
func shuffle(d *schema.Document, random *rand.Rand) string {
	clone := d.Clone()
	for _, m := range clone.Root.Members() {
		if m.Key != string(schema.Streams) {
			continue
		}
		names := map[string]bool{}
		for _, e := range m.Value.Elems() {
			for _, st := range e.Value.Members() {
				if names[st.Key] {
					return d.String() // the last one of a name counts
				}
				names[st.Key] = true
				shuffleMembers(&st.Value, random)
			}
			shuffleMembers(&e.Value, random)
		}
		if a := m.Value.Array; a != nil {
			random.Shuffle(len(a.Elems), func(i, j int) { a.Elems[i].Value, a.Elems[j].Value = a.Elems[j].Value, a.Elems[i].Value })
		}
	}
	return clone.String()
}

func shuffleMembers(v *schema.Value, random *rand.Rand) {
	if v.Object == nil {
		return
	}
	keys := map[string]bool{}
	for _, m := range v.Object.Members {
		if keys[m.Key] || strings.Contains(m.Value.Before+m.Value.After, "#") {
			return
		}
		keys[m.Key] = true
	}
	commas := make([]string, len(v.Object.Members))
	for i, m := range v.Object.Members {
		commas[i] = m.Comma
	}
	random.Shuffle(len(v.Object.Members), func(i, j int) {
		v.Object.Members[i], v.Object.Members[j] = v.Object.Members[j], v.Object.Members[i]
	})
	for i, m := range v.Object.Members {
		m.Comma = commas[i]
	}
}

func TestApprovals(t *testing.T) {
	old := withCerts(base)
	changes := compare(t, old, strings.Replace(strings.Replace(old, "8883", "8884", 1), `"http_cookies": true, `, "", 1), Options{})
	all := NewReport(changes)
	if len(all.Changes) != 2 {
		t.Fatalf("got %d changes, want 2", len(all.Changes))
	}
	if left := all.Approve(changes); len(left) != 0 || all.Unused() != 0 {
		t.Errorf("got %d changes that are not approved, and %d unused approvals", len(left), all.Unused())
	}
	for _, test := range []struct {
		name, text string
		left       int
	}{
		{"one of two", `{"version": 1, "changes": [{"rule": "cookies-off", "streams": ["api", "other"], "text": "http_cookies is off", "reason": "stateless"}]}`, 1},
		{"another text", `{"version": 1, "changes": [{"rule": "cookies-off", "streams": ["api"], "text": "else"}]}`, 2},
		{"another streamtype", `{"version": 1, "changes": [{"rule": "cookies-off", "streams": ["live"], "text": "http_cookies is off"}]}`, 2},
		{"the whole policy", `{"version": 1, "changes": [{"rule": "cookies-off", "text": "http_cookies is off"}]}`, 2},
	} {
		r, err := ParseApprovals("approved.json", []byte(test.text))
		if err != nil {
			t.Fatal(err)
		}
		if left := r.Approve(changes); len(left) != test.left {
			t.Errorf("%s: %d are left, want %d", test.name, len(left), test.left)
		}
	}
	for text, want := range map[string]string{
		"{\n\"x\": 1}": "approved.json:2:",
		`{"version": 1, "changes": [{"rule": "no-such-rule"}]}`: `unknown rule "no-such-rule"`,
		`{"version": 2}`:    "version 2, want 1",
		`{"version": 1} []`: "text after",
		`[`:                 "approved.json:1:2",
		``:                  "approved.json:1:1",
	} {
		if _, err := ParseApprovals("approved.json", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestNotes(t *testing.T) {
	old := withCerts(base)
	var b strings.Builder
	if err := WriteNotes(&b, compare(t, old, strings.NewReplacer("8883", "8884", `"release": "1"`, `"release": "<2>"`).Replace(old), Options{})); err != nil {
		t.Fatal(err)
	}
	want := "## Breaks peers\n\n- \"events\": it connects to mqtt.example.com:8884 instead of mqtt.example.com:8883\n\n## Other changes\n\n- release is \"&lt;2>\" instead of \"1\"\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestHostileNames(t *testing.T) {
	const name = `a\u001b[2J\n- forged\u202e`
	changes := compare(t, `{"s": [{"NAME": {"endpoint": "x", "port": 1, "protocol": "raw"}}]}`, `{"s": [{"b": {"endpoint": "`+name+`", "port": 1, "protocol": "raw"}}, {"`+name+`": {"endpoint": "x", "port": 2, "protocol": "raw"}}]}`, Options{})
	var b strings.Builder
	if err := WriteNotes(&b, changes); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); strings.ContainsAny(text, "\x1b\u202e") || strings.Contains(text, "\n- forged") || !strings.Contains(text, "forged") {
		t.Errorf("got %q", text)
	}
}

func FuzzCompare(f *testing.F) {
	for _, text := range policies(f) {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, old, new string) {
		a, b := schema.Scan("old.json", []byte(old)), schema.Scan("new.json", []byte(new))
		for _, v := range [][]schema.Version{nil, schema.Versions} {
			Compare(a, b, Options{LWS: v})
			if same := Compare(a, a, Options{LWS: v}); len(same) > 0 {
				t.Errorf("a policy differs from itself:\n%s", show(same))
			}
		}
	})
}
