package system_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/system"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// The program fetches a new policy from a server.
func ExampleFetcher() {
	text := func(release, port string) string {
		return fmt.Sprintf(`{ "release": %q, "s": [ { "fetch_policy": { "endpoint": "127.0.0.1", "port": %s,
			"protocol": "h1", "http_method": "GET", "http_url": "policy.json" } } ] }`, release, port)
	}
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, text("2", portOf(server.URL)))
	}))
	defer server.Close()

	loaded, err := sspolicy.Parse("first.json", []byte(text("1", portOf(server.URL))), sspolicy.Options{})
	if err != nil {
		log.Fatal(err)
	}
	c, err := runtime.NewContext(loaded.Policy, runtime.Options{Transports: []transport.Transport{sshttp.New()}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	f, err := system.NewFetcher(c, system.FetcherOptions{Load: sspolicy.Loader("fetched", sspolicy.Options{})})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.Fetch(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("release", c.Policy().Release)
	// Output: release 2
}

// A captive portal redirects each request to its own page.
func ExampleDetector() {
	portal := httptest.NewServer(http.RedirectHandler("https://hotel.example/login", http.StatusFound))
	defer portal.Close()
	text := fmt.Sprintf(`{ "s": [ { "captive_portal_detect": { "endpoint": "127.0.0.1", "port": %s, "http_url": "generate_204",
		"protocol": "h1", "http_method": "GET", "http_expect": 204, "http_fail_redirect": true } } ] }`, portOf(portal.URL))
	loaded, err := sspolicy.Parse("policy.json", []byte(text), sspolicy.Options{})
	if err != nil {
		log.Fatal(err)
	}
	c, err := runtime.NewContext(loaded.Policy, runtime.Options{Transports: []transport.Transport{sshttp.New()}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	d := system.NewDetector(c, system.DetectorOptions{})
	defer d.Close()
	outcome, err := d.Check(context.Background())
	fmt.Println(outcome, err)
	// Output: Captive <nil>
}

// portOf returns the port of the URL of a test server.
func portOf(url string) string { return url[strings.LastIndexByte(url, ':')+1:] }
