package raw_test

import (
	"bufio"
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
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// system is the authority that the operating system trusts, for these tests; own
// is that of the trust store "own".
var system, own *testcert.Authority

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	system, own = testcert.New("the operating system's"), testcert.New("own")
	defer system.SystemRoots()()
	return leaktest.Run(m)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A trace records what a stream tells, and has what it is to send.
type trace struct {
	teststream.Trace
	rx func(*runtime.Stream, []byte)

	mu   sync.Mutex
	body []byte
	out  []string // pieces for Tx
}

func newTrace() *trace {
	return &trace{Trace: teststream.Trace{On: map[string]func(*runtime.Stream) policy.Result{}}}
}

func (tr *trace) received() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return string(tr.body)
}

func (tr *trace) await(t *testing.T, what string, done func() bool) {
	t.Helper()
	if !tr.Await(done) {
		t.Fatalf("no %s: %v, received %q", what, tr, tr.received())
	}
}

func (tr *trace) saw(t *testing.T, event string) {
	t.Helper()
	tr.await(t, event, func() bool { return tr.Count(event) > 0 })
}

func (tr *trace) got(t *testing.T, text string) {
	t.Helper()
	tr.await(t, fmt.Sprintf("%q", text), func() bool { return strings.Contains(tr.received(), text) })
}

// send has a piece sent.
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
			tr.mu.Lock()
			tr.body = append(tr.body, buf...)
			tr.mu.Unlock()
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
			return n, policy.FlagEOM, policy.OK // which means nothing
		},
	}
}

func newContext(t testing.TB, o runtime.Options, st *policy.StreamType) *runtime.Context {
	t.Helper()
	o.Transports = []transport.Transport{raw.New()}
	return teststream.NewContext(t, o, st)
}

// streamType returns a streamtype "s" for a server, changed by each of change.
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

// serve does with each connection what a test says. It ends with the test.
func serve(t testing.TB, do func(net.Conn)) net.Addr {
	return serveOn(t, must(net.Listen("tcp", "127.0.0.1:0")), do)
}

func serveOn(t testing.TB, ln net.Listener, do func(net.Conn)) net.Addr {
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	ended := false
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			if ended {
				c.Close()
			}
			mu.Unlock()
			wg.Go(func() {
				defer func() {
					c.Close()
					mu.Lock()
					delete(conns, c)
					mu.Unlock()
				}()
				do(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		ended = true
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr()
}

func echo(c net.Conn) { io.Copy(c, c) }

// line reads a line of a dialogue, without its end.
func line(r *bufio.Reader) string {
	text, _ := r.ReadString('\n')
	return strings.TrimRight(text, "\r\n")
}
