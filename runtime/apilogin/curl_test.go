package apilogin_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime/apilogin"
)

// serveProxy starts a gateway and a proxy before it.
func serveProxy(t *testing.T, o apilogin.Options) (g *gateway, address string) {
	t.Helper()
	g = &gateway{sessions: map[string]string{}}
	behind := httptest.NewServer(g)
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		behind.Close()
	})
	to, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	o.Logger = slog.New(slog.DiscardHandler)
	l, err := apilogin.New(o)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(l.Proxy(to))
	t.Cleanup(front.Close)
	return g, front.Listener.Addr().String()
}

// TestCurl calls the proxy with curl, which sends credentials with each call, and cookies
// with -b.
func TestCurl(t *testing.T) {
	g, addr := serveProxy(t, apilogin.Options{Key: apilogin.Address})
	jar := filepath.Join(t.TempDir(), "jar")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-u", "ann:right"}, "200 ann /page "},
		{[]string{"-u", "ann:right", "-d", "text"}, "200 ann /page text"},
		{[]string{"-u", "ann:right", "-b", "MRHSession=sid1", "-c", jar}, "200 ann /page "},
		{[]string{"-u", "ann:right", "-H", "Cookie: a=b; mrhsession=x; MRHSession=denied", "-b", jar, "-c", jar}, "200 ann /page "},
		{[]string{"--anyauth", "-u", "ann:right"}, "200 ann /page "},
		{[]string{"-u", "ann:wrong"}, "403 "},
		{[]string{"-b", "MRHSession=sid1"}, "401 "},
		{[]string{"-u", "bob:right", "-b", "MRHSession=sid1"}, "200 bob /page "},
	} {
		args := append([]string{"-sS", "-w", "%{stderr}%{http_code} ", "http://" + addr + "/page"}, tt.args...)
		cmd := exec.Command("curl", args...)
		var code strings.Builder
		cmd.Stderr = &code
		body, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v (make need installs curl) %s", err, code.String())
		}
		if got := code.String() + string(body); !strings.HasPrefix(got, tt.want) {
			t.Errorf("curl %q: %q, want %q", tt.args, got, tt.want)
		}
	}
	if n := g.count(); n != 2 {
		t.Errorf("%d sessions, want one for ann and one for bob", n)
	}
	if text, err := os.ReadFile(jar); err != nil || strings.Contains(string(text), "MRHSession") {
		t.Errorf("the jar of curl: %s, %v", text, err)
	}
}

// TestAttackManyKeysMemory checks that callers with ever different names do not increase
// memory. USERS is their number; make soak has a million.
func TestAttackManyKeysMemory(t *testing.T) {
	users, err := strconv.Atoi(os.Getenv("USERS"))
	if err != nil {
		users = 30_000
	}
	l, err := apilogin.New(apilogin.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	started := 0
	h := l.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started++
		w.Header().Set("Set-Cookie", fmt.Sprintf("MRHSession=%032d", started))
	}))
	open := func(from, to int) (heap uint64) {
		r := httptest.NewRequest("GET", "/", nil)
		for i := from; i < to; i++ {
			r.SetBasicAuth(fmt.Sprint("user", i), "right")
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	full := open(0, 12_000) // more than the table holds
	after := open(12_000, users)
	t.Logf("%d sessions started, %d kept; the heap: %d KB, then %d KB", started, l.Len(), full>>10, after>>10)
	if started != users || l.Len() != 10_000 || after > full+2<<20 {
		t.Errorf("%d sessions started, %d kept; the heap: %d, then %d bytes", started, l.Len(), full, after)
	}
}
