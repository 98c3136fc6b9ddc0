package system_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"testing"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/system"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
	"github.com/secure-streams/sspolicy/schema"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// errLoad is the error of loadPolicy.
var errLoad = errors.New("bad policy")

// loadPolicy is FetcherOptions.Load.
func loadPolicy(text []byte) (*policy.Policy, error) {
	p, err := sspolicy.Loader("fetched", sspolicy.Options{})(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errLoad, err)
	}
	return p, nil
}

// compile returns the policy of a text.
func compile(t testing.TB, text string) *policy.Policy {
	t.Helper()
	return overlay(t, text)
}

// overlay returns the policy of a text with fragments applied to it.
func overlay(t testing.TB, text string, fragments ...string) *policy.Policy {
	t.Helper()
	var docs []*schema.Document
	for _, f := range fragments {
		docs = append(docs, schema.Parse("fragment.json", []byte(f)))
	}
	p, err := sspolicy.Compile(schema.Parse("test.json", []byte(text)), lint.Options{}, docs...)
	if err != nil {
		t.Fatal(err)
	}
	return p.Policy
}

// A bench is a context with its own network and an SMD. A server at "live", port 80,
// answers requests.
type bench struct {
	*runtime.Context
	smd *smd.SMD
}

// newBench returns a context for HTTP, WebSocket and SMD. A nil server refuses
// connections.
func newBench(t testing.TB, p *policy.Policy, server http.HandlerFunc) bench {
	t.Helper()
	var network testserver.Network
	if server != nil {
		network.Serve(t, "live:80", server)
	}
	o := runtime.Options{Logger: slog.New(slog.DiscardHandler), DialContext: network.DialContext}
	d := smd.New(o.Logger)
	t.Cleanup(func() { d.Close() })
	o.Transports = []transport.Transport{sshttp.New(), ws.New(), d}
	return bench{teststream.NewPolicyContext(t, o, p), d}
}

// newDetector returns a detector that uses the SMD, and closes it at the end of the
// test.
func (b bench) newDetector(t testing.TB, o system.DetectorOptions) *system.Detector {
	t.Helper()
	o.SMD = b.smd
	d := system.NewDetector(b.Context, o)
	t.Cleanup(d.Close)
	return d
}

// newFetcher returns a fetcher, by default with loadPolicy.
func (b bench) newFetcher(t testing.TB, o system.FetcherOptions) *system.Fetcher {
	t.Helper()
	if o.Load == nil {
		o.Load = loadPolicy
	}
	return teststream.Must(system.NewFetcher(b.Context, o))
}

// listen returns a channel of the payloads of messages.
func (b bench) listen(mask smd.Class) <-chan string {
	payloads := make(chan string, 1000)
	b.smd.Register(mask, func(m smd.Message) { payloads <- string(m.Payload) })
	return payloads
}
