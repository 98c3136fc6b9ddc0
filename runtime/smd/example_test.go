package smd_test

import (
	"fmt"
	"log"

	"github.com/secure-streams/sspolicy/runtime/smd"
)

// One part of a program notifies the others of a new address.
func Example() {
	d := smd.New(nil)
	defer d.Close()
	received := make(chan string)
	listener := d.Register(smd.ClassNetwork, func(m smd.Message) { received <- string(m.Payload) })
	defer listener.Close()
	if err := d.Send(smd.ClassNetwork, []byte(`{"type":"ipacq"}`)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-received)
	// Output: {"type":"ipacq"}
}
