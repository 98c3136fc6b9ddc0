package http_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// serverType returns a server streamtype "web".
func serverType(p policy.Protocol, change ...func(*policy.StreamType)) *policy.StreamType {
	st := &policy.StreamType{
		Name: "web", Protocol: p, Server: true, Endpoint: "127.0.0.1", HTTP: &policy.HTTP{},
		Metadata: []policy.Metadata{
			{Name: "method"}, {Name: "path"}, {Name: "auth"}, {Name: "q"},
			{Name: "mime", Header: "content-type:"}, {Name: "tag", Header: "X-Tag"},
		},
	}
	for _, f := range change {
		f(st)
	}
	return st
}

// clients records the events of the accepted streams of a listener.
type clients struct {
	on     teststream.Actions
	tx     func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result)
	mu     sync.Mutex
	traces []*teststream.Trace
}

// accept is the function for runtime.WithClients.
func (k *clients) accept(*runtime.Stream) runtime.Handlers {
	tr := &teststream.Trace{On: k.on}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.traces = append(k.traces, tr)
	h := handlers(tr)
	h.Tx = k.tx
	return h
}

// trace returns the trace of client i.
func (k *clients) trace(t *testing.T, i int) *teststream.Trace {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if i >= len(k.traces) {
		t.Fatalf("%d clients, want more than %d", len(k.traces), i)
	}
	return k.traces[i]
}

// listen makes a listener of "web".
func (k *clients) listen(t *testing.T, st *policy.StreamType, o ...runtime.StreamOption) *runtime.Stream {
	t.Helper()
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{sshttp.New(sshttp.Server)}}, st)
	s, err := c.NewStream("web", runtime.Handlers{}, append(o, runtime.WithClients(k.accept))...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// text is an action that answers with a status and text.
func text(status int, body func(*runtime.Stream) string) func(*runtime.Stream) runtime.Result {
	return func(s *runtime.Stream) runtime.Result {
		if err := s.Ack(status); err != nil {
			panic(err)
		}
		if err := s.Respond("", time.Time{}, strings.NewReader(body(s))); err != nil {
			panic(err)
		}
		return runtime.OK
	}
}

// item returns a metadata item of a stream.
func item(s *runtime.Stream, name string) string { return teststream.Must(s.Metadata(name)) }

// exchangeRaw sends text on a connection and returns everything it receives.
func exchangeRaw(t *testing.T, addr, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, text)
	c.(*net.TCPConn).CloseWrite()
	all, _ := io.ReadAll(c)
	return string(all)
}

func TestServerTransactions(t *testing.T) {
	k := &clients{}
	k.on = teststream.Actions{"TXN": func(s *runtime.Stream) runtime.Result {
		if item(s, "path") == "/none" {
			return runtime.OK
		}
		s.SetMetadata("mime", "text/x-test")
		s.Ack(0)
		return runtime.OK
	}, "rx(EOM)": teststream.RequestTx}
	k.tx = func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
		n := copy(buf, fmt.Sprintf("%s %s q=%s tag=%s", item(s, "method"), item(s, "path"), item(s, "q"), item(s, "tag")))
		return n, policy.FlagSOM | policy.FlagEOM, runtime.OK
	}
	s := k.listen(t, serverType(policy.ProtocolH1))
	got := exchangeRaw(t, s.Addr().String(), "POST /a%20b?q=1&mime=evil HTTP/1.1\r\nHost: h\r\nX-Tag: T\r\nContent-Length: 4\r\n\r\nbody"+
		"POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"+
		"PURGE /none HTTP/1.1\r\nHost: h\r\n\r\n")
	for _, want := range []string{"HTTP/1.1 200 OK", "Content-Type: text/x-test", "Content-Length: 19\r\n", "POST /a b q=1 tag=T", "POST /c q= tag=HTTP", "404 Not Found"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	tr := k.trace(t, 0)
	tr.AwaitEnd(t, "DES")
	tr.Want(t, "CRE CNG CON TXN rx(SOM) rx(EOM) TXN rx(SOM) rx(EOM) TXN DIS DES")
}

// TestServerVersions serves one streamtype over h1 and h2, with and without TLS.
func TestServerVersions(t *testing.T) {
	cert := system.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")
	for _, p := range protocols {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v tls %v", p, secure), func(t *testing.T) {
				k := &clients{on: teststream.Actions{"TXN": text(0, func(s *runtime.Stream) string { return s.Peer().Remote.String() })}}
				addr := k.listen(t, serverType(p, func(st *policy.StreamType) {
					if st.TLS = secure; secure {
						st.ServerCert = &policy.Cert{Name: "cert", DER: string(cert.Certificate[0])}
						st.ServerKey = &policy.Cert{Name: "key", DER: string(testcert.KeyDER(cert))}
					}
				})).Addr().String()
				for _, h2 := range []bool{false, true} {
					tr := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{RootCAs: system.Pool()}}
					defer tr.CloseIdleConnections()
					url := "http://" + addr
					if secure {
						url = "https://" + addr
						tr.Protocols.SetHTTP2(h2)
						tr.Protocols.SetHTTP1(true)
					} else {
						tr.Protocols.SetUnencryptedHTTP2(h2)
						tr.Protocols.SetHTTP1(!h2)
					}
					resp, err := (&http.Client{Transport: tr}).Get(url)
					if p == policy.ProtocolH1 && h2 && !secure {
						if err == nil {
							t.Error("h1 without TLS answered HTTP/2")
						}
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					body, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					if want := p == policy.ProtocolH2 && h2; (resp.ProtoMajor == 2) != want || resp.StatusCode != 200 || len(body) == 0 {
						t.Errorf("h2 %v: %v %q", h2, resp, body)
					}
					if resp.ProtoMajor == 2 {
						last := k.trace(t, len(k.traces)-1)
						last.AwaitEnd(t, "DES")
						last.Want(t, "CRE CNG CON TXN DIS DES")
					}
				}
			})
		}
	}
}

// TestServerDestroy checks that destroying a listener destroys its clients and closes the
// port.
func TestServerDestroy(t *testing.T) {
	k := &clients{on: teststream.Actions{"TXN": func(s *runtime.Stream) runtime.Result { s.Ack(0); return runtime.OK }}}
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{sshttp.New(sshttp.Server)}}, serverType(policy.ProtocolH1))
	var tr teststream.Trace
	s, err := c.NewStream("web", handlers(&tr), runtime.WithClients(k.accept))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	var all []*runtime.Stream
	for client := range c.Clients(s) {
		all = append(all, client)
	}
	if len(all) != 1 || all[0].Listener() != s || all[0].Addr() != nil {
		t.Fatalf("clients %v", all)
	}
	s.Destroy()
	tr.AwaitEnd(t, "DES")
	tr.Want(t, "CRE DES")
	k.trace(t, 0).Want(t, "CRE CNG CON TXN DIS DES") // before the listener
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the client is still connected")
	}
	if c, err := net.Dial("tcp", s.Addr().String()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
	s.Destroy()
}

func TestServerShutdown(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	k := &clients{on: teststream.Actions{"TXN": func(s *runtime.Stream) runtime.Result {
		close(started)
		<-release
		return text(0, func(*runtime.Stream) string { return "late" })(s)
	}}}
	s := k.listen(t, serverType(policy.ProtocolH1))
	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + s.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	<-started
	done := make(chan error)
	go func() { done <- s.Shutdown(context.Background()) }()
	close(release)
	if got := <-answer; got != "late" {
		t.Errorf("the request was answered with %q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	k.trace(t, 0).Want(t, "CRE CNG CON TXN DIS DES")
}

// TestHandle has a net/http handler that answers.
func TestHandle(t *testing.T) {
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{sshttp.New(sshttp.Server)}}, serverType(policy.ProtocolH1))
	s, err := c.Handle("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "handled "+r.URL.Path) }))
	if err != nil {
		t.Fatal(err)
	}
	if got := exchangeRaw(t, s.Addr().String(), "GET /x HTTP/1.0\r\n\r\n"); !strings.HasSuffix(got, "handled /x") {
		t.Errorf("%q", got)
	}
	if _, err := c.Handle("web", 5); err == nil || !strings.Contains(err.Error(), "int is not a net/http.Handler") {
		t.Error(err)
	}
}

// A lines receives each line that is written.
type lines chan string

func (l lines) Write(p []byte) (int, error) { l <- string(p); return len(p), nil }

// TestHandleLimits checks the limits of a body with a handler, and that its panic is
// logged.
func TestHandleLimits(t *testing.T) {
	log := make(lines, 1)
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{sshttp.New(sshttp.Server)}, Logger: slog.New(slog.NewTextHandler(log, nil))},
		serverType(policy.ProtocolH1))
	read := make(chan error, 1)
	s, err := c.Handle("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		read <- err
		panic("a bug")
	}), runtime.WithLimits(runtime.Limits{BodyBytes: 10, IdleTimeout: 100 * time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]func(error) bool{
		"0123456789":  func(err error) bool { return err == nil },
		"0123456789a": func(err error) bool { _, ok := errors.AsType[*http.MaxBytesError](err); return ok },
		"slow":        func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) },
	} {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", max(10, len(body)), body)
		if err := <-read; !want(err) {
			t.Errorf("%q: %v", body, err)
		}
		if line := <-log; !strings.Contains(line, "a bug") || !strings.Contains(line, "TestHandleLimits") {
			t.Error(line)
		}
	}
}
