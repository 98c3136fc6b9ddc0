package runtime_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// What a transport adds to a stream: data that stays with it, an attempt at once,
// callbacks of its own, no retry, and a word when it is gone.
func TestTransportOption(t *testing.T) {
	f := &fake{}
	st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1}
	c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{st}}, runtime.Options{Transports: []transport.Transport{f}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Shutdown(context.Background())
	gone := make(chan struct{})
	var events []string
	f.run = func(_ context.Context, l transport.Link) error {
		l.Answer(transport.Answer{Final: true})
		if data := l.Data(nil); data != "data" {
			t.Errorf("data is %v", data)
		}
		if err := l.Call(func() runtime.Result { events = append(events, "call"); return runtime.OK }); err != nil {
			return err
		}
		if err := l.Connected(); err != nil {
			return err
		}
		if err := l.Rx([]byte("abc"), 0); err != nil {
			return err
		}
		if n := l.Delivered(); n != 3 {
			t.Errorf("%d bytes have been delivered", n)
		}
		return io.ErrUnexpectedEOF
	}
	s, err := c.NewStream("s", runtime.Handlers{State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		events = append(events, state.String())
		if state == runtime.StateDisconnected {
			return runtime.DestroyMe
		}
		return runtime.OK
	}}, transport.Option{Protocol: policy.ProtocolRaw, Data: func() any { return "data" }, Connect: true, End: func() { close(gone) }})
	if err != nil {
		t.Fatal(err)
	}
	<-gone
	const want = "CREATING CONNECTING call CONNECTED DISCONNECTED DESTROYING"
	if got := strings.Join(events, " "); got != want {
		t.Errorf("saw %s\nwant %s", got, want)
	}
	if !errors.Is(s.Err(), io.ErrUnexpectedEOF) {
		t.Error(s.Err())
	}
	if _, err := c.NewStream("s", runtime.Handlers{}, transport.Option{Protocol: policy.ProtocolMQTT}); !errors.Is(err, runtime.ErrUnsupported) {
		t.Errorf("an option of another protocol: %v", err)
	}
}

func TestBuffered(t *testing.T) {
	f := &fake{run: func(ctx context.Context, l transport.Link) error {
		if err := l.Connected(); err != nil {
			return err
		}
		for _, piece := range []string{"abc", "de"} {
			if err := l.Rx([]byte(piece), 0); err != nil {
				return err
			}
		}
		return hang(ctx, l)
	}}
	st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1}
	c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{st}}, runtime.Options{Transports: []transport.Transport{f}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Shutdown(context.Background())
	conn, err := c.Open(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 2)
	for _, want := range []string{"ab", "c", "de"} {
		if n, err := conn.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("%q %v, want %q", buf[:n], err, want)
		}
		if want == "ab" {
			if n := conn.Buffered(); n < 1 || n == 2 || n > 3 { // "c", and "de" once it has come
				t.Errorf("%d bytes are waiting", n)
			}
		}
	}
	if n := conn.Buffered(); n != 0 {
		t.Errorf("%d bytes are waiting", n)
	}
}
