package runtime_test

import (
	"fmt"
	"log"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/smd"
)

// One part of a program tells the others that there is an address.
func ExampleSMD() {
	c, err := runtime.NewContext(&policy.Policy{}, runtime.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	heard := make(chan string)
	listener := c.SMD().Register(smd.ClassNetwork, func(m smd.Message) { heard <- string(m.Payload) })
	defer listener.Close()
	if err := c.SMD().Send(smd.ClassNetwork, []byte(`{"type":"ipacq"}`)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-heard)
	// Output: {"type":"ipacq"}
}
