//go:build linux && autobahn

package conformance

import (
	"encoding/json"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// binaryCases matches the cases of the Autobahn test suite that send binary messages. The
// policy sets the type of the echo.
var binaryCases = regexp.MustCompile(`^(1\.2|9\.[2468]|12\.[235])\.`)

// TestAutobahn runs the Autobahn test suite against its fuzzing server at the URL in
// AUTOBAHN, such as ws://127.0.0.1:9001. The suite needs Python 2, so the test has a build
// tag. TestFrames of package ws covers the same groups of cases.
func TestAutobahn(t *testing.T) {
	u, err := url.Parse(os.Getenv("AUTOBAHN"))
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	st := func(name string, binary bool) *policy.StreamType {
		return &policy.StreamType{Name: name, Protocol: policy.ProtocolWS, Endpoint: u.Hostname(), Port: uint16(port), Opportunistic: true,
			Metadata: []policy.Metadata{{Name: "path"}, {Name: "case"}},
			HTTP:     &policy.HTTP{URL: "${path}?case=${case}&agent=sspolicy", WSBinary: binary}}
	}
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{ws.New(ws.WithDeflate())}}, st("text", false), st("binary", true))
	ask := func(path string, n int, to any) {
		t.Helper()
		r, err := c.Fetch(t.Context(), "text", runtime.WithMetadata("path", path), runtime.WithMetadata("case", strconv.Itoa(n)))
		if err == nil {
			err = json.Unmarshal(r.Body, to)
		}
		if err != nil {
			t.Fatal(path, err)
		}
	}
	var cases int
	ask("getCaseCount", 0, &cases)
	counts := map[string]int{}
	for i := 1; i <= cases; i++ {
		var info struct{ ID string }
		ask("getCaseInfo", i, &info)
		name := "text"
		if binaryCases.MatchString(info.ID) {
			name = "binary"
		}
		runCase(t, c, name, i)
		var status struct{ Behavior string }
		ask("getCaseStatus", i, &status)
		counts[status.Behavior]++
		switch status.Behavior {
		case "OK", "INFORMATIONAL", "UNIMPLEMENTED":
		case "NON-STRICT":
			t.Logf("%s: %s", info.ID, status.Behavior)
		default:
			t.Errorf("%s: %s", info.ID, status.Behavior)
		}
	}
	if n := counts["NON-STRICT"]; n > 7 {
		t.Errorf("%d cases are non-strict", n)
	}
	t.Log(counts)
	c.Fetch(t.Context(), "text", runtime.WithMetadata("path", "updateReports"))
}

// runCase echoes the pieces that a case sends.
func runCase(t *testing.T, c *runtime.Context, streamtype string, n int) {
	type piece struct {
		data  []byte
		flags policy.Flags
	}
	var queue []piece
	done := make(chan struct{})
	s, err := c.NewStream(streamtype, runtime.Handlers{
		State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateDisconnected || state == runtime.StateAllRetriesFailed {
				close(done)
				return runtime.DestroyMe
			}
			return runtime.OK
		},
		Rx: func(s *runtime.Stream, p []byte, f policy.Flags) policy.Result {
			queue = append(queue, piece{append([]byte(nil), p...), f})
			s.RequestTx()
			return policy.OK
		},
		Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
			if len(queue) == 0 {
				return 0, 0, policy.TxDontSend
			}
			p := queue[0]
			if queue = queue[1:]; len(queue) > 0 {
				s.RequestTx()
			}
			return copy(buf, p.data), p.flags, policy.OK
		},
	}, runtime.WithMetadata("path", "runCase"), runtime.WithMetadata("case", strconv.Itoa(n)))
	if err != nil {
		t.Fatal(err)
	}
	s.RequestTx()
	select {
	case <-done:
	case <-time.After(5 * time.Minute):
		t.Errorf("case number %d does not end", n)
		s.Destroy()
	}
}
