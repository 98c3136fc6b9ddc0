package cookies_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/cookies"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func parse(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

var all transport.CookieScope

// TestJar checks which URLs get a cookie.
func TestJar(t *testing.T) {
	future := time.Now().Add(time.Hour).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	for _, tt := range []struct {
		name  string
		set   string // a URL, a blank, and Set-Cookie headers separated by " | "
		get   string
		value string
	}{
		{"the same host", "http://h.test/ a=1", "http://h.test/x", "a=1"},
		{"the port does not matter", "http://h.test:81/ a=1", "http://h.test:82/", "a=1"},
		{"case and the last dot", "http://H.Test/ a=1", "http://h.test./", "a=1"},
		{"host only", "http://h.test/ a=1", "http://x.h.test/", ""},
		{"domain", "http://x.h.test/ a=1; Domain=h.test", "http://y.h.test/", "a=1"},
		{"domain with a dot", "http://x.h.test/ a=1; Domain=.h.test", "http://h.test/", "a=1"},
		{"another domain", "http://x.h.test/ a=1; Domain=y.h.test", "http://y.h.test/", ""},
		{"a domain with the same end", "http://evilh.test/ a=1; Domain=h.test", "http://h.test/", ""},
		{"a top-level domain", "http://h.com/ a=1; Domain=com", "http://x.com/", ""},
		{"a public suffix", "http://h.co.uk/ a=1; Domain=co.uk", "http://x.co.uk/", ""},
		{"a private suffix", "http://h.github.io/ a=1; Domain=github.io", "http://x.github.io/", ""},
		{"an address", "http://192.0.2.1/ a=1; Domain=192.0.2.1", "http://192.0.2.1/", "a=1"},
		{"part of an address", "http://192.0.2.1/ a=1; Domain=0.2.1", "http://10.0.2.1/", ""},
		{"IPv6", "http://[2001:db8::1]/ a=1", "http://[2001:db8::1]:81/", "a=1"},
		{"default path", "http://h.test/a/b a=1", "http://h.test/a/c", "a=1"},
		{"default path, elsewhere", "http://h.test/a/b a=1", "http://h.test/ab", ""},
		{"path", "http://h.test/ a=1; Path=/x", "http://h.test/x/y", "a=1"},
		{"the longest path first", "http://h.test/ a=1; Path=/ | a=2; Path=/x", "http://h.test/x", "a=2; a=1"},
		{"replaced", "http://h.test/ a=1 | a=2", "http://h.test/", "a=2"},
		{"removed by age", "http://h.test/ a=1 | a=; Max-Age=0", "http://h.test/", ""},
		{"removed by date", "http://h.test/ a=1 | a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "http://h.test/", ""},
		{"not yet expired", "http://h.test/ a=1; Expires=" + future, "http://h.test/", "a=1"},
		{"for a very long time", "http://h.test/ a=1; Max-Age=9999999999999", "http://h.test/", "a=1"},
		{"secure", "https://h.test/ a=1; Secure", "https://h.test/", "a=1"},
		{"secure, without TLS", "https://h.test/ a=1; Secure", "http://h.test/", ""},
		{"secure, set without TLS", "http://h.test/ a=1; Secure", "https://h.test/", ""},
		{"prefix", "https://h.test/ __Host-a=1; Secure; Path=/", "https://h.test/", "__Host-a=1"},
		{"prefix and a domain", "https://h.test/ __Host-a=1; Secure; Path=/; Domain=h.test", "https://h.test/", ""},
		{"prefix and a path", "https://h.test/ __Host-a=1; Secure; Path=/x", "https://h.test/x", ""},
		{"prefix, not secure", "https://h.test/ __secure-a=1", "https://h.test/", ""},
		{"quoted", `http://h.test/ a="1 2"`, "http://h.test/", `a="1 2"`},
		{"no name", "http://h.test/ =1 | x", "http://h.test/", ""},
		{"too long", "http://h.test/ a=" + strings.Repeat("x", cookies.MaxSize), "http://h.test/", ""},
		{"a long path", "http://h.test/ a=1; Path=/" + strings.Repeat("x", 1024), "http://h.test/" + strings.Repeat("x", 1024), ""},
	} {
		// In memory, and read from a file.
		file := filepath.Join(t.TempDir(), "cookies")
		j, err := cookies.Open(cookies.Options{File: file})
		if err != nil {
			t.Fatal(err)
		}
		from, lines, _ := strings.Cut(tt.set, " ")
		j.SetCookies(all, parse(t, from), strings.Split(lines, " | "))
		if got := j.Cookies(all, parse(t, tt.get)); got != tt.value {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.value)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if j, err = cookies.Open(cookies.Options{File: file}); err != nil {
			t.Fatal(err)
		}
		if got := j.Cookies(all, parse(t, tt.get)); got != tt.value {
			text, _ := os.ReadFile(file)
			t.Errorf("%s: got %q from the file, want %q\n%s", tt.name, got, tt.value, text)
		}
	}
}

// TestSecureStays checks that a connection without TLS cannot replace a Secure cookie.
func TestSecureStays(t *testing.T) {
	j := cookies.New()
	j.SetCookies(all, parse(t, "https://h.test/"), []string{"a=1; Secure; Domain=h.test"})
	for _, from := range []string{"http://h.test/", "http://x.h.test/"} {
		for _, line := range []string{"a=2", "a=2; Domain=h.test", "a=2; Path=/x", "a=; Max-Age=0"} {
			j.SetCookies(all, parse(t, from), []string{line})
		}
	}
	for _, to := range []string{"https://h.test/x", "https://x.h.test/x"} {
		if got := j.Cookies(all, parse(t, to)); got != "a=1" {
			t.Errorf("%s gets %q", to, got)
		}
	}
}

// TestScopes checks that scopes do not share cookies.
func TestScopes(t *testing.T) {
	u := parse(t, "https://h.test/")
	for _, per := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "cookies")
		j, err := cookies.Open(cookies.Options{File: file, PerStreamType: per})
		if err != nil {
			t.Fatal(err)
		}
		for i, peer := range []string{"", "trust=00", `unix="/x y"`} {
			j.SetCookies(transport.CookieScope{StreamType: "a b", Peer: peer}, u, []string{fmt.Sprint("a=", i)})
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := cookies.Open(cookies.Options{File: file, PerStreamType: per})
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range []*cookies.Jar{j, again} {
			for i, peer := range []string{"", "trust=00", `unix="/x y"`} {
				want := fmt.Sprint("a=", i)
				if got := j.Cookies(transport.CookieScope{StreamType: "a b", Peer: peer}, u); got != want {
					t.Errorf("per streamtype %v, peer %s: got %q, want %q", per, peer, got, want)
				}
				if per {
					want = ""
				}
				if got := j.Cookies(transport.CookieScope{StreamType: "b", Peer: peer}, u); got != want {
					t.Errorf("per streamtype %v, peer %s, another streamtype: got %q, want %q", per, peer, got, want)
				}
			}
		}
	}
}

// TestLimits checks that a site with too many cookies keeps the latest ones and does
// not evict those of other sites.
func TestLimits(t *testing.T) {
	j := cookies.New()
	j.SetCookies(all, parse(t, "http://other.test/"), []string{"a=1"})
	u := parse(t, "http://x.h.test/")
	for i := range 2000 {
		j.SetCookies(all, u, []string{fmt.Sprintf("a%d=1; Domain=h.test", i)})
	}
	j.SetCookies(all, u, make([]string, 1e6))
	got := strings.Split(j.Cookies(all, u), "; ")
	if len(got) != cookies.MaxSite || got[0] != "a1950=1" || got[cookies.MaxSite-1] != "a1999=1" {
		t.Errorf("%d cookies: %q", len(got), got)
	}
	if got := j.Cookies(all, parse(t, "http://other.test/")); got != "a=1" {
		t.Errorf("the other site has %q", got)
	}
	for i := range 2 * cookies.MaxJar {
		j.SetCookies(all, parse(t, fmt.Sprintf("http://h%d.test/", i)), []string{"a=1"})
	}
	n := 0
	for i := range 2 * cookies.MaxJar {
		if j.Cookies(all, parse(t, fmt.Sprintf("http://h%d.test/", i))) != "" {
			n++
		}
	}
	if n > cookies.MaxJar || n < cookies.MaxJar*8/10 {
		t.Errorf("%d sites have cookies", n)
	}
	for i := range 5 {
		j.SetCookies(all, u, []string{fmt.Sprintf("b%d=%s", i, strings.Repeat("x", 4000))})
	}
	if got := j.Cookies(all, u); len(got) > cookies.MaxHeader || len(got) < cookies.MaxHeader-4100 {
		t.Errorf("a header of %d bytes", len(got))
	}
}
