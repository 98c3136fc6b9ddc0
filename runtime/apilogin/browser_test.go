//go:build browser

package apilogin_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime/apilogin"
)

// TestBrowser loads a page with its resources in chromium: they share one session, which
// the page cannot see.
func TestBrowser(t *testing.T) {
	g, addr := serveProxy(t, apilogin.Options{Key: apilogin.Address})
	g.respond = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/page" {
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<output></output><script src="/a.js"></script><img src="/b.png"><script>
document.querySelector("output").textContent = "cookies: [" + document.cookie + "]"</script>`)
	}
	load := func(path string) string {
		out, err := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(),
			"--virtual-time-budget=10000", "--dump-dom", "http://ann:right@"+addr+path).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	load("/first") // starts the session
	page := load("/page")
	if !strings.Contains(page, "cookies: []") {
		t.Error(page)
	}
	requests := g.take()
	paths := map[string]bool{}
	for _, r := range requests {
		paths[r.URL.Path] = true
	}
	if n := g.count(); n != 1 || !paths["/a.js"] || !paths["/b.png"] {
		t.Errorf("%d sessions, %v", n, paths)
	}
}
