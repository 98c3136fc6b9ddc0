package codegen

import (
	"bytes"
	"fmt"
	"go/format"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

func compileText(text string) (*policy.Policy, []schema.Diagnostic) {
	return Compile(schema.NewPolicy(schema.Parse("policy.json", []byte(text))))
}

// compileFile compiles a policy that must have no errors.
func compileFile(t testing.TB, path string) *policy.Policy {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, diags := compileText(string(text))
	for _, d := range diags {
		t.Errorf("%v: %s [%s]", d.Span, d.Message, d.Rule)
	}
	return p
}

func policyFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no policies in testdata", err)
	}
	return files
}

func TestCompile(t *testing.T) {
	retry := func(r *policy.Retry) *policy.StreamType {
		r.Name = "r"
		return &policy.StreamType{Name: "a", Retry: r, HTTP: &policy.HTTP{}}
	}
	stream := func(st policy.StreamType) *policy.StreamType {
		st.Name = "a"
		if armOf(st.Protocol) == armHTTP && st.HTTP == nil {
			st.HTTP = &policy.HTTP{}
		}
		return &st
	}
	for _, test := range []struct {
		name, text string
		want       *policy.StreamType
	}{
		{"empty", `"s":[{"a":{}}]`, stream(policy.StreamType{})},
		{"the last setting counts", `"s":[{"a":{"port":1,"tls":true,"port":2,"tls":false}}]`, stream(policy.StreamType{Port: 2})},
		{"also where the first is wrong", `"s":[{"a":{"port":{},"port":2}}]`, stream(policy.StreamType{Port: 2})},
		{"the last streamtype counts, whole", `"s":[{"a":{"port":1,"tls":true}},{"a":{"port":2}}]`, stream(policy.StreamType{Port: 2})},
		{"digits", `"s":[{"a":{"port":"0443"}}]`, stream(policy.StreamType{Port: 443})},
		{"a number for a string", `"s":[{"a":{"payload_fmt":7}}]`, stream(policy.StreamType{PayloadFmt: "7"})},
		{"integers as fraction and exponent", `"s":[{"a":{"port":443.0,"timeout_ms":1e3}}]`, stream(policy.StreamType{Port: 443, Timeout: time.Second})},
		{"client certificates count from 1", `"s":[{"a":{"client_cert":254}}]`, stream(policy.StreamType{ClientCert: 255})},
		{"metadata grows", `"s":[{"a":{"metadata":[{"x":"","y":"h:"}],"metadata":[{"z":""}]}}]`, stream(policy.StreamType{
			Metadata: []policy.Metadata{{Name: "x"}, {Name: "y", Header: "h:"}, {Name: "z"}}})},
		{"raw metadata", `"x-sspolicy":{"streams":{"a":{"metadata":{"x":"raw","z":"raw"}},"b":{"metadata":{"y":"raw"}}}},"s":[{"a":{"metadata":[{"x":"","y":""}]}}]`, stream(policy.StreamType{
			Metadata: []policy.Metadata{{Name: "x", Raw: true}, {Name: "y"}}})},
		{"the response map does not", `"s":[{"a":{"http_resp_map":[{"404":1}],"http_resp_map":[{"500":2},{"200":3}]}}]`, stream(policy.StreamType{
			HTTP: &policy.HTTP{RespMap: []policy.StatusState{{Status: 500, State: 2}, {Status: 200, State: 3}}}})},
		{"keys of another protocol", `"s":[{"a":{"protocol":"mqtt","http_url":"/","mqtt_topic":"t","mqtt_keep_alive":60}}]`, stream(policy.StreamType{
			Protocol: policy.ProtocolMQTT, MQTT: &policy.MQTT{Topic: "t", KeepAlive: time.Minute}})},
		{"raw", `"s":[{"a":{"protocol":"raw","http_url":"/","mqtt_topic":"t"}}]`, stream(policy.StreamType{Protocol: policy.ProtocolRaw})},
		{"the protocol may come last", `"s":[{"a":{"http_url":"/","protocol":"ws"}}]`, stream(policy.StreamType{
			Protocol: policy.ProtocolWS, HTTP: &policy.HTTP{URL: "/"}})},
		{"a part with an empty name", `"s":[{"a":{"http_multipart_name":""}}]`, stream(policy.StreamType{HTTP: &policy.HTTP{Multipart: true}})},
		{"unknown keys", `"s":[{"a":{"nonsense":[{}],"plugins":["x"],"port":1}}],"x":{}`, stream(policy.StreamType{Port: 1})},
		{"the last definition before", `"retry":[{"r":{"conceal":1}},{"r":{"conceal":2}}],"s":[{"a":{"retry":"r"}}],"retry":[{"r":{"conceal":3}}]`, retry(&policy.Retry{Conceal: 2})},
		{"a longer name does not match", `"retry":[{"r":{"conceal":1},"r2":{"conceal":2}}],"s":[{"a":{"retry":"r"}}]`, retry(&policy.Retry{Conceal: 1})},
		{"backoff may be a number, and grows", `"retry":[{"r":{"backoff":"100","backoff":[200,300],"svalidping":3}}],"s":[{"a":{"retry":"r"}}]`,
			retry(&policy.Retry{Backoff: []time.Duration{100e6, 200e6, 300e6}, ValidPing: 3 * time.Second})},
		{"base64 of all kinds", `"certs":[{"a":"_-8"},{"b":"/+\n8="}],"trust_stores":[{"name":"t","stack":"a","stack":["b","a"]}],"s":[{"a":{"tls_trust_store":"t"}}]`,
			stream(policy.StreamType{TrustStore: &policy.TrustStore{Name: "t", Stack: []*policy.Cert{
				{Name: "a", DER: "\xff\xef"}, {Name: "b", DER: "\xff\xef"}, {Name: "a", DER: "\xff\xef"}}}})},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, diags := compileText("{" + test.text + "}")
			for _, d := range diags {
				t.Errorf("%v: %s", d.Span, d.Message)
			}
			if diff := cmp.Diff([]*policy.StreamType{test.want}, got.StreamTypes); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompileOrder(t *testing.T) {
	p, _ := compileText(`{"s":[{"a":{}},{"b":{},"c":{}},{"a":{}}],"metrics":[{"name":"y"},{"name":"x"}],"s":[{"d":{}}]}`)
	var names []string
	for _, st := range p.StreamTypes {
		names = append(names, st.Name)
	}
	for _, m := range p.Metrics {
		names = append(names, m.Name)
	}
	if got, want := strings.Join(names, " "), "b c a d y x"; got != want {
		t.Errorf("order is %s, want %s", got, want)
	}
}

func TestCompileShares(t *testing.T) {
	p := compileFile(t, "testdata/every-key.json")
	http, other, mqtt := p.StreamType("http"), p.StreamType("other"), p.StreamType("mqtt")
	if http.Retry == nil || http.Retry != other.Retry {
		t.Error("streams with the same retry do not share it")
	}
	if http.Auth == nil || http.Auth != other.Auth {
		t.Error("streams with the same auth do not share it")
	}
	if http.TrustStore == nil || http.TrustStore != mqtt.TrustStore {
		t.Error("streams with the same trust store do not share it")
	}
	if http.TrustStore.Stack[1] != other.TrustStore.Stack[0] {
		t.Error("trust stores with the same certificate do not share it")
	}
}

func TestCompileErrors(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"out of range", `{"s":[{"a":{"port":65536}}]}`, "1:20 out-of-range"},
		{"negative", `{"s":[{"a":{"port":-1}}]}`, "1:20 out-of-range"},
		{"too big for anything", `{"s":[{"a":{"timeout_ms":1e99}}]}`, "1:26 out-of-range"},
		{"too many digits", `{"s":[{"a":{"timeout_ms":"99999999999999999999999"}}]}`, "1:26 out-of-range"},
		{"the index of a client certificate", `{"s":[{"a":{"client_cert":255}}]}`, "1:27 out-of-range"},
		{"an element", `{"retry":[{"r":{"backoff":[1,4294967296]}}],"s":[{"a":{"retry":"r"}}]}`, "1:30 out-of-range"},
		{"unknown protocol", `{"s":[{"a":{"protocol":"h1get"}}]}`, "1:24 out-of-range"},
		{"not an integer", `{"s":[{"a":{"port":"80x"}}]}`, "1:20 wrong-type"},
		{"a fraction", `{"s":[{"a":{"port":80.5}}]}`, "1:20 wrong-type"},
		{"not a boolean", `{"s":[{"a":{"tls":"true"}}]}`, "1:19 wrong-type"},
		{"not a string", `{"s":[{"a":{"endpoint":null}}]}`, "1:24 wrong-type"},
		{"not a list", `{"s":[{"a":{"metadata":{"x":"y"}}}]}`, "1:24 wrong-type"},
		{"not a list of objects", `{"s":[{"a":{"metadata":["x"]}}]}`, "1:25 wrong-type"},
		{"not a list of strings", `{"s":[{"a":{"metadata":[{"x":true}]}}]}`, "1:30 wrong-type"},
		{"not a status", `{"s":[{"a":{"http_resp_map":[{"x":1}]}}]}`, "1:31 wrong-type"},
		{"not an object", `{"s":[{"a":1}]}`, "1:12 wrong-type"},
		{"not a reference", `{"s":[{"a":{"retry":1}}]}`, "1:21 wrong-type"},
		{"undefined", `{"s":[{"a":{"retry":"r"}}]}`, "1:21 undefined-reference"},
		{"defined later", `{"s":[{"a":{"retry":"r"}}],"retry":[{"r":{}}]}`, "1:21 forward-reference"},
		{"unreadable", `{"certs":[{"c":"AAAA"}],"trust_stores":[{"t":["c"]}],"s":[{"a":{"tls_trust_store":"t"}}]}`, "1:83 undefined-reference"},
		{"not base64", `{"certs":[{"c":"A*"}],"trust_stores":[{"name":"t","stack":"c"}],"s":[{"a":{"tls_trust_store":"t"}}]}`, "1:16 cert-encoding"},
		{"empty certificate", `{"certs":[{"c":""}],"trust_stores":[{"name":"t","stack":"c"}],"s":[{"a":{"tls_trust_store":"t"}}]}`, "1:16 cert-encoding"},
		{"certificate of another type", `{"certs":[{"c":1}],"trust_stores":[{"name":"t","stack":"c"}],"s":[{"a":{"tls_trust_store":"t"},"b":{"tls_trust_store":"t"}}]}`, "1:16 wrong-type"},
		{"half of a character", `{"s":[{"a":{"payload_fmt":"x\ud83dy"}}]}`, "1:29 bad-value"},
		{"half of a character in a name", `{"s":[{"a\udc00":{}}]}`, "1:10 bad-value"},
		{"missing value", `{"s":[{"a":{"port":}}]}`, "1:20 wrong-type"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, diags := compileText(test.text)
			var got []string
			for _, d := range diags {
				p := d.Span.Position()
				got = append(got, fmt.Sprintf("%d:%d %s", p.Line, p.Column, d.Rule))
			}
			if diff := cmp.Diff([]string{test.want}, got); diff != "" {
				t.Error(diff, diags)
			}
		})
	}
}

// TestCompileTakes checks values that Compile accepts as lws does: any value of a key that
// no version uses, and 0 with a sign.
func TestCompileTakes(t *testing.T) {
	for _, text := range []string{
		`{"product":null,"release":["x"],"schema-version":"one","s":[]}`,
		`{"product":5,"schema-version":{},"s":[]}`,
		`{"s":[{"a":{"attr_priority":-0,"timeout_ms":-0}}]}`,
		`{"retry":[{"r":{"backoff":1000}}],"s":[{"a":{"retry":"r","plugins":"x"}}]}`,
	} {
		if _, found := compileText(text); len(found) > 0 {
			t.Errorf("%s: %s [%s]", text, found[0].Message, found[0].Rule)
		}
		if found := schema.Validate(schema.Parse("policy.json", []byte(text))); schema.HasErrors(found) {
			t.Errorf("%s: validate: %s [%s]", text, found[0].Message, found[0].Rule)
		}
	}
}

// TestCompileLikeFalse checks values that lws reads as false.
func TestCompileLikeFalse(t *testing.T) {
	for _, value := range []string{`0`, `"0"`, `"false"`, `""`, `null`} {
		p, diags := compileText(`{"s":[{"a":{"tls":` + value + `}}]}`)
		if len(diags) > 0 || p.StreamTypes[0].TLS {
			t.Errorf("%s: %v, tls is %v", value, diags, p.StreamTypes[0].TLS)
		}
	}
}

// FuzzCompile checks that every text compiles, that diagnostics are complete, that Go
// source is formatted as gofmt does, and that the writers write nothing if they fail.
func FuzzCompile(f *testing.F) {
	for _, file := range policyFiles(f) {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"s":[{"ꙮ0ꙮ":{"metadata":[{"ꙮ1ꙮ":"\n"},{"a b":"x:"},{"a_b":"* y"}]}},{"# b":{"metadata":[{"\u0060\u0060":"''"}]}},{"\t":{"server":true}}]}`))
	f.Add([]byte(`{"s":[{"a":{"retry":"r","retry":[],"port":,"metadata":[{"a"}]}}],"retry":[{"r":[]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, diags := compileText(string(text))
		for _, d := range diags {
			if d.Span.Source == nil || d.Rule == "" || d.Message == "" {
				t.Errorf("incomplete diagnostic %+v", d)
			}
		}
		var source bytes.Buffer
		if err := Go(&source, p, GoOptions{}); err != nil {
			t.Error(err)
		}
		if formatted, err := format.Source(source.Bytes()); err != nil {
			t.Error(err)
		} else if !bytes.Equal(formatted, source.Bytes()) {
			t.Errorf("not formatted: %s", cmp.Diff(string(formatted), source.String()))
		}
		for _, target := range targets() {
			var b bytes.Buffer
			if err := C(&b, p, COptions{Target: target}); err != nil && b.Len() > 0 {
				t.Errorf("%d bytes were written before %v", b.Len(), err)
			}
		}
	})
}

func targets() (all []Target) {
	for _, v := range schema.Versions {
		all = append(all, Target(v))
	}
	return all
}

// policyOf returns a policy of n streamtypes.
func policyOf(n int) string {
	var b strings.Builder
	b.WriteString(`{"retry":[{"r":{"backoff":[1000,2000],"conceal":3}}],"certs":[{"c":"` + strings.Repeat("AAAA", 200) + `"}],"trust_stores":[{"name":"t","stack":["c"]}],"s":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"stream-%d":{"endpoint":"host%[1]d.example.com","port":443,"protocol":"h2","http_method":"GET","http_url":"path/%[1]d/${id}",`+
			`"tls":true,"tls_trust_store":"t","retry":"r","opportunistic":true,"nailed_up":false,"metadata":[{"id":""},{"type":"content-type:"}]}}`, i)
	}
	return b.String() + "]}"
}

// BenchmarkCompile reports as growth the time per streamtype relative to the smallest
// policy: 1 is linear.
func BenchmarkCompile(b *testing.B) {
	perStream := map[string]float64{} // per streamtype of the smallest policy
	for _, n := range []int{500, 5000} {
		view := schema.NewPolicy(schema.Parse("policy.json", []byte(policyOf(n))))
		p, _ := Compile(view)
		for _, to := range []struct {
			name string
			do   func() error
		}{
			{"table", func() error { Compile(view); return nil }},
			{"go", func() error { return Go(io.Discard, p, GoOptions{}) }},
			{"c", func() error { return C(io.Discard, p, COptions{}) }},
		} {
			name, f := to.name, to.do
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
				took := float64(b.Elapsed()) / float64(b.N) / float64(n)
				if n == 500 {
					perStream[name] = took
				} else if first := perStream[name]; first > 0 {
					b.ReportMetric(took/first, "growth")
				}
			})
		}
	}
}
