package faulttest_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/faulttest"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// weather stands for the package that sspolicy compile makes of fixtures/weather.json.
var weather, errWeather = sspolicy.Load("../fixtures/weather.json", sspolicy.Options{})

var transports = []transport.Transport{http.New()}

func TestExpiredCertificate(t *testing.T) {
	f := faulttest.StartWith(t, weather.Policy, "get_weather", faulttest.TLSExpired, faulttest.Options{Hurry: 20})
	c, err := runtime.NewContext(f.Policy, f.Options(runtime.Options{Transports: transports}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Shutdown(context.Background())
	if _, err := c.Fetch(t.Context(), "get_weather"); err == nil {
		t.Error("the program accepts a certificate that has expired")
	}
}

// TestTutorial checks that the test of the tutorial is the one above.
func TestTutorial(t *testing.T) {
	if errWeather != nil {
		t.Fatal(errWeather)
	}
	page, err := os.ReadFile("../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("tutorial_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```go\n")
	code, _, _ := strings.Cut(rest, "```")
	if code == "" || !strings.Contains(string(source), code) {
		t.Errorf("the code of docs/faults.md is not in this file:\n%s", code)
	}
}
