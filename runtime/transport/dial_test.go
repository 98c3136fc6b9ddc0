package transport_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestDial checks that connections and dials end with the context, whatever the
// transport does.
func TestDial(t *testing.T) {
	here, there := net.Pipe()
	e := transport.NewEnv(transport.Config{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if network == "tcp" {
			return there, nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	d, err := e.Dialer(&policy.StreamType{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Dial(t.Context(), "tcp", "h:1"); err != nil {
		t.Fatal(err)
	}
	hung := make(chan error)
	go func() {
		_, err := d.Dial(context.Background(), "unix", "x")
		hung <- err
	}()
	e.Close()
	e.Release()
	if err := <-hung; !errors.Is(err, context.Canceled) {
		t.Errorf("a dial that hung says %v", err)
	}
	if _, err := here.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection outlived the context: %v", err)
	}
	if _, err := d.Dial(t.Context(), "tcp", "h:1"); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("a closed context dials: %v", err)
	}
}
