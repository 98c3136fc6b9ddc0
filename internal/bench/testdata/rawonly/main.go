// Command rawonly runs a policy without the HTTP transport.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/secure-streams/sspolicy/runtime"
)

// raw is a transport for raw sockets, at its smallest.
type raw struct{}

func (raw) Protocols() []runtime.Protocol { return []runtime.Protocol{runtime.ProtocolRaw} }

func (raw) Prepare(*runtime.Context, *runtime.StreamType) (runtime.Connector, error) {
	return raw{}, nil
}

func (raw) Close() error { return nil }

func (raw) Run(ctx context.Context, l *runtime.Link) error {
	c, err := l.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := l.Connected(); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if err := l.Rx(buf[:n], 0); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

var policy = runtime.Policy{StreamTypes: []*runtime.StreamType{{Name: "s", Protocol: runtime.ProtocolRaw, Endpoint: "www.example.com", Port: 13, Opportunistic: true}}}

func main() {
	c, err := runtime.NewContext(&policy, runtime.Options{Transports: []runtime.Transport{raw{}}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	done := make(chan bool)
	if s, err := c.NewStream("s", runtime.Handlers{
		State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateDisconnected || state == runtime.StateAllRetriesFailed {
				close(done)
			}
			return runtime.OK
		},
		Rx: func(_ *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
			os.Stdout.Write(buf)
			return runtime.OK
		},
	}); err == nil {
		s.RequestTx()
		<-done
	}
}
