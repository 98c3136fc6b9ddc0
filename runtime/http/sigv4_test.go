package http

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
)

const exampleID, exampleSecret = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

// TestSigV4Vectors runs the test suite of AWS.
func TestSigV4Vectors(t *testing.T) {
	text, err := os.ReadFile("testdata/sigv4.json")
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		Vectors []struct {
			Name, Method, Target, Canonical, Signature, Token string
			Headers                                           [][2]string
			Normalize                                         bool
			Body                                              *string
		}
	}
	if err := json.Unmarshal(text, &suite); err != nil {
		t.Fatal(err)
	}
	for _, v := range suite.Vectors {
		h := http.Header{amzDate: {"20150830T123600Z"}, amzHash: {emptyHash}}
		host := ""
		for _, kv := range v.Headers {
			if kv[0] == "Host" {
				host = kv[1]
			} else {
				h.Add(kv[0], kv[1])
			}
		}
		if v.Body != nil {
			h.Set(amzHash, hashOf([]byte(*v.Body)))
		}
		if v.Token != "" {
			h.Set(amzToken, v.Token)
		}
		k := &signingKey{id: exampleID, secret: exampleSecret, region: "us-east-1", service: "service", raw: !v.Normalize}
		got := k.authorization(v.Method, v.Target, host, h, func(name string) bool { return name != amzHash || v.Body != nil })
		if !strings.HasSuffix(got, "Signature="+v.Signature) {
			path, query, _ := strings.Cut(v.Target, "?")
			t.Errorf("%s: %s, want %s of\n%s\nthe path is %q, the query %q", v.Name, got, v.Signature, v.Canonical,
				canonicalPath(path, k.raw), canonicalQuery(query))
		}
	}
	if len(suite.Vectors) < 30 {
		t.Errorf("only %d vectors", len(suite.Vectors))
	}
}

// TestUnambiguousQuery checks that a query is sent in the form that is signed.
func TestUnambiguousQuery(t *testing.T) {
	for query, want := range map[string]string{
		"a=x+y&b=%2B": "a=x%20y&b=%2B",
		"a=100%":      "a=100%25",
		"a=%zz%20%4":  "a=%25zz%20%254",
		"":            "",
	} {
		got := unambiguousQuery(query)
		if got != want {
			t.Errorf("%q is sent as %q, want %q", query, got, want)
		}
		if again := canonicalQuery(got); strings.Contains(again, "%25"+"25") || again != canonicalQuery(unambiguousQuery(got)) {
			t.Errorf("%q is signed as %q", got, again)
		}
	}
}
