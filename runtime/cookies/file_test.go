//go:build unix

package cookies_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/runtime/cookies"
)

// TestFile checks the interpretation of lines, and that invalid ones are ignored.
func TestFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cookies")
	text := strings.Join([]string{
		"# Netscape HTTP Cookie File", "",
		"h.test\tFALSE\t/\tFALSE\t0\ta\t1",
		".h.test\tTRUE\t/\tTRUE\t4102444800\tb\t2\r",
		"#HttpOnly_h.test\tFALSE\t/\tFALSE\t0\tc\t3",
		"# In files of lws TRUE means the host only.",
		"h.test\tTRUE\t/\tFALSE\t0\td\t4",
		"h.test\tFALSE\t/\tFALSE\t0\te\t",
		"h.test\tFALSE\t/\tFALSE\t1\texpired\t1", // not a bad line
		"x", "h.test\tFALSE\t/\tFALSE\t-1\tf\t1", "h.test\tFALSE\t/\tFALSE\tx\tf\t1", "h.test\tFALSE\tx\tFALSE\t0\tf\t1",
		"h.test\tFALSE\t/\tFALSE\t0\t\t1", "h.test\tFALSE\t/\tFALSE\t0\tf\t1; Secure", "h.test\tFALSE\t/\tFALSE\t0\tf=1\t1",
		".com\tTRUE\t/\tFALSE\t0\tf\t1", "h.test/x\tFALSE\t/\tFALSE\t0\tf\t1", "\tFALSE\t/\tFALSE\t0\tf\t1",
		"h.test\tFALSE\t/\tFALSE\t0\tf\t\x01", "h.test\tFALSE\t/\tFALSE\t0\tf\t1\t1", "h.test\tFALSE\t/\tFALSE\t0\tf\t" + strings.Repeat("x", 1e6),
		"# sspolicy scope: nonsense", "h.test\tFALSE\t/\tFALSE\t0\tf\t1",
		`# sspolicy scope: "" "trust=00"`, "h.test\tFALSE\t/\tFALSE\t0\tf\t1",
	}, "\n")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	j, err := cookies.Open(cookies.Options{File: file, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{"http://h.test/": "a=1; c=3; d=4; e=", "https://h.test/": "a=1; b=2; c=3; d=4; e=",
		"https://x.h.test/": "b=2", "http://x.com/": ""} {
		if got := j.Cookies(all, parse(t, to)); got != want {
			t.Errorf("%s gets %q, want %q", to, got, want)
		}
	}
	if !strings.Contains(log.String(), "lines=14") || strings.Contains(log.String(), "Domain") {
		t.Errorf("log: %s", &log)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{filepath.Dir(file), "/dev/zero", pipe} {
		if _, err := cookies.Open(cookies.Options{File: bad}); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

// TestWrite checks when and how the file is written.
func TestWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "cookies")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		j, err := cookies.Open(cookies.Options{File: file})
		if err != nil {
			t.Fatal(err)
		}
		u := parse(t, "https://h.test/")
		check := func(when, want string) {
			t.Helper()
			text, err := os.ReadFile(file)
			if _, got, _ := strings.Cut(string(text), "File\n"); err != nil || got != want {
				t.Errorf("%s the file has %q, want %q: %v", when, got, want, err)
			}
		}
		j.SetCookies(all, u, []string{"a=1; Secure; HttpOnly; Domain=h.test; Max-Age=100"})
		check("at once", "")
		time.Sleep(2 * time.Second)
		line := fmt.Sprintf("#HttpOnly_.h.test\tTRUE\t/\tTRUE\t%d\ta\t1\n", time.Now().Unix()+98)
		check("after a while", line)
		if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
			t.Errorf("%v %v", info.Mode(), err)
		}
		j.SetCookies(all, u, []string{"b=1"})
		if err := j.Close(); err != nil {
			t.Error(err)
		}
		check("after Close", line+"h.test\tFALSE\t/\tFALSE\t0\tb\t1\n")
		j.SetCookies(all, u, []string{"c=1"})
		time.Sleep(2 * time.Second)
		check("later", line+"h.test\tFALSE\t/\tFALSE\t0\tb\t1\n")
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("%v %v", entries, err)
		}
		// A failed write is reported.
		if j, err = cookies.Open(cookies.Options{File: filepath.Join(dir, "none", "cookies")}); err != nil {
			t.Fatal(err)
		}
		j.SetCookies(all, u, []string{"a=1"})
		if err := j.Close(); err == nil {
			t.Error("wrote to a missing folder")
		}
	})
}

// TestCurl checks that curl reads files of the jar, and the jar files of curl.
func TestCurl(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/set" {
			for _, c := range []string{"a=1", "b=2; Path=/; HttpOnly; Max-Age=1000", "c=3; Path=/; Domain=127.0.0.1", `d="4 5"; Path=/`, "e=; Path=/"} {
				w.Header().Add("Set-Cookie", c)
			}
			return
		}
		fmt.Fprint(w, r.Header.Get("Cookie"))
	}))
	defer srv.Close()
	curl := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("curl", append([]string{"-sS"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	const want = `a=1 b=2 c=3 d="4 5" e=`
	sorted := func(header string) string {
		var all []string
		for c := range strings.SplitSeq(header, "; ") {
			all = append(all, c)
		}
		return strings.Join(slices.Sorted(slices.Values(all)), " ")
	}
	theirs := filepath.Join(t.TempDir(), "theirs")
	curl("-c", theirs, srv.URL+"/set")
	j, err := cookies.Open(cookies.Options{File: theirs})
	if err != nil {
		t.Fatal(err)
	}
	if got := sorted(j.Cookies(all, parse(t, srv.URL))); got != want {
		text, _ := os.ReadFile(theirs)
		t.Errorf("read from curl: %q\n%s", got, text)
	}
	// Written by the jar.
	j.SetCookies(all, parse(t, srv.URL), []string{"f=6; Max-Age=1000"})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if got := sorted(curl("-b", theirs, srv.URL)); got != want+" f=6" {
		text, _ := os.ReadFile(theirs)
		t.Errorf("read by curl: %q\n%s", got, text)
	}
}

// TestValuesAsCurl checks that a server receives the name and value that it has set, as
// with curl, before and after the jar has written its file.
func TestValuesAsCurl(t *testing.T) {
	set := []string{
		`a=b c`, `b=b,c`, `c= lead`, `d={"x":1}`, `e=b"c`, `f="quoted"`, "g=\u00e4\xff", `h==`, `i=a=b=`, `j=b\c`, `k=%20+`, `l="b c`, `m=trail  `, `n =x`, ` o=x`,
		`p=`, `q="`, `r=a;Path=/`, `s='`, `t=(<@>)[?]/:`, "no cookie", "u=a\x01b", "v=a\x7fb", "=nameless", `w x=1`, `"y"=1`,
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/set" {
			w.Header()["Set-Cookie"] = set
			return
		}
		fmt.Fprint(w, r.Header.Get("Cookie"))
	}))
	defer srv.Close()
	pairs := func(header string) string {
		return strings.Join(slices.Sorted(strings.SplitSeq(header, "; ")), "; ")
	}
	theirs := filepath.Join(t.TempDir(), "theirs")
	out, err := exec.Command("curl", "-sS", "-c", theirs, "-b", theirs, srv.URL+"/set", srv.URL).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ours := filepath.Join(t.TempDir(), "ours")
	j, err := cookies.Open(cookies.Options{File: ours})
	if err != nil {
		t.Fatal(err)
	}
	j.SetCookies(all, parse(t, srv.URL+"/set"), set)
	for _, state := range []string{"in memory", "from the file"} {
		if got, want := pairs(j.Cookies(all, parse(t, srv.URL))), pairs(string(out)); got != want {
			t.Errorf("%s:\ngot  %q\ncurl %q", state, got, want)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if j, err = cookies.Open(cookies.Options{File: ours}); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzCookieFile checks that reading any file and writing it gives a file that reads
// and writes as itself.
func FuzzCookieFile(f *testing.F) {
	f.Add("# Netscape HTTP Cookie File\nh.test\tFALSE\t/\tFALSE\t0\ta\t1\n")
	f.Add("#HttpOnly_.h.test\tTRUE\t/x\tTRUE\t4102444800\tb\t\"2 3\"\r\n")
	f.Add("# sspolicy scope: \"s\" \"trust=00\"\n127.0.0.1\tFALSE\t/\tFALSE\t0\ta\t\n2001:db8::1\tFALSE\t/\tFALSE\t9\ta\t1")
	f.Add("h.test\tTRUE\t/\tFALSE\t99999999999999\ta\t1\n.com\tTRUE\t/\tFALSE\t0\ta\t1\nXN--\xff\tFALSE\t/%\tTRUE\t0\ta\t1")
	f.Fuzz(func(t *testing.T, text string) {
		j := cookies.New()
		cookies.Read(j, strings.NewReader(text))
		first := cookies.Text(j)
		again := cookies.New()
		if bad, err := cookies.Read(again, bytes.NewReader(first)); bad != 0 || err != nil {
			t.Fatalf("%d bad lines in a written file: %v\n%s", bad, err, first)
		}
		if second := cookies.Text(again); !bytes.Equal(first, second) {
			t.Errorf("written:\n%s\nread and written:\n%s", first, second)
		}
		if n := bytes.Count(first, []byte("\n")); n > 2*cookies.MaxJar {
			t.Errorf("%d lines", n)
		}
	})
}

// TestWriteAgain checks that Close retries a failed write.
func TestWriteAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	synctest.Test(t, func(t *testing.T) {
		j, err := cookies.Open(cookies.Options{File: filepath.Join(dir, "cookies")})
		if err != nil {
			t.Fatal(err)
		}
		j.SetCookies(all, parse(t, "http://h.test/"), []string{"a=1"})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if text, err := os.ReadFile(filepath.Join(dir, "cookies")); err != nil || !strings.Contains(string(text), "\ta\t1") {
		t.Errorf("%q, %v", text, err)
	}
}
