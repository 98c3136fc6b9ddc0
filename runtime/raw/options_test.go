package raw_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestOptions checks that a policy which needs an Option is refused without it, and that
// TLS of the program's own needs none.
func TestOptions(t *testing.T) {
	addr := serveTLS(t, own.Server(nil, "127.0.0.1"), func(c net.Conn) { io.WriteString(c, "hello") })
	bare := runtime.Options{Transports: []transport.Transport{raw.New()}}
	for name, st := range map[string]*policy.StreamType{
		"New(TLS)":    streamType(addr, secure),
		"New(Server)": {Name: "s", Protocol: policy.ProtocolRaw, Server: true},
	} {
		c := teststream.NewContext(t, bare, st)
		if _, err := c.NewStream("s", runtime.Handlers{}); !errors.Is(err, runtime.ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	dialed, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := teststream.NewContext(t, bare, streamType(addr)).Open(context.Background(), "s", raw.Adopt(dialed, raw.TLSClient, raw.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if text, err := io.ReadAll(conn); string(text) != "hello" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}
