package runtime

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A doubleConnector is a transport that reports CONNECTED twice.
type doubleConnector struct{}

func (doubleConnector) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolRaw} }
func (doubleConnector) Prepare(*transport.Setup) (transport.Connector, error) {
	return doubleConnector{}, nil
}
func (doubleConnector) Close() error { return nil }
func (doubleConnector) Run(_ context.Context, l transport.Link) error {
	return errors.Join(l.Connected(), l.Connected())
}

// TestIllegalState checks that a state which must not follow is logged and destroys the
// stream.
func TestIllegalState(t *testing.T) {
	var log bytes.Buffer
	c, err := NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1}}},
		Options{Transports: []transport.Transport{doubleConnector{}}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	gone := make(chan struct{})
	s, err := c.NewStream("s", Handlers{State: func(_ *Stream, state State, _ uint32) Result {
		got = append(got, state.String())
		if state == StateDestroying {
			close(gone)
		}
		return OK
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Connect(); err != nil {
		t.Fatal(err)
	}
	<-gone
	c.Shutdown(context.Background())
	if got, want := strings.Join(got, " "), "CREATING CONNECTING CONNECTED DISCONNECTED DESTROYING"; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if !strings.Contains(log.String(), "illegal state") || !strings.Contains(log.String(), "from=CONNECTED to=CONNECTED") {
		t.Errorf("logged %s", log.String())
	}
}
