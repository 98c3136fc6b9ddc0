package policy

import (
	"errors"
	"strings"
	"testing"
)

var expandItems = []Metadata{{Name: "a"}, {Name: "b"}, {Name: "unset"}, {Name: "with space"}}

var expandValues = []Value{{"AA", true}, {"${a}", true}, {}, {"S", true}}

func TestTemplate(t *testing.T) {
	for _, tt := range []struct {
		text, want string
		err        error
	}{
		{"", "", nil},
		{"plain", "plain", nil},
		{"${a}", "AA", nil},
		{"x${a}y${a}z", "xAAyAAz", nil},
		{"${b}", "${a}", nil}, // values are not expanded
		{"[${unset}]", "[]", nil},
		{"${with space}", "S", nil},
		{"$", "$", nil},
		{"$$", "$$", nil},
		{"$${a}", "$AA", nil},
		{"$x {a}", "$x {a}", nil},
		{"a$", "a$", nil},
		{"}${a}{", "}AA{", nil},
		{"${", "", ErrTemplate},
		{"x${a", "", ErrTemplate},
		{"${a}${", "", ErrTemplate},
		{"${A}", "", ErrUnknownMetadata},
		{"${}", "", ErrUnknownMetadata},
		{"${a }", "", ErrUnknownMetadata},
		{"${${a}}", "", ErrUnknownMetadata},
	} {
		tmpl, err := ParseTemplate(tt.text, expandItems)
		if !errors.Is(err, tt.err) || err == nil != (tt.err == nil) {
			t.Errorf("%q: error %v, want %v", tt.text, err, tt.err)
		}
		if err != nil {
			continue
		}
		got := tmpl.Expand(expandValues)
		if got != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.text, got, tt.want)
		}
		if got, want := tmpl.Expand(nil), strings.NewReplacer("${a}", "", "${b}", "", "${unset}", "", "${with space}", "").Replace(tt.text); got != want {
			t.Errorf("%q with nothing set becomes %q, want %q", tt.text, got, want)
		}
	}
}

// TestRaw checks that the value of a raw item is inserted into a URL or topic unchanged.
func TestRaw(t *testing.T) {
	items := []Metadata{{Name: "a"}, {Name: "r", Raw: true}}
	const wide = "x/../#?&+"
	values := []Value{{"?", true}, {wide, true}}
	uses := make([]Use, 2)
	url, err := ParseURL("v1/${a}/${r}", items, uses)
	if err != nil {
		t.Fatal(err)
	}
	if got := url.Expand(values); got != "v1/%3F/"+wide {
		t.Errorf("the URL is %q", got)
	}
	if _, err := ParseTopic("t/${a}/${r}", items, uses); err != nil {
		t.Fatal(err)
	}
	e, err := NewEndpoint(&StreamType{Endpoint: "http://h/${a}/${r}", Metadata: items}, uses)
	if err != nil {
		t.Fatal(err)
	}
	if target, err := e.Resolve(values); err != nil || target.Path != "/%3F/x/../" { // '#' begins a fragment
		t.Errorf("the endpoint is %+v (%v)", target, err)
	}
	if uses[0] != UseURL|UsePart|UseLevel || uses[1] != UseURL {
		t.Errorf("the uses are %b", uses)
	}
	if err := uses[1].Check(wide); err != nil {
		t.Error(err)
	}
	for _, parse := range []func(string, []Metadata, []Use) (*Template, error){ParseURL, ParseTopic} {
		if _, err := parse("${nobody}", items, uses); !errors.Is(err, ErrUnknownMetadata) {
			t.Error(err)
		}
	}
}

// FuzzTemplate compares the expansion with a single-loop implementation.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"", "x${a}y", "$${a}$", "${", "${a}${b}", "${unset}}", "${nobody}"} {
		f.Add(s, "v")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		values := []Value{{value, true}, {"${a}", true}, {}, {"S", true}}
		var want strings.Builder
		ok := true
		for i := 0; i < len(text) && ok; {
			if !strings.HasPrefix(text[i:], "${") {
				want.WriteByte(text[i])
				i++
				continue
			}
			n := strings.IndexByte(text[i:], '}')
			if ok = n > 0; ok {
				item := ItemIndex(expandItems, text[i+2:i+n])
				if ok = item >= 0; ok {
					want.WriteString(values[item].Text)
				}
				i += n + 1
			}
		}
		tmpl, err := ParseTemplate(text, expandItems)
		if (err == nil) != ok {
			t.Fatalf("%q: error %v, want an error: %v", text, err, !ok)
		}
		if err != nil {
			return
		}
		got := tmpl.Expand(values)
		if got != want.String() {
			t.Fatalf("%q becomes %q, want %q", text, got, want.String())
		}
	})
}
