package schema

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFormat(t *testing.T) {
	const in = `# above all
{"release":"1", # the release

 "retry":[{"default":{"backoff":[ 1000,2000 ],"conceal":5}}],
 # the roots
 # of trust
 "certs":[{"a":"MIIB"},{"b" : "MIIC"} # last
 ],"trust_stores":[{"name":"t","stack":["a","b"]}],
 "s":[{"one":{"endpoint":"example.com", # where


   "port":443,
   "metadata":[{"x":"x:"},{"y":""}], "http_resp_map":[{"404":1404},{"405":1405},{"406":1406},{"407":1407},{"408":1408},{"409":1409}] # many
   # the end
 },"two":{}}]} # done
`
	const want = `# above all
{
  "release": "1", # the release

  "retry": [
    {
      "default": {
        "backoff": [1000, 2000],
        "conceal": 5
      }
    }
  ],
  # the roots
  # of trust
  "certs": [
    {"a": "MIIB"},
    {"b": "MIIC"} # last
  ],
  "trust_stores": [
    {"name": "t", "stack": ["a", "b"]}
  ],
  "s": [
    {
      "one": {
        "endpoint": "example.com", # where

        "port": 443,
        "metadata": [{"x": "x:"}, {"y": ""}],
        "http_resp_map": [
          {"404": 1404},
          {"405": 1405},
          {"406": 1406},
          {"407": 1407},
          {"408": 1408},
          {"409": 1409}
        ] # many
        # the end
      },
      "two": {}
    }
  ]
} # done
`
	got, err := Format(Parse("f", []byte(in)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := Format(Parse("f", []byte(`{"a":1,}`))); err == nil {
		t.Error("a policy with a syntax error was formatted")
	}
}

// FuzzFormat checks that formatting keeps values and comments, and is idempotent.
func FuzzFormat(f *testing.F) {
	for _, s := range syntaxSeeds {
		f.Add(s)
	}
	f.Add("{# a\n\"b\"# c\n:# d\n1# e\n,# f\n\"g\":[# h\n1# i\n,# j\n]# k\n# l\n}# m")
	f.Fuzz(func(t *testing.T, text string) {
		d := Parse("f", []byte(text))
		got, err := Format(d)
		if err != nil {
			return
		}
		formatted := Parse("f", []byte(got))
		if len(formatted.Syntax) > 0 && formatted.Syntax[0].Rule != RuleLaxSyntax {
			t.Fatalf("%q is formatted as %q: %s", text, got, formatted.Syntax[0].Message)
		}
		if a, b := sketch(&d.Root), sketch(&formatted.Root); a != b {
			t.Fatalf("%q is formatted as %q, which means %s", text, got, b)
		}
		count := func(d *Document) map[string]int {
			m := map[string]int{}
			for _, c := range d.Source.Comments {
				m[strings.TrimSpace(c.Text())]++
			}
			return m
		}
		if diff := cmp.Diff(count(d), count(formatted)); diff != "" {
			t.Fatalf("%q is formatted as %q: comments: %s", text, got, diff)
		}
		if twice, _ := Format(formatted); twice != got {
			t.Fatalf("%q is formatted as %q, and then as %q", text, got, twice)
		}
	})
}

// FuzzPack checks that a packed policy means the same, and packing it again changes
// nothing.
func FuzzPack(f *testing.F) {
	for _, s := range syntaxSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := Parse("f", []byte(text))
		got, err := Pack(d)
		if err != nil {
			return
		}
		packed := Parse("f", []byte(got))
		if len(packed.Syntax) > 0 && packed.Syntax[0].Rule != RuleLaxSyntax {
			t.Fatalf("%q is packed as %q: %s", text, got, packed.Syntax[0].Message)
		}
		if a, b := sketch(&d.Root), sketch(&packed.Root); a != b {
			t.Fatalf("%q is packed as %q, which means %s", text, got, b)
		}
		if twice, err := Pack(packed); err != nil || twice != got || len(got) > len(text) && len(d.Syntax) == 0 {
			t.Fatalf("%q is packed as %q, and then as %q, %v", text, got, twice, err)
		}
	})
}
