package sspolicy_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func Example() {
	p, err := sspolicy.Load("fixtures/weather.json", sspolicy.Options{})
	if err != nil {
		log.Fatal(err)
	}
	c, err := runtime.NewContext(p.Policy, runtime.Options{Transports: []transport.Transport{http.New()}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for _, st := range c.Policy().StreamTypes {
		fmt.Println(st.Name, st.Endpoint, st.Port)
	}
	// Output: get_weather weather.example.com 443
}

func ExampleOptions_overlays() {
	p, err := sspolicy.Load("fixtures/weather.json", sspolicy.Options{Overlays: []string{"fixtures/weather-staging.json"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(p.Policy.StreamType("get_weather").Endpoint)
	// Output: staging.weather.example.com
}

// Diagnostics are values, so a program can format them itself.
func ExampleError() {
	_, err := sspolicy.Load("fixtures/weather-mistakes.json", sspolicy.Options{})
	if e, ok := errors.AsType[*sspolicy.Error](err); ok {
		for _, d := range e.Diagnostics {
			fmt.Println(d.Span, d.Severity, d.Rule)
		}
	}
	// Output:
	// fixtures/weather-mistakes.json:12:17 error out-of-range
	// fixtures/weather-mistakes.json:18:9 error unknown-key
	// fixtures/weather-mistakes.json:19:18 error forward-reference
}
