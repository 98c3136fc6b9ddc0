//go:build linux

package conformance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// An echoListener is a listener that answers "hello" to a request without a body, and otherwise
// sends back what it receives.
type echoListener struct {
	st    *policy.StreamType
	s     *runtime.Stream
	trust *policy.TrustStore

	mu     sync.Mutex
	traces []*teststream.Trace
}

// serverTransports are the transports of servers.
func serverTransports() []transport.Transport {
	return []transport.Transport{sshttp.New(sshttp.Server), ws.New(ws.Server), raw.New(raw.TLS, raw.Server)}
}

// serve creates a listener of a protocol.
func serve(t *testing.T, own *testcert.Authority, p policy.Protocol, changes ...change) *echoListener {
	t.Helper()
	n := &echoListener{trust: own.Store()}
	n.st = &policy.StreamType{
		Name: "s", Server: true, Protocol: p, Endpoint: "127.0.0.1", HTTP: &policy.HTTP{},
		Metadata: []policy.Metadata{{Name: "method"}, {Name: "path"}},
	}
	for _, f := range changes {
		f(n.st)
	}
	if n.st.TLS {
		cert := own.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")
		n.st.ServerCert = &policy.Cert{Name: "cert", DER: string(cert.Certificate[0])}
		n.st.ServerKey = &policy.Cert{Name: "key", DER: string(testcert.KeyDER(cert))}
	}
	c := teststream.NewContext(t, runtime.Options{Transports: serverTransports()}, n.st)
	var err error
	if n.s, err = c.NewStream("s", runtime.Handlers{}, runtime.WithClients(n.accept)); err != nil {
		t.Fatal(err)
	}
	return n
}

// overTLS turns on the TLS of a server.
func overTLS(st *policy.StreamType) { st.TLS = true }

// accept returns the handlers of a client.
func (n *echoListener) accept(*runtime.Stream) runtime.Handlers {
	tr := new(teststream.Trace)
	n.mu.Lock()
	n.traces = append(n.traces, tr)
	n.mu.Unlock()
	h := answering(n.st.Protocol)
	enter, rx := h.State, h.Rx
	h.State = func(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
		tr.State(s, state, arg)
		return enter(s, state, arg)
	}
	h.Rx = func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
		if flags&runtime.FlagEOM != 0 {
			tr.Note(s, "rx(EOM)")
		} else {
			tr.NoteOnce(s, "rx")
		}
		return rx(s, buf, flags)
	}
	return h
}

// answering returns the handlers of a client. They answer "hello" to a request without a
// body, and echo bodies, messages and bytes.
func answering(p policy.Protocol) runtime.Handlers {
	var in, out []byte
	message := !p.IsHTTP()
	return runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			switch state {
			case runtime.StateServerUpgrade:
				message = true
			case runtime.StateServerTxn:
				in = nil
				if m, _ := s.Metadata("method"); m == "GET" || m == "HEAD" {
					_ = s.Respond("", time.Time{}, strings.NewReader("hello"))
				}
			}
			return runtime.OK
		},
		Rx: func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
			in = append(in, buf...)
			switch {
			case p != policy.ProtocolRaw && flags&runtime.FlagEOM == 0:
			case message:
				out, in = append(out, in...), nil
				_ = s.RequestTx()
			default:
				_ = s.Respond("", time.Time{}, bytes.NewReader(in))
			}
			return runtime.OK
		},
		Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			var flags runtime.Flags
			if p != policy.ProtocolRaw {
				if len(buf) < len(out) {
					return 0, 0, runtime.DestroyMe // the messages of the tests fit
				}
				flags = runtime.FlagSOM | runtime.FlagEOM
			}
			k := copy(buf, out)
			if out = out[k:]; len(out) > 0 {
				_ = s.RequestTx()
			}
			return k, flags, runtime.OK
		},
	}
}

// states returns the states of all clients after their end: each sequence with its count,
// unless that is 1.
func (n *echoListener) states(t *testing.T) string {
	t.Helper()
	n.mu.Lock()
	traces := slices.Clone(n.traces)
	n.mu.Unlock()
	count := map[string]int{}
	for _, tr := range traces {
		tr.AwaitEnd(t, "DES")
		count[tr.String()]++
	}
	var all []string
	for _, seq := range slices.Sorted(maps.Keys(count)) {
		if k := count[seq]; k > 1 {
			seq = fmt.Sprintf("%d x %s", k, seq)
		}
		all = append(all, seq)
	}
	return strings.Join(all, "; ")
}

// A peer is a row of the table: a client of another project, or a stream, and its expected
// result.
type peer struct {
	name   string
	proto  policy.Protocol
	change []change
	args   []string // arguments of a program; {ADDR} and so on are replaced
	stdin  string
	stop   string                                          // output after which the program is stopped
	call   func(*testing.T, *echoListener) (string, error) // called instead of a program

	want   string // substring of the output
	states string
}

// Sequences of states.
const (
	oneRequest = "CRE CNG CON TXN DIS DES"
	oneBody    = "CRE CNG CON TXN rx rx(EOM) DIS DES"
	oneRaw     = "CRE CNG CON rx DIS DES"
	twoOverWS  = "CRE CNG UPG CON rx(EOM) rx(EOM) DIS DES"
)

// pythonWS sends a text and a binary message, and prints the echoes.
const pythonWS = `
import asyncio, ssl, sys, websockets
async def main(uri, ca):
    tls = ssl.create_default_context(cafile=ca) if uri.startswith("wss") else None
    async with websockets.connect(uri, ssl=tls, subprotocols=["echo"]) as c:
        await c.send("text")
        a = await c.recv()
        await c.send(b"binary")
        print(c.subprotocol, a, await c.recv())
asyncio.run(main(sys.argv[1], sys.argv[2]))
`

// overWS makes a server accept WebSockets of subprotocol "echo".
func overWS(st *policy.StreamType) { st.HTTP.WSSubprotocol = "echo" }

var peers = []peer{
	{name: "curl", proto: policy.ProtocolH1, args: curl("http://{ADDR}/"), want: "hello 1.1 200", states: oneRequest},
	{name: "curl, HEAD", proto: policy.ProtocolH1, args: curl("-I", "http://{ADDR}/"), want: "Content-Length: 5", states: oneRequest},
	{name: "curl, two requests", proto: policy.ProtocolH1, args: curl("http://{ADDR}/", "http://{ADDR}/"), want: "hello 1.1 200 5hello 1.1 200 5", states: "CRE CNG CON TXN TXN DIS DES"},
	{name: "curl, a body", proto: policy.ProtocolH1, args: curl("-o", "/dev/null", "--data-binary", "@{LARGE}", "http://{ADDR}/"), want: "65536", states: oneBody},
	{name: "curl, a chunked body", proto: policy.ProtocolH1, args: curl("-o", "/dev/null", "-H", "Transfer-Encoding: chunked", "--data-binary", "@{LARGE}", "http://{ADDR}/"), want: "65536", states: oneBody},
	{name: "curl, unix socket", proto: policy.ProtocolH1, change: []change{onSocket}, args: curl("--unix-socket", "{SOCKET}", "http://h/"), want: "hello 1.1 200", states: oneRequest},
	{name: "curl offers h2", proto: policy.ProtocolH1, change: []change{overTLS}, args: curl("--http2", "https://{ADDR}/"), want: "hello 1.1 200", states: oneRequest},
	{name: "curl", proto: policy.ProtocolH2, change: []change{overTLS}, args: curl("--http2", "https://{ADDR}/"), want: "hello 2 200", states: oneRequest},
	{name: "curl, two requests", proto: policy.ProtocolH2, change: []change{overTLS}, args: curl("--http2", "https://{ADDR}/", "https://{ADDR}/"), want: "hello 2 200 5hello 2 200 5", states: "2 x " + oneRequest},
	{name: "curl, a body", proto: policy.ProtocolH2, change: []change{overTLS}, args: curl("--http2", "-o", "/dev/null", "--data-binary", "@{LARGE}", "https://{ADDR}/"), want: "65536", states: oneBody},
	{name: "curl over h1", proto: policy.ProtocolH2, change: []change{overTLS}, args: curl("--http1.1", "https://{ADDR}/"), want: "hello 1.1 200", states: oneRequest},
	{name: "curl, prior knowledge", proto: policy.ProtocolH2, args: curl("--http2-prior-knowledge", "http://{ADDR}/"), want: "hello 2 200", states: oneRequest},
	{name: "nghttp", proto: policy.ProtocolH2, change: []change{overTLS}, args: []string{"nghttp", "https://{ADDR}/"}, want: "hello", states: oneRequest},
	{name: "nghttp, without TLS", proto: policy.ProtocolH2, args: []string{"nghttp", "http://{ADDR}/"}, want: "hello", states: oneRequest},
	{name: "h2load", proto: policy.ProtocolH2, change: []change{overTLS}, args: []string{"h2load", "-n", "40", "-c", "2", "-m", "5", "https://{ADDR}/"}, want: "40 succeeded, 0 failed, 0 errored", states: "40 x " + oneRequest},
	{name: "h2load over h1", proto: policy.ProtocolH1, args: []string{"h2load", "--h1", "-n", "6", "-c", "2", "http://{ADDR}/"}, want: "6 succeeded, 0 failed, 0 errored", states: "2 x CRE CNG CON TXN TXN TXN DIS DES"},
	{name: "openssl", proto: policy.ProtocolH1, change: []change{overTLS}, args: openssl("-alpn", "h2,http/1.1"), stop: "hello",
		stdin: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", want: "ALPN protocol: http/1.1", states: oneRequest},
	{name: "openssl, no ALPN", proto: policy.ProtocolH2, change: []change{overTLS}, args: openssl(), stop: "hello",
		stdin: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", want: "No ALPN negotiated", states: oneRequest},
	{name: "openssl, no request", proto: policy.ProtocolH2, change: []change{overTLS}, args: openssl("-alpn", "h2,http/1.1"), stop: "Verify return code: 0 (ok)",
		want: "ALPN protocol: h2", states: ""},
	{name: "openssl, TLS 1.1", proto: policy.ProtocolH1, change: []change{overTLS}, args: openssl("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), stop: "Verify return code",
		want: "alert protocol version", states: ""},
	{name: "openssl", proto: policy.ProtocolRaw, change: []change{overTLS}, args: openssl("-quiet"), stdin: "piece", stop: "piece", want: "piece", states: oneRaw},
	{name: "nc", proto: policy.ProtocolRaw, args: []string{"nc", "-N", "{HOST}", "{PORT}"}, stdin: "piece", want: "piece", states: oneRaw},
	{name: "nc, unix socket", proto: policy.ProtocolRaw, change: []change{onSocket}, args: []string{"nc", "-N", "-U", "{SOCKET}"}, stdin: "piece", want: "piece", states: oneRaw},
	{name: "nc, port scan", proto: policy.ProtocolH1, args: []string{"nc", "-z", "-v", "{HOST}", "{PORT}"}, want: "succeeded", states: ""},
	{name: "python websockets", proto: policy.ProtocolWS, change: []change{overWS}, args: []string{"/usr/bin/python3", "-c", pythonWS, "ws://{ADDR}/", "{CA}"}, want: "echo text binary", states: twoOverWS},
	{name: "python websockets", proto: policy.ProtocolH2, change: []change{overTLS, overWS}, args: []string{"/usr/bin/python3", "-c", pythonWS, "wss://{ADDR}/", "{CA}"}, want: "echo text binary", states: twoOverWS},
	{name: "curl without a WebSocket", proto: policy.ProtocolWS, args: curl("http://{ADDR}/"), want: "426", states: ""},

	{name: "a stream", proto: policy.ProtocolH1, call: fetch, want: "hello", states: oneRequest},
	{name: "a stream", proto: policy.ProtocolH1, change: []change{overTLS}, call: fetch, want: "hello", states: oneRequest},
	{name: "a stream", proto: policy.ProtocolH2, call: fetch, want: "hello", states: oneRequest},
	{name: "a stream", proto: policy.ProtocolH2, change: []change{overTLS}, call: fetch, want: "hello", states: oneRequest},
	{name: "a stream", proto: policy.ProtocolWS, change: []change{overWS}, call: converse, want: "one two", states: twoOverWS},
	{name: "a stream", proto: policy.ProtocolWS, change: []change{overTLS, overWS}, call: converse, want: "one two", states: twoOverWS},
	{name: "a stream", proto: policy.ProtocolRaw, call: converse, want: "one two", states: oneRaw},
	{name: "a stream", proto: policy.ProtocolRaw, change: []change{overTLS}, call: converse, want: "one two", states: oneRaw},
}

func onSocket(st *policy.StreamType) { st.Endpoint = "+" }

func curl(args ...string) []string {
	return append([]string{"curl", "-sS", "--noproxy", "*", "--cacert", "{CA}", "-w", " %{http_version} %{http_code} %{size_download}"}, args...)
}

func openssl(args ...string) []string {
	return append([]string{"openssl", "s_client", "-connect", "{ADDR}", "-CAfile", "{CA}"}, args...)
}

// TestServerPeers checks that clients of other projects and streams can use servers of each
// protocol.
func TestServerPeers(t *testing.T) {
	own := testcert.New("own")
	dir := t.TempDir()
	ca, file := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "large")
	for name, text := range map[string][]byte{ca: own.PEM(), file: large[:64<<10]} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range peers {
		name := fmt.Sprintf("%v/%s", p.proto, p.name)
		if len(p.change) > 0 && p.call != nil {
			name += fmt.Sprint(i)
		}
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(dir, fmt.Sprint("s", i))
			n := serve(t, own, p.proto, append(slices.Clone(p.change), func(st *policy.StreamType) {
				if st.Endpoint == "+" {
					st.Endpoint += socket
				}
			})...)
			addr := n.s.Addr().String()
			host, port, _ := net.SplitHostPort(addr)
			var got string
			var err error
			if p.call != nil {
				got, err = p.call(t, n)
			} else {
				r := strings.NewReplacer("{ADDR}", addr, "{HOST}", host, "{PORT}", port, "{CA}", ca, "{SOCKET}", socket, "{LARGE}", file)
				args := make([]string, len(p.args))
				for i, a := range p.args {
					args[i] = r.Replace(a)
				}
				got, err = p.run(t, args)
			}
			if norm := strings.Join(strings.Fields(got), " "); !strings.Contains(norm, p.want) {
				t.Errorf("got %s, %v\nwant %q", got, err, p.want)
			}
			if states := n.states(t); states != p.states {
				t.Errorf("states %s\nwant   %s", states, p.states)
			}
		})
	}
}

// run runs the program and returns its output.
func (p *peer) run(t *testing.T, args []string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = time.Second
	if p.stop == "" {
		cmd.Stdin = strings.NewReader(p.stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	in := teststream.Must(cmd.StdinPipe())
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		w.Close()
	}()
	go io.WriteString(in, p.stdin)
	var out []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(out, []byte(p.stop)) {
		k, err := r.Read(buf)
		if out = append(out, buf[:k]...); err != nil {
			break
		}
	}
	go io.Copy(io.Discard, r)
	in.Close()
	_ = cmd.Process.Kill()
	return string(out), <-ended
}

// client returns a context with a client streamtype "s" for a server.
func (n *echoListener) client(t *testing.T) *runtime.Context {
	addr := netip.MustParseAddrPort(n.s.Addr().String())
	return newContext(t, runtime.Options{}, streamType(addr, func(st *policy.StreamType) {
		st.Protocol = n.st.Protocol
		st.HTTP.Method = "GET"
		st.HTTP.WSSubprotocol = n.st.HTTP.WSSubprotocol
		switch st.Protocol {
		case policy.ProtocolWS:
			st.HTTP.Method = ""
		case policy.ProtocolRaw:
			st.HTTP = nil
		}
		if n.st.TLS {
			secure(n.trust)(st)
		}
	}))
}

// fetch makes a request.
func fetch(t *testing.T, n *echoListener) (string, error) {
	c := n.client(t)
	answer, err := c.Fetch(t.Context(), "s")
	if err != nil {
		return "", err
	}
	teststream.Shutdown(t, c) // closes the connection
	return string(answer.Body), nil
}

// converse sends two messages and reads the echoes.
func converse(t *testing.T, n *echoListener) (string, error) {
	conn, err := n.client(t).Open(t.Context(), "s")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	var all []string
	for _, text := range []string{"one", "two"} {
		if _, err := io.WriteString(conn, text); err != nil {
			return "", err
		}
		buf := make([]byte, 3)
		if _, err := io.ReadFull(conn, buf); err != nil {
			return "", err
		}
		all = append(all, string(buf))
	}
	return strings.Join(all, " "), nil
}
