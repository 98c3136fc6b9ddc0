package runtime_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestTransportOption checks the additions of a transport's option to a stream: data, an
// immediate attempt, callbacks, and a call at the end.
func TestTransportOption(t *testing.T) {
	gone := make(chan struct{})
	var events []string
	c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, func(_ context.Context, l transport.Link) error {
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
			t.Errorf("Delivered is %d, want 3", n)
		}
		return io.ErrUnexpectedEOF
	})
	s := newStream(t, c, runtime.Handlers{State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		events = append(events, state.String())
		if state == runtime.StateDisconnected {
			return runtime.DestroyMe
		}
		return runtime.OK
	}}, transport.Option{Protocol: policy.ProtocolRaw, Data: func() any { return "data" }, Connect: true, End: func() { close(gone) }})
	<-gone
	const want = "CREATING CONNECTING call CONNECTED DISCONNECTED DESTROYING"
	if got := strings.Join(events, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !errors.Is(s.Err(), io.ErrUnexpectedEOF) {
		t.Error(s.Err())
	}
	if _, err := c.NewStream("s", runtime.Handlers{}, transport.Option{Protocol: policy.ProtocolMQTT}); !errors.Is(err, runtime.ErrUnsupported) {
		t.Errorf("an option of another protocol: %v", err)
	}
}

// TestPauseRx checks that PauseRx holds back only payload.
func TestPauseRx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrace(on{"CRE": connect, "CON": func(s *runtime.Stream) runtime.Result { s.PauseRx(); return runtime.OK }})
		s := newStream(t, newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, func(ctx context.Context, l transport.Link) error {
			if err := l.Connected(); err != nil {
				return err
			}
			if err := l.Rx([]byte("abc"), 0); err != nil {
				return err
			}
			return hang(ctx, l)
		}), tr.handlers())
		s.StartTimeout(time.Second)
		time.Sleep(time.Minute)
		tr.Want(t, "CRE CNG CON TMO")
		if n := s.PendingRx(); n != 3 {
			t.Errorf("PendingRx is %d, want 3", n)
		}
		s.ResumeRx()
		synctest.Wait()
		tr.Want(t, "CRE CNG CON TMO rx")
		if n := s.PendingRx(); n != 0 {
			t.Errorf("PendingRx is %d, want 0", n)
		}
	})
}

func TestBuffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, func(ctx context.Context, l transport.Link) error {
			if err := l.Connected(); err != nil {
				return err
			}
			for _, piece := range []string{"abc", "de"} {
				if err := l.Rx([]byte(piece), 0); err != nil {
					return err
				}
			}
			return hang(ctx, l)
		})
		conn, err := c.Open(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		buf := make([]byte, 2)
		for _, step := range []struct {
			read     string
			buffered int
		}{{"ab", 3}, {"c", 2}, {"de", 0}} {
			if n, err := conn.Read(buf); err != nil || string(buf[:n]) != step.read {
				t.Errorf("read %q, %v, want %q", buf[:n], err, step.read)
			}
			synctest.Wait()
			if n := conn.Buffered(); n != step.buffered {
				t.Errorf("Buffered is %d after %q, want %d", n, step.read, step.buffered)
			}
		}
	})
}
