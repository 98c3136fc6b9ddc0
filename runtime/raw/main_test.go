package raw_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// system is the authority that the operating system trusts in these tests; own is
// that of the trust store of streamType.
var system, own *testcert.Authority

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	system, own = testcert.New("the operating system's"), testcert.New("own")
	defer system.SystemRoots()()
	return leaktest.Run(m)
}

// A trace records the events of a stream and provides its payload.
type trace struct {
	teststream.Trace
	rx func(*runtime.Stream, []byte) // called with each piece, if not nil

	mu  sync.Mutex
	out []string // pieces for Tx
}

func newTrace() *trace { return &trace{Trace: teststream.Trace{On: teststream.Actions{}}} }

// awaitEvent waits for an event.
func (tr *trace) awaitEvent(t *testing.T, event string) {
	t.Helper()
	tr.AwaitCount(t, 1, event)
}

// awaitBody waits until the payload received contains text.
func (tr *trace) awaitBody(t *testing.T, text string) {
	t.Helper()
	if !tr.Await(func() bool { return strings.Contains(tr.Body(), text) }) {
		t.Fatalf("%q is not in %q: %s", text, tr.Body(), tr)
	}
}

// send requests to send a piece.
func (tr *trace) send(s *runtime.Stream, piece string) {
	tr.mu.Lock()
	tr.out = append(tr.out, piece)
	tr.mu.Unlock()
	s.RequestTx()
}

func (tr *trace) handlers() runtime.Handlers {
	return runtime.Handlers{
		State: tr.State,
		Rx: func(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
			tr.Keep(buf)
			if tr.rx != nil {
				tr.rx(s, buf)
			}
			if flags != 0 || len(buf) == 0 {
				return tr.Note(s, fmt.Sprintf("rx(%d bytes, flags %d)", len(buf), flags))
			}
			return tr.NoteOnce(s, "rx")
		},
		Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
			tr.mu.Lock()
			defer tr.mu.Unlock()
			if len(tr.out) == 0 {
				return 0, 0, policy.TxDontSend
			}
			n := copy(buf, tr.out[0])
			if tr.out[0] = tr.out[0][n:]; tr.out[0] == "" {
				tr.out = tr.out[1:]
			}
			if len(tr.out) > 0 {
				s.RequestTx()
			}
			return n, policy.FlagEOM, policy.OK // FlagEOM has no effect
		},
	}
}

func newContext(t testing.TB, o runtime.Options, types ...*policy.StreamType) *runtime.Context {
	t.Helper()
	o.Transports = []transport.Transport{raw.New(raw.TLS, raw.Server)}
	return teststream.NewContext(t, o, types...)
}

// streamType returns a streamtype "s" for an address, and applies changes.
func streamType(addr net.Addr, change ...func(*policy.StreamType)) *policy.StreamType {
	st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Opportunistic: true, TrustStore: own.Store()}
	if addr.Network() == "unix" {
		st.Endpoint = "+" + addr.String()
	} else {
		a := netip.MustParseAddrPort(addr.String())
		st.Endpoint, st.Port = a.Addr().String(), a.Port()
	}
	for _, f := range change {
		f(st)
	}
	return st
}

func secure(st *policy.StreamType) { st.TLS = true }

// serve calls handle for each connection of a TCP server.
func serve(t testing.TB, handle func(net.Conn)) net.Addr {
	t.Helper()
	return serveOn(t, testserver.Listen(t), handle)
}

// serveTLS is serve over TLS.
func serveTLS(t testing.TB, config *tls.Config, handle func(net.Conn)) net.Addr {
	t.Helper()
	return serveOn(t, tls.NewListener(testserver.Listen(t), config), handle)
}

func serveOn(t testing.TB, ln net.Listener, handle func(net.Conn)) net.Addr {
	testserver.Serve(t, ln, handle)
	return ln.Addr()
}

func echo(c net.Conn) { io.Copy(c, c) }

// line reads a line, without its end.
func line(r *bufio.Reader) string {
	text, _ := r.ReadString('\n')
	return strings.TrimRight(text, "\r\n")
}
