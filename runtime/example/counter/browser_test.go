//go:build browser

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testcert"
)

// TestBrowser loads the page in chromium, over h1 and h2. SCREENSHOTS names a folder
// for pictures of it.
func TestBrowser(t *testing.T) {
	ca := testcert.New("CA")
	for protocol, alpn := range map[string]string{"h1": "http/1.1", "h2": "h2"} {
		t.Run(protocol, func(t *testing.T) {
			url := "https://" + start(t, ca, protocol) + "/"
			chromium := func(args ...string) string {
				args = append([]string{
					"--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=" + t.TempDir(),
					"--ignore-certificate-errors", "--virtual-time-budget=10000",
				}, append(args, url)...)
				out, err := exec.Command("chromium", args...).Output()
				if err != nil {
					t.Fatal(err)
				}
				return string(out)
			}
			page := chromium("--dump-dom")
			if !regexp.MustCompile(`<output id="count">\d+</output>`).MatchString(page) ||
				!regexp.MustCompile(`<output id="protocol">`+alpn+`</output>`).MatchString(page) {
				t.Error(page)
			}
			if dir := os.Getenv("SCREENSHOTS"); dir != "" {
				chromium("--screenshot=" + filepath.Join(dir, protocol+".png"))
			}
		})
	}
}
