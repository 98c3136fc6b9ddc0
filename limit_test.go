package sspolicy

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/schema"
)

// TestLoaderCost checks that the memory and time for a text from a network are proportional
// to its size. Each text has a million bytes, or as many tokens as Loader accepts.
func TestLoaderCost(t *testing.T) {
	const size = 1 << 20
	const st = `"s":[{"a":{"endpoint":"h.example.com","port":443,"protocol":"h1","http_method":"GET","http_url":"x"`
	load := Loader("fetched", Options{})
	for _, tt := range []struct{ name, head, unit, tail string }{ // %d in unit is a number
		{"brackets", "", `[`, ""},
		{"empty objects", `{"s":[`, `{},`, `{}]}`},
		{"streamtypes", `{"s":[`, `{"s%d":{"endpoint":"h","port":1,"protocol":"h1","http_method":"GET"}},`, `{}]}`},
		{"empty streamtypes", `{"s":[`, `{"s%d":{}},`, `{}]}`},
		{"one streamtype", `{"s":[`, `{"a":{}},`, `{}]}`},
		{"waits", `{"retry":[{"r":{"backoff":[`, `1,`, `1]}}],` + st + `}}]}`},
		{"metadata", `{` + st + `,"metadata":[`, `{"":""},`, `{}]}}]}`},
		{"names", `{` + st + `,"metadata":[`, `{"m%d":""},`, `{}]}}]}`},
		{"unknown keys", `{` + st, `,"k%d":1`, `}}]}`},
		{"one key", `{` + st, `,"port":1`, `}}]}`},
		{"wrong types", `{"s":[`, `{"s%d":{"port":"x"}},`, `{}]}`},
		{"certificates", `{"certs":[`, `{"c%d":"MIIB"},`, `{}]}`},
		{"references", `{"trust_stores":[{"name":"t","stack":[`, `"a",`, `"a"]}]}`},
		{"trust stores", `{"trust_stores":[`, `{"name":"t","stack":["a"]},`, `{}]}`},
		{"rideshares", `{"s":[`, `{"s%d":{"endpoint":"h","port":1,"protocol":"h1","http_method":"POST","rideshare":"x"}},`, `{}]}`},
		{"states", `{` + st + `,"http_resp_map":[`, `{"404":1404},`, `{}]}}]}`},
		{"commas", `{`, `,`, `}`},
		{"numbers", `{"s":[`, `1,`, `1]}`},
		{"strings", `{"s":[`, `"a",`, `""]}`},
		{"words", `{"s":[`, `x `, `]}`},
		{"comments", ``, "#\n", `{}`},
		{"sections", `{`, `"s":[],`, `"s":[]}`},
		{"placeholders", `{` + strings.TrimSuffix(st, `"`), `${a}`, `"}}]}`},
		{"escapes", `{` + strings.TrimSuffix(st, `"`), `\u0041`, `"}}]}`},
	} {
		var b strings.Builder
		b.WriteString(tt.head)
		each := max(1, tokens(tt.unit))
		for i := 0; b.Len() < size-200 && (each*(i+1) < DefaultMaxTokens-100 || tt.name == "placeholders" || tt.name == "escapes"); i++ {
			unit := tt.unit
			if strings.Contains(unit, "%d") {
				unit = fmt.Sprintf(unit, i)
			}
			b.WriteString(unit)
		}
		b.WriteString(tt.tail)
		text := []byte(b.String())
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		_, err := load(text)
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		t.Logf("%-17s %4d KB %4d ms, %3d MB allocated", tt.name, len(text)>>10, took.Milliseconds(), (after.TotalAlloc-before.TotalAlloc)>>20)
		if e, ok := errors.AsType[*Error](err); ok && strings.Contains(e.Error(), "tokens") {
			t.Errorf("%s: %v", tt.name, err)
		}
		if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 128 {
			t.Errorf("%s: %d MB were allocated", tt.name, mb)
		}
	}
	for n, want := range []bool{true, false} {
		_, err := Parse("p", []byte(`{"s":[]}`), Options{MaxTokens: 6 - n})
		if got := !strings.Contains(fmt.Sprint(err), "p:1:8: the policy has more than 5 tokens"); got != want {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// tokens returns the number of tokens of a text.
func tokens(text string) (n int) {
	for schema.TokenOffset(text, n) >= 0 {
		n++
	}
	return n
}
