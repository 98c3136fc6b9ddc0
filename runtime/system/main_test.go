package system_test

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/load"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/system"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
	"github.com/secure-streams/sspolicy/schema"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// compile loads a policy.
func compile(t testing.TB, text string) *load.Loaded {
	t.Helper()
	l, found := load.Text("test.json", []byte(text), lint.Options{})
	if l == nil {
		t.Fatal(load.Err(found))
	}
	return l
}

// A bench is a context with an SMD.
type bench struct {
	*runtime.Context
	smd *smd.SMD
}

// newBench returns a context for HTTP, WebSocket and SMD, which are shut down at
// the end of the test.
func newBench(t testing.TB, p *policy.Policy) bench {
	t.Helper()
	o := runtime.Options{Logger: slog.New(slog.DiscardHandler)}
	d := smd.New(o.Logger)
	t.Cleanup(func() { d.Close() })
	o.Transports = []transport.Transport{http.New(), ws.New(), d}
	return bench{teststream.NewPolicyContext(t, o, p), d}
}

// newDetector returns a detector that uses the SMD and is closed at the end of
// the test.
func (b bench) newDetector(t testing.TB, o system.DetectorOptions) *system.Detector {
	t.Helper()
	o.SMD = b.smd
	d := system.NewDetector(b.Context, o)
	t.Cleanup(d.Close)
	return d
}

// fragment parses a fragment.
func fragment(text string) *schema.Document { return schema.Parse("fragment.json", []byte(text)) }

// portOf returns the port of the URL of a test server.
func portOf(url string) string { return url[strings.LastIndexByte(url, ':')+1:] }

// listen returns a channel of the payloads of messages.
func (b bench) listen(mask smd.Class) <-chan string {
	payloads := make(chan string, 1000)
	b.smd.Register(mask, func(m smd.Message) { payloads <- string(m.Payload) })
	return payloads
}
