package otel_test

import (
	"log"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/otel"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

func ExampleHooks() {
	hooks, err := otel.Hooks(otel.Options{}) // reports to the global providers
	if err != nil {
		log.Fatal(err)
	}
	policy := new(policy.Policy) // compiled, or loaded
	c, err := runtime.NewContext(policy, runtime.Options{Hooks: hooks})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
}
