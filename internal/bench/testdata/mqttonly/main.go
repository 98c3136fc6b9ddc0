// Command mqttonly executes a policy that has only mqtt streams, over TLS.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// root stands in for a certificate.
const root = "0"

var (
	own   = policy.Cert{Name: "own", DER: root}
	trust = policy.TrustStore{Name: "t", Stack: []*policy.Cert{&own}}
	table = policy.Policy{StreamTypes: []*policy.StreamType{{Name: "s", Protocol: policy.ProtocolMQTT, Endpoint: "www.example.com", Port: 8883, TLS: true, TrustStore: &trust, Opportunistic: true,
		MQTT: &policy.MQTT{Subscribe: "t", KeepAlive: time.Minute, CleanStart: true}}}}
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	c, err := runtime.NewContext(&table, runtime.Options{Transports: []transport.Transport{mqtt.New()}})
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
