package runtime_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
)

// A stream is told of each step of a request, and of what it brings.
func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello from "+r.URL.Path)
	}))
	defer server.Close()

	// Mostly compiled from JSON by codegen.Compile, or generated as Go source.
	policy := &runtime.Policy{StreamTypes: []*runtime.StreamType{{
		Name:          "greeting",
		Protocol:      runtime.ProtocolH1,
		Endpoint:      "${server}",
		Opportunistic: true,
		Metadata:      []runtime.Metadata{{Name: "server"}},
		HTTP:          &runtime.HTTP{Method: "GET"},
	}}}
	c, err := runtime.NewContext(policy, runtime.Options{
		Transports: []runtime.Transport{sshttp.New()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	done := make(chan struct{})
	s, err := c.NewStream("greeting", runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			fmt.Println(state)
			switch state {
			case runtime.StateUnreachable:
				fmt.Println(s.Err())
			case runtime.StateDisconnected, runtime.StateAllRetriesFailed:
				close(done)
			}
			return runtime.OK
		},
		Rx: func(_ *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
			os.Stdout.Write(append(buf, '\n'))
			return runtime.OK
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := s.SetMetadata("server", server.URL+"/world"); err != nil {
		log.Fatal(err)
	}
	s.RequestTx()
	<-done
	// Output:
	// CREATING
	// POLL
	// CONNECTING
	// CONNECTED
	// hello from /world
	//
	// QOS_ACK_REMOTE
	// DISCONNECTED
	// DESTROYING
}
