package transport_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A pingTransport speaks a protocol of its own, in place of raw: the stream sends one
// piece, and receives what the peer sends until it closes the connection.
type pingTransport struct{}

func (pingTransport) Protocols() []policy.Protocol {
	return []policy.Protocol{policy.ProtocolRaw}
}

func (pingTransport) Prepare(s *transport.Setup) (transport.Connector, error) {
	return pingConnector{s}, nil
}

type pingConnector struct{ setup *transport.Setup }

func (c pingConnector) Run(ctx context.Context, l transport.Link) error {
	conn, err := c.setup.Dial(ctx, l.Target())
	if err != nil {
		return err // the peer is unreachable
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := l.Connected(); err != nil {
		return err
	}
	select {
	case <-l.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	buf := make([]byte, 1024)
	piece, err := l.Tx(buf)
	if err != nil {
		return err
	}
	if _, err := conn.Write(buf[:piece.N]); err != nil {
		return err
	}
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err // io.EOF: the peer has finished
		}
		if err := l.Rx(buf[:n], 0); err != nil {
			return err
		}
	}
}

func (pingConnector) Close() error { return nil }

// A complete transport, and a stream that uses it.
func Example() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go func() { // a server that echoes one piece
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.CopyN(conn, conn, int64(len("ping")))
	}()

	c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{{
		Name: "ping", Protocol: policy.ProtocolRaw, Endpoint: ln.Addr().String(), Opportunistic: true,
	}}}, runtime.Options{Transports: []transport.Transport{pingTransport{}}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Shutdown(context.Background())
	done := make(chan struct{})
	s, err := c.NewStream("ping", runtime.Handlers{
		Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			return copy(buf, "ping"), 0, runtime.OK
		},
		Rx: func(_ *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
			fmt.Printf("received %s\n", buf)
			return runtime.OK
		},
		State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			fmt.Println(state)
			if state == runtime.StateDisconnected {
				close(done)
			}
			return runtime.OK
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	s.RequestTx()
	<-done
	s.Destroy()
	// Output:
	// CREATING
	// POLL
	// CONNECTING
	// CONNECTED
	// received ping
	// DISCONNECTED
	// DESTROYING
}
