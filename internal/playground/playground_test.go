package playground

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

func ask(t *testing.T, r Request) Response {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var a Response
	if err := json.Unmarshal([]byte(Answer(string(b))), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func fixture(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../fixtures", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestViews(t *testing.T) {
	policy, fragment := fixture(t, "weather.json"), fixture(t, "weather-staging.json")
	for _, c := range []struct {
		view, want string
		has        func(Response) string
	}{
		{"c", "staging.weather.example.com", func(r Response) string { return r.Text }},
		{"go", "staging.weather.example.com", func(r Response) string { return r.Text }},
		{"overlay", "+        \"port\": 8443", func(r Response) string { return r.Text }},
		{"overlay", "s.get_weather.port 443 8443", func(r Response) string {
			var b strings.Builder
			for _, c := range r.Changes {
				b.WriteString(c.Path + " " + c.Before + " " + c.After + "\n")
			}
			return b.String()
		}},
		{"footprint", "total with gcc -Os", func(r Response) string { return r.Footprint[6].Kind }},
		{"retry", "It gives up after 5 retries, which wait 10s to 12s in all. Used by get_weather.", func(r Response) string { return r.Pictures[0].Title }},
		{"graph", "staging.weather.example.com:8443", func(r Response) string { return r.Pictures[0].SVG }},
		{"retry", "1,000 devices of get_weather", func(r Response) string { return r.Pictures[1].Title }},
		{"retry", "<svg", func(r Response) string { return r.Pictures[0].SVG }},
		{"format", "{", func(r Response) string { return r.Text }},
		{"versions", "5.0", func(r Response) string { return r.Versions[0] }},
	} {
		r := ask(t, Request{View: c.view, Policy: policy, Fragment: fragment})
		if r.Error != "" {
			t.Errorf("%s: %s", c.view, r.Error)
		} else if got := c.has(r); !strings.Contains(got, c.want) {
			t.Errorf("%s: no %q in %s", c.view, c.want, got)
		}
	}
}

func TestErrors(t *testing.T) {
	wrong := fixture(t, "weather-mistakes.json")
	for _, c := range []struct {
		r    Request
		want string
	}{
		{Request{View: "x"}, `unknown view "x"`},
		{Request{View: "findings", LWS: "9.9"}, `unknown lws version "9.9"`},
		{Request{View: "c", Policy: wrong}, "the policy has errors: policy.json:12:17"},
		{Request{View: "findings", Policy: strings.Repeat(" ", MaxSize+1)}, "policy.json has more than 1024 kB"},
		{Request{View: "findings", Fragment: strings.Repeat("[", MaxTokens+1)}, "fragment.json has more than 200000 tokens"},
		{Request{View: "graph", Policy: `{"certs": [` + strings.Repeat(`{"a": ""},`, maxNodes) + `{"a": ""}]}`}, "1001 definitions, too many"},
		{Request{View: "overlay", Policy: "{", Fragment: "{"}, "the fragment cannot be applied"},
	} {
		if r := ask(t, c.r); !strings.Contains(r.Error, c.want) {
			t.Errorf("%s: %q, want %q", c.r.View, r.Error, c.want)
		}
	}
	if r := Answer("{"); !strings.Contains(r, `"error":`) {
		t.Error(r)
	}
}

// apply applies edits as the page does.
func apply(text string, edits []Edit) string {
	units := utf16.Encode([]rune(text))
	for i := len(edits) - 1; i >= 0; i-- {
		e := edits[i]
		units = append(append(append([]uint16(nil), units[:e.From]...), utf16.Encode([]rune(e.Insert))...), units[e.To:]...)
	}
	return string(utf16.Decode(units))
}

// TestFindings applies a fix behind characters whose lengths differ in UTF-8 and UTF-16.
func TestFindings(t *testing.T) {
	const policy = "# é😀\n" + `{"s": [{"a😀": {"endpoint": "é", "prot": 80, "protocol": "h1", "http_method": "GET", "http_url": "x"}}]}`
	r := ask(t, Request{View: "findings", Policy: policy, Fragment: `{"s": [{"b": {"port": 1}}]}`})
	in := map[string]bool{}
	for _, f := range r.Findings {
		in[f.In] = true
		if f.Rule != "unknown-key" {
			continue
		}
		if got := string(utf16.Decode(utf16.Encode([]rune(policy))[f.From:f.To])); got != `"prot"` {
			t.Errorf("the finding is at %s", got)
		}
		if got, want := apply(policy, f.Fixes[0].Edits), strings.Replace(policy, "prot", "port", 1); got != want {
			t.Errorf("fixed: %s", got)
		}
		return
	}
	t.Errorf("no unknown-key in %+v", r.Findings)
}

func TestFix(t *testing.T) {
	r := ask(t, Request{View: "fix", Policy: fixture(t, "weather-mistakes.json")})
	if !strings.Contains(r.Text, `"opportunistic"`) || r.Error != "" {
		t.Errorf("%+v", r)
	}
}

// TestFragmentFindings reports findings of a fragment in it.
func TestFragmentFindings(t *testing.T) {
	r := ask(t, Request{View: "findings", Policy: fixture(t, "weather.json"), Fragment: `{"s": [{"get_weather": {"prt": 1}}]}`})
	if len(r.Findings) == 0 || r.Findings[0].In != "fragment" {
		t.Errorf("%+v", r.Findings)
	}
}

func FuzzAnswer(f *testing.F) {
	for view := range views {
		f.Add(view, `{"s": [{"a": {"endpoint": "é", "prot": 80}}]}`, `{"s": [{"a": {"port": 1}}]}`)
	}
	f.Fuzz(func(t *testing.T, view, policy, fragment string) {
		b, _ := json.Marshal(Request{View: view, Policy: policy, Fragment: fragment})
		var r Response
		if err := json.Unmarshal([]byte(Answer(string(b))), &r); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(r.Error, "a bug in sspolicy") {
			t.Fatal(r.Error)
		}
		for _, g := range r.Findings {
			of := policy
			if g.In == "fragment" {
				of = fragment
			}
			if n := len(utf16.Encode([]rune(of))); g.From > g.To || g.To > n {
				t.Errorf("a finding is at %d to %d of %d", g.From, g.To, n)
			}
		}
	})
}
