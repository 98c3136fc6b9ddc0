// Command rawonly executes a policy that has only raw streams.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

var table = policy.Policy{StreamTypes: []*policy.StreamType{{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "www.example.com", Port: 13, Opportunistic: true}}}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	c, err := runtime.NewContext(&table, runtime.Options{Transports: []transport.Transport{raw.New()}})
	if err != nil {
		return err
	}
	defer c.Shutdown(context.Background())
	conn, err := c.Open(context.Background(), "s")
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.Copy(os.Stdout, conn)
	return err
}
