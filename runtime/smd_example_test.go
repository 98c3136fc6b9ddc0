package runtime_test

import (
	"fmt"
	"log"

	"github.com/secure-streams/sspolicy/runtime"
)

// One part of a program tells the others that there is an address.
func ExampleSMD() {
	c, err := runtime.NewContext(&runtime.Policy{}, runtime.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	heard := make(chan string)
	listener := c.SMD().Register(runtime.ClassNetwork, func(m runtime.Message) { heard <- string(m.Payload) })
	defer listener.Close()
	if err := c.SMD().Send(runtime.ClassNetwork, []byte(`{"type":"ipacq"}`)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-heard)
	// Output: {"type":"ipacq"}
}
