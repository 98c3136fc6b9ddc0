package thirdparty

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	h2log "github.com/summerwind/h2spec/log"
	"github.com/summerwind/h2spec/spec"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestH2Spec checks that our server passes the cases of h2spec that the server of
// net/http passes. Both fail these, of 145:
//
//   - 8.1.2.2, twice: net/http ignores headers of the connection, such as TE: x;
//   - 6.5.3, SETTINGS_INITIAL_WINDOW_SIZE twice in a frame: it refuses the frame;
//   - 5.1, HEADERS after RST_STREAM: it ignores them, as section 5.1 permits for a while;
//   - 3.5, 4.2, 5.4.1: it closes the connection before h2spec has sent all of the frame,
//     so that the result depends on who is faster.
func TestH2Spec(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	answer := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls %v", secure), func(t *testing.T) {
			ours, bare := h2spec(ourServer(t, secure), secure), h2spec(bareServer(t, secure, answer), secure)
			t.Logf("passed: ours %d of %d, net/http %d of %d", ours.passed, ours.total, bare.passed, bare.total)
			excused := func(name string, _ bool) bool { return bare.failed[name] }
			maps.DeleteFunc(ours.failed, excused)
			for n := 0; n < 5 && len(ours.failed) > 0; n++ { // without results that depend on timing
				again := h2spec(ourServer(t, secure), secure)
				maps.DeleteFunc(ours.failed, func(name string, _ bool) bool { return !again.failed[name] })
				maps.Copy(bare.failed, h2spec(bareServer(t, secure, answer), secure).failed)
				maps.DeleteFunc(ours.failed, excused)
			}
			for name := range ours.failed {
				t.Errorf("net/http passes: %s", name)
			}
			if ours.total < 100 {
				t.Errorf("only %d cases", ours.total)
			}
		})
	}
}

// A report is the result of h2spec.
type report struct {
	passed, total int
	failed        map[string]bool
}

func h2spec(addr netip.AddrPort, secure bool) report {
	h2log.SetIndentLevel(0)
	c := &config.Config{Host: addr.Addr().String(), Port: int(addr.Port()), Path: "/", Timeout: 2 * time.Second,
		MaxHeaderLen: 4000, TLS: secure, Insecure: true}
	r := report{failed: map[string]bool{}}
	for _, g := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		g.Test(c)
		r.passed += g.PassedCount
		r.total += g.PassedCount + g.FailedCount
		r.collect(g)
	}
	return r
}

// collect records the failures of a group.
func (r report) collect(g *spec.TestGroup) {
	for _, tc := range g.Tests {
		if tc.Result != nil && tc.Result.Failed {
			r.failed[g.ID()+": "+strings.TrimSpace(tc.Desc)] = true
		}
	}
	for _, sub := range g.Groups {
		r.collect(sub)
	}
}

// ourServer starts a server streamtype of h2.
func ourServer(t *testing.T, secure bool) netip.AddrPort {
	cert := own.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")
	st := &policy.StreamType{
		Name: "web", Protocol: policy.ProtocolH2, Server: true, Endpoint: "127.0.0.1", HTTP: &policy.HTTP{}, TLS: secure,
		ServerCert: &policy.Cert{Name: "cert", DER: string(cert.Certificate[0])},
		ServerKey:  &policy.Cert{Name: "key", DER: string(testcert.KeyDER(cert))},
	}
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{sshttp.New(sshttp.Server)}}, st)
	s, err := c.NewStream("web", runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateServerTxn {
				_ = s.Ack(0)
				_ = s.RequestTx()
			}
			return runtime.OK
		},
		Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			return copy(buf, "hello"), runtime.FlagEOM, runtime.OK
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(s.Addr().String())
}

// bareServer starts a server of net/http.
func bareServer(t *testing.T, secure bool, h http.HandlerFunc) netip.AddrPort {
	if secure {
		return serve(t, true, h)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	srv.Protocols.SetHTTP1(true)
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return netip.MustParseAddrPort(ln.Addr().String())
}
