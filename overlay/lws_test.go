package overlay

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/secure-streams/sspolicy/schema"
)

var update = flag.Bool("update", false, "rewrite the expected findings and changes of the cases")

// TestCases applies the fragments of each case in testdata/cases in both modes. The
// section "lws" is what lws_ss_policy_overlay of lws 5.0.0 returned for each
// fragment, and the members of its policy that differ afterwards: it is measured, and
// -update does not change it. The other sections are what Apply reports.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			base := "base.json"
			if name, ok := strings.CutPrefix(strings.TrimSpace(string(a.Comment)), "base: "); ok {
				base = name
			}
			policy := parseFile(t, base)
			var fragments []*schema.Document
			var measured string
			kept := a.Files[:0]
			for _, f := range a.Files {
				switch {
				case strings.HasPrefix(f.Name, "fragment"):
					text := strings.TrimSuffix(string(f.Data), "\n")
					fragments = append(fragments, schema.Parse(strings.TrimSuffix(f.Name, ".json"), []byte(text)))
				case f.Name == "lws":
					measured = string(f.Data)
				}
				if f.Name != "lws findings" && f.Name != "author" {
					kept = append(kept, f)
				}
			}
			old := txtar.Format(&txtar.Archive{Comment: a.Comment, Files: a.Files})
			l := Apply(policy, fragments, Options{LWS: schema.Latest()})
			compare(t, measured, policy, l)
			author := Apply(policy, fragments, Options{})
			now := txtar.Format(&txtar.Archive{Comment: a.Comment, Files: append(slices.Clone(kept),
				txtar.File{Name: "lws findings", Data: []byte(listDiagnostics(l.Diagnostics))},
				txtar.File{Name: "author", Data: []byte(listDiagnostics(author.Diagnostics) + listChanges(author.Changes))},
			)})
			if *update {
				if err := os.WriteFile(file, now, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if d := gocmp.Diff(string(old), string(now)); d != "" {
				t.Error(d)
			}
		})
	}
}

func parseFile(t *testing.T, name string) *schema.Document {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Parse("base", text)
}

func listDiagnostics(ds []schema.Diagnostic) string {
	var b strings.Builder
	for _, d := range ds {
		message := d.Message
		if len(message) > 200 {
			message = message[:200] + "…"
		}
		fmt.Fprintf(&b, "%v: %v: %s [%s]\n", d.Span, d.Severity, message, d.Rule)
	}
	return b.String()
}

func listChanges(changes []Change) string {
	var b strings.Builder
	text := func(v *schema.Value) string {
		switch {
		case v == nil:
			return "-"
		case v.Object != nil || v.Array != nil:
			return v.Kind.String()
		case len(v.Raw()) > 60:
			return v.Raw()[:60] + "…"
		}
		return v.Raw()
	}
	for _, c := range changes {
		fmt.Fprintf(&b, "%s: %s -> %s", c.Path(), text(c.Before), text(c.After))
		if c.Why != "" {
			b.WriteString(" because " + c.Why)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// compare compares a measured result with that of Apply.
func compare(t *testing.T, measured string, base *schema.Document, r Result) {
	t.Helper()
	var want []string
	var crashed, refused, rest bool
	for line := range strings.Lines(measured) {
		line = strings.TrimSuffix(line, "\n")
		if line == "crash" {
			crashed = true
		} else if codes, ok := strings.CutPrefix(line, "result: "); ok {
			for code := range strings.SplitSeq(codes, ", ") {
				n, err := strconv.Atoi(code)
				if err != nil {
					t.Fatal(err)
				}
				refused, rest = refused || n < 0, rest || n > 0
			}
		} else {
			want = append(want, line)
		}
	}
	has := func(rule string) bool {
		return slices.ContainsFunc(r.Diagnostics, func(d schema.Diagnostic) bool { return d.Rule == rule })
	}
	if got := has(RuleLWSRefused); got != (refused || crashed) {
		t.Errorf("refused: %v, want %v", got, refused)
	}
	if got := has(RuleLWSIncomplete); got != rest {
		t.Errorf("text left over: %v, want %v", got, rest)
	}
	if crashed {
		return
	}
	before, after := dump(base), dump(r.Document)
	var got []string
	for _, name := range slices.Sorted(maps.Keys(merge(before, after))) {
		was, now := cmp.Or(before[name], `"-"`), cmp.Or(after[name], `"-"`)
		if was != now {
			line := name + ": " + was + " -> " + now
			got = append(got, line[:min(len(line), 220)]) // as in the measured ones
		}
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("settings (-lws +Apply):\n%s", d)
	}
}

func merge(a, b map[string]string) map[string]string {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// dump returns the members of lws_ss_policy_t of each streamtype that the cases affect.
func dump(d *schema.Document) map[string]string {
	out := map[string]string{}
	p := schema.NewPolicy(d)
	for _, def := range p.Section(schema.Streams) {
		set := func(name, value string) { out[def.Name+"."+name] = value }
		text := func(key string) string {
			if s := def.Get(key); s != nil {
				return s.Member.Value.Raw()
			}
			return "null"
		}
		number := func(key string) string {
			if s := def.Get(key); s != nil {
				return schema.Wrap(s.Member.Value.Text(), s.Key)
			}
			return "0"
		}
		flag := func(key string) string {
			if def.Bool(key) {
				return "1"
			}
			return "0"
		}
		set("endpoint", text("endpoint"))
		set("rideshare", text("rideshare"))
		for _, key := range []string{"port", "timeout_ms", "attr_priority"} {
			set(key, number(key))
		}
		certificate := 0
		if def.Get("client_cert") != nil {
			n, _ := strconv.Atoi(number("client_cert"))
			certificate = n + 1
		}
		set("client_cert", strconv.Itoa(certificate))
		var flags []string
		for _, k := range slices.SortedFunc(slices.Values(schema.Keys(schema.Streams)), func(a, b *schema.Key) int { return cmp.Compare(a.Bit, b.Bit) }) {
			if k.Flag != "" && k.Is("boolean") && def.Bool(k.Name) {
				flags = append(flags, k.Name)
			}
		}
		set("flags", schema.Quote(strings.Join(flags, "+")))
		var items []string
		n := 0
		for _, s := range def.Settings {
			if s.Member.Key != "metadata" {
				continue
			}
			for _, e := range s.Member.Value.Elems() {
				for _, m := range e.Value.Members() {
					items = append(items, fmt.Sprintf("[%s, %s, %d]", schema.Quote(m.Key), m.Value.Raw(), n%256))
					n++
				}
			}
		}
		slices.Reverse(items)
		set("metadata", "["+strings.Join(items, ", ")+"]")
		set("metadata_count", strconv.Itoa(n%256))
		protocol := def.Text("protocol")
		switch familyOf(protocol) {
		case 0:
			set("protocol", schema.Quote(protocol))
			set("http.method", text("http_method"))
			set("http.url", text("http_url"))
			set("http.multipart_name", text("http_multipart_name"))
			set("http.multipart_filename", text("http_multipart_filename"))
			set("http.multipart_content_type", text("http_mime_content_type"))
			set("http.auth_preamble", text("http_auth_preamble"))
			set("http.blob_header", fmt.Sprintf(`[{"0:auth": %s}, {"1:dsn": %s}, {"2:fwv": %s}, {"3:type": %s}]`,
				text("http_auth_header"), text("http_dsn_header"), text("http_fwv_header"), text("http_devtype_header")))
			set("http.resp_expect", number("http_expect"))
			set("http.fail_redirect", flag("http_fail_redirect"))
			if protocol == "ws" {
				set("http.ws_binary", flag("ws_binary"))
			}
			var statuses []string
			if s := def.Get("http_resp_map"); s != nil {
				for _, e := range s.Member.Value.Elems() {
					for _, m := range e.Value.Members() {
						statuses = append(statuses, "["+m.Key+", "+m.Value.Raw()+"]")
					}
				}
			}
			set("http.respmap", "["+strings.Join(statuses, ", ")+"]")
			set("http.count_respmap", strconv.Itoa(len(statuses)))
		case 1:
			set("protocol", schema.Quote(protocol))
			for _, key := range []string{"topic", "subscribe", "will_topic", "will_message", "birth_topic", "birth_message"} {
				set("mqtt."+key, text("mqtt_"+key))
			}
			for _, key := range []string{"qos", "keep_alive", "will_qos", "birth_qos"} {
				set("mqtt."+key, number("mqtt_"+key))
			}
			for _, key := range []string{"retain", "clean_start", "will_retain", "birth_retain"} {
				set("mqtt."+key, flag("mqtt_"+key))
			}
			set("mqtt.aws_iot", flag("aws_iot"))
		default:
			if protocol == "raw" {
				set("protocol", `"raw"`)
			} else {
				set("protocol", `"?255"`)
				set("!unknown-protocol", "255")
			}
		}
		for _, ref := range p.References {
			if ref.From != def || ref.Target == nil {
				continue
			}
			switch ref.Key.Name {
			case "retry":
				set("retry.conceal", cmp.Or(ref.Target.Text("conceal"), "0"))
				set("retry.jitter", cmp.Or(ref.Target.Text("jitterpc"), "0"))
				if b := ref.Target.Get("backoff"); b != nil && len(b.Member.Value.Elems()) > 0 {
					set("retry.table", "["+b.Member.Value.Elems()[0].Value.Raw()+"]") // lws keeps the first
				}
			case "tls_trust_store":
				set("trust.store.name", schema.Quote(ref.Name))
			}
		}
	}
	return out
}

// TestLargeFragment applies 3,000 entries for one streamtype, as lws 5.0.0 does.
func TestLargeFragment(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"s":[`)
	for i := range 3000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"api":{"endpoint":"h%d.test","port":%d}}`, i, i+1)
	}
	b.WriteString(`]}`)
	base := parseFile(t, "base.json")
	fragments := []*schema.Document{schema.Parse("fragment", []byte(b.String()))}
	compare(t, "result: 0\napi.endpoint: \"api.example.com\" -> \"h2999.test\"\napi.port: 443 -> 3000\n", base, Apply(base, fragments, Options{LWS: schema.Latest()}))
	author := Apply(base, fragments, Options{})
	if a := dump(author.Document); a["api.endpoint"] != `"h2999.test"` || len(author.Changes) != 6000 {
		t.Errorf("endpoint %s after %d changes", a["api.endpoint"], len(author.Changes))
	}
}

// TestVersions checks the differences between the overlays of lws releases.
func TestVersions(t *testing.T) {
	const base = `{"s":[{"a":{"protocol":"h1","port":1}}]}`
	for _, test := range []struct {
		fragment string
		version  string
		finding  string // rule, or "" for none
		port     string
	}{
		{"# c\n{\"s\":[{\"a\":{\"port\":2}}]}", "4.2", "", "2"},
		{"# c\n{\"s\":[{\"a\":{\"port\":2}}]}", "4.3", RuleLWSRefused, "1"},
		{"", "4.2", RuleLWSIncomplete, "1"},
		{"", "4.5", RuleLWSRefused, "1"},
		{"{}", "4.3", RuleLWSRefused, "1"},
		{"{}", "4.4", "", "1"},
		{`{"s":[{"a":{"http_resp_map":[{"404":1000}],"port":2}}]}`, "4.1", RuleLWSPhantom, "1"},
		{`{"s":[{"a":{"http_resp_map":[{"404":1000}],"port":2}}]}`, "4.2", "", "2"},
		{`{"s":[{"a":{"http_cookies":true,"port":2}}]}`, "4.2", RuleLWSPhantom, "1"},
		{`{"s":[{"a":{"http_cookies":true,"port":2}}]}`, "4.3", "", "2"},
		{`{"s":[{"a":{"mqtt_retain":true,"port":2}}]}`, "4.3.1", RuleLWSPhantom, "1"},
		{`{"s":[{"a":{"protocol":"h3","port":2}}]}`, "4.5", RuleLWSRefused, "1"},
		{`{"s":[{"a":{"protocol":"h3","port":2}}]}`, "5.0", "", "2"},
		{`{"s":[{"a[0]":{"port":2}}]}`, "4.4", RuleLWSPhantom, "1"},
		{`{"s":[{"a":{"options":[{"x":"1"}],"port":2}}]}`, "5.0", RuleLWSPhantom, "1"},
		{`{"auth":[{"name":"x"}],"s":[{"a":{"use_auth":"x","port":2}}]}`, "4.1", RuleLWSPhantom, "1"},
		{`{"auth":[{"name":"x"}],"s":[{"a":{"use_auth":"x","port":2}}]}`, "4.2", "", "2"},
	} {
		var v schema.Version
		if err := v.UnmarshalText([]byte(test.version)); err != nil {
			t.Fatal(err)
		}
		r := Apply(schema.Parse("base", []byte(base)), []*schema.Document{schema.Parse("fragment", []byte(test.fragment))}, Options{LWS: v})
		var rule string
		for _, d := range r.Diagnostics {
			if strings.HasPrefix(d.Rule, "lws-") && rule == "" {
				rule = d.Rule
			}
		}
		port := schema.NewPolicy(r.Document).Lookup(schema.Streams, "a")[0].Text("port")
		if rule != test.finding || port != test.port {
			t.Errorf("lws %s, %s: port %s, %v", test.version, test.fragment, port, listDiagnostics(r.Diagnostics))
		}
	}
}

// TestTruncated applies each prefix of a fragment: the complete part is applied, and an
// error says where it ends.
func TestTruncated(t *testing.T) {
	const base = `{"s":[{"a":{"port":1,"endpoint":"x"}}]}`
	const fragment = `{"s":[{"a":{"port":2,"endpoint":"y","metadata":[{"m":"m:"}],"tls":true}}]}`
	for n := 1; n < len(fragment); n++ {
		text := fragment[:n]
		r := Apply(schema.Parse("base", []byte(base)), []*schema.Document{schema.Parse("fragment", []byte(text))}, Options{LWS: schema.Latest()})
		var done []string
		for _, c := range r.Changes {
			done = append(done, c.Key)
		}
		var want []string
		for _, end := range []struct{ key, text string }{{"port", `2,`}, {"endpoint", `"y"`}, {"metadata", `"m:"`}, {"tls", `true`}} {
			if strings.Contains(text, end.text) {
				want = append(want, end.key)
			}
		}
		if d := gocmp.Diff(want, done); d != "" {
			t.Errorf("%s: %s", text, d)
		}
		if !slices.ContainsFunc(r.Diagnostics, func(d schema.Diagnostic) bool { return d.Rule == RuleLWSIncomplete && d.Severity == schema.Error }) {
			t.Errorf("%s: %s", text, listDiagnostics(r.Diagnostics))
		}
	}
}
