// Command policy fetches a page by a policy, as nethttp does by hand.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// root stands in for a certificate.
const root = "0"

var (
	retry = policy.Retry{Name: "r", Backoff: []time.Duration{time.Second}, Conceal: 3}
	own   = policy.Cert{Name: "own", DER: root}
	trust = policy.TrustStore{Name: "t", Stack: []*policy.Cert{&own}}
	page  = policy.StreamType{Name: "page", Endpoint: "www.example.com", Port: 443, TLS: true, TrustStore: &trust, Retry: &retry, Opportunistic: true, Metadata: []policy.Metadata{{Name: "name"}}, HTTP: &policy.HTTP{Method: "GET", URL: "page?name=${name}"}}
	table = policy.Policy{StreamTypes: []*policy.StreamType{&page}}
)

func main() {
	c, err := runtime.NewContext(&table, runtime.Options{Transports: []transport.Transport{http.New()}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	done := make(chan error)
	s, err := c.NewStream("page", runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			switch state {
			case runtime.StateQoSAckRemote:
				done <- nil
			case runtime.StateAllRetriesFailed:
				done <- s.Err()
			}
			return runtime.OK
		},
		Rx: func(_ *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
			os.Stdout.Write(buf)
			return runtime.OK
		},
	})
	if err == nil {
		s.SetMetadata("name", os.Args[1])
		s.RequestTx()
		err = <-done
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
