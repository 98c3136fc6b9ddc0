package http_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
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

// A trace records what a stream tells its handlers.
type trace struct {
	teststream.Trace
	on map[string]func(*runtime.Stream) policy.Result

	mu   sync.Mutex
	body []byte
}

func (tr *trace) handlers() runtime.Handlers {
	tr.On = tr.on
	return runtime.Handlers{
		State: tr.State,
		Rx: func(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
			tr.mu.Lock()
			tr.body = append(tr.body, buf...)
			tr.mu.Unlock()
			name := "rx"
			switch {
			case flags == policy.FlagEOM && len(buf) == 0:
				name = "rx(EOM)"
			case flags == policy.FlagSOM && len(buf) > 0:
				name = "rx(SOM)"
			case flags != 0 || len(buf) == 0:
				name = fmt.Sprintf("rx(%d bytes, flags %d)", len(buf), flags)
			}
			return tr.Note(s, name)
		},
	}
}

// await waits until there are n events.
func (tr *trace) await(t *testing.T, n int) {
	t.Helper()
	if !tr.Await(func() bool { return len(tr.Events()) >= n }) {
		t.Errorf("waited in vain for event %d of %s", n, tr)
	}
}

// raw answers each connection with a text, as it is, after the head of the
// request is in, and closes.
func raw(answer string) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		io.WriteString(c, answer)
	}
}

// A server is what a row of the table runs against: one of the three.
type server struct {
	handler http.Handler
	conn    func(net.Conn)
	refused bool
	tls     *tls.Config
}

// start returns the address of the server.
func (sv server) start(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	if sv.refused {
		ln.Close()
		return addr
	}
	if sv.tls != nil {
		ln = tls.NewListener(ln, sv.tls)
	}
	if sv.handler != nil {
		hs := &http.Server{Handler: sv.handler, ErrorLog: log.New(io.Discard, "", 0)}
		if sv.tls != nil {
			hs.TLSConfig = sv.tls
			hs.Protocols = new(http.Protocols)
			hs.Protocols.SetHTTP1(true)
			hs.Protocols.SetHTTP2(true)
		}
		t.Cleanup(func() { hs.Close() })
		go hs.Serve(ln)
		return addr
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { sv.conn(c) })
		}
	})
	return addr
}

// newStream makes a stream of the type against the address, with no jitter.
func newStream(t *testing.T, st policy.StreamType, addr netip.AddrPort, tr *trace, o runtime.Options) (*runtime.Context, *runtime.Stream) {
	t.Helper()
	c := newContext(t, st, addr, o)
	s, err := c.NewStream("s", tr.handlers())
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func requestTx(s *runtime.Stream) policy.Result { s.RequestTx(); return policy.OK }
func connect(s *runtime.Stream) policy.Result   { s.Connect(); return policy.OK }

type on = map[string]func(*runtime.Stream) policy.Result

func status(code int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		io.WriteString(w, body)
	})
}

func redirect(to string) http.Handler { return http.RedirectHandler(to, http.StatusFound) }

// TestConformance runs what was seen of lws 5.0.0 against real servers. Where
// the expectation is another on purpose, docs/runtime.md says why.
func TestConformance(t *testing.T) {
	own := testcert.New("own")
	other := testcert.New("other")
	h1 := []string{"http/1.1"}
	both := []string{"h2", "http/1.1"}
	retry := teststream.Retry
	good := status(200, "hello")
	cut := raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
	secure := func(trust *testcert.Authority) policy.StreamType {
		st := policy.StreamType{TLS: true, Opportunistic: true, Retry: retry(2)}
		if trust != nil {
			st.TrustStore = trust.Store()
		}
		return st
	}
	opportunistic := policy.StreamType{Opportunistic: true, Retry: retry(2)}
	with := func(st policy.StreamType, h policy.HTTP) policy.StreamType { st.HTTP = &h; return st }
	on1 := func(st policy.StreamType, conceal uint16) policy.StreamType { st.Retry = retry(conceal); return st }

	const unreachable = "CRE POL CNG UNR POL CNG UNR POL CNG UNR ARF"
	reset := func(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() }
	notFound := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "x.invalid", IsNotFound: true}}
	}

	for _, tt := range []struct {
		name   string
		st     policy.StreamType
		sv     server
		on     on
		dial   func(context.Context, string, string) (net.Conn, error)
		tx     string // body to send
		h2     bool   // run it over h2 and TLS too
		want   string
		prefix bool // want is only how it begins
		cause  func(error) bool
	}{
		{name: "GET 200 by RequestTx", st: opportunistic, sv: server{handler: good}, h2: true,
			want: "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS"},
		{name: "GET 200 by Connect", st: opportunistic, sv: server{handler: good}, on: on{"CRE": connect}, h2: true,
			want: "CRE CNG CON rx(SOM) rx(EOM) ACK DIS"},
		{name: "nailed up", st: policy.StreamType{NailedUp: true, Retry: retry(2)}, sv: server{handler: good}, on: on{"CRE": nil}, h2: true,
			want: "CRE CNG CON rx(SOM) rx(EOM) ACK DIS"},
		{name: "empty body", st: opportunistic, sv: server{handler: status(200, "")}, h2: true,
			want: "CRE POL CNG CON ACK DIS"},
		{name: "204", st: opportunistic, sv: server{handler: status(204, "")}, h2: true,
			want: "CRE POL CNG CON ACK DIS"},
		{name: "HEAD", st: with(opportunistic, policy.HTTP{Method: "HEAD"}), sv: server{handler: good}, h2: true,
			want: "CRE POL CNG CON ACK DIS"},
		{name: "404", st: opportunistic, sv: server{handler: status(404, "no")}, h2: true,
			want: "CRE POL CNG CON rx(SOM) rx(EOM) NAK DIS"},
		{name: "200 where 204 is expected", st: with(opportunistic, policy.HTTP{Expect: 204}), sv: server{handler: good}, h2: true,
			want: "CRE POL CNG CON rx(SOM) rx(EOM) NAK DIS"},
		{name: "404 where 404 is expected", st: with(opportunistic, policy.HTTP{Expect: 404}), sv: server{handler: status(404, "x")}, h2: true,
			want: "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS"},
		{name: "mapped status", st: with(opportunistic, policy.HTTP{RespMap: []policy.StatusState{{Status: 530, State: 1530}}}),
			sv: server{handler: status(530, "x")}, h2: true,
			want: "CRE POL CNG USER_1530 CON rx(SOM) rx(EOM) NAK DIS"},
		{name: "503", st: on1(opportunistic, 1), sv: server{handler: status(503, "x")}, h2: true,
			want: "CRE POL CNG UNR POL CNG UNR ARF", cause: isStatus(503)},
		{name: "429", st: on1(opportunistic, 1), sv: server{handler: status(429, "x")}, h2: true,
			want: "CRE POL CNG UNR POL CNG UNR ARF", cause: isStatus(429)},
		{name: "302 not allowed", st: on1(opportunistic, 1), sv: server{handler: redirect("/")}, h2: true,
			want: "CRE POL CNG UNR POL CNG UNR ARF", cause: isRedirect},
		{name: "302 expected", st: with(opportunistic, policy.HTTP{Expect: 302}), sv: server{handler: redirect("/")}, h2: true,
			want: "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS"},
		{name: "POST", st: with(opportunistic, policy.HTTP{Method: "POST"}), sv: server{handler: echo}, tx: "question", h2: true,
			want: "CRE POL CNG tx CON rx(SOM) rx(EOM) ACK DIS"},
		{name: "refused", st: opportunistic, sv: server{refused: true}, want: unreachable},
		{name: "refused, Connect", st: opportunistic, sv: server{refused: true}, on: on{"CRE": connect},
			want: "CRE CNG UNR POL CNG UNR POL CNG UNR ARF"},
		{name: "refused, nailed up", st: policy.StreamType{NailedUp: true, Retry: retry(2)}, sv: server{refused: true}, on: on{"CRE": nil},
			want: "CRE CNG UNR POL CNG UNR POL CNG UNR ARF"},
		{name: "refused, no retry", st: policy.StreamType{Opportunistic: true}, sv: server{refused: true}, want: "CRE POL CNG UNR ARF"},
		{name: "refused, conceal 0", st: on1(opportunistic, 0), sv: server{refused: true}, want: "CRE POL CNG UNR ARF"},
		{name: "refused, no retry, Connect", st: policy.StreamType{Opportunistic: true}, sv: server{refused: true}, on: on{"CRE": connect},
			want: "CRE CNG UNR ARF"},
		{name: "reset before the reply", st: opportunistic, sv: server{conn: reset}, want: unreachable},
		{name: "closed before the reply", st: opportunistic, sv: server{conn: raw("")}, want: unreachable},
		{name: "half a head", st: opportunistic, sv: server{conn: raw("HTTP/1.1 200 OK\r\nConte")}, want: unreachable},
		{name: "no HTTP", st: opportunistic, sv: server{conn: raw("220 ready\r\n")}, want: unreachable},
		{name: "name does not exist", st: opportunistic, sv: server{refused: true}, dial: notFound, want: unreachable,
			cause: func(err error) bool { e, ok := errors.AsType[*net.DNSError](err); return ok && e.IsNotFound }},
		{name: "TLS to a plain port", st: secure(own), sv: server{handler: good}, want: unreachable},
		{name: "plain to a TLS port", st: opportunistic, sv: server{conn: func(c net.Conn) { c.Read(make([]byte, 1)); c.Close() }, tls: own.Server(h1, "127.0.0.1")},
			want: unreachable},
		{name: "own store", st: secure(own), sv: server{handler: good, tls: own.Server(both, "127.0.0.1")},
			want: "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS"},
		{name: "no store, known to the system", st: secure(nil), sv: server{handler: good, tls: system.Server(both, "127.0.0.1")},
			want: "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS"},
		{name: "no store, not known to the system", st: secure(nil), sv: server{handler: good, tls: own.Server(both, "127.0.0.1")},
			want: unreachable, cause: isTLS},
		{name: "wrong store", st: secure(other), sv: server{handler: good, tls: own.Server(both, "127.0.0.1")},
			want: unreachable, cause: isTLS},
		{name: "wrong store, known to the system", st: secure(other), sv: server{handler: good, tls: system.Server(both, "127.0.0.1")},
			want: unreachable, cause: isTLS},
		{name: "wrong host", st: secure(own), sv: server{handler: good, tls: own.Server(both, "elsewhere.test", "127.0.0.2")},
			want: unreachable, cause: isTLS},
		{name: "expired", st: secure(own), sv: server{handler: good, tls: func() *tls.Config {
			c := own.Server(both)
			c.Certificates[0] = own.Certify(testcert.Key(), time.Now().Add(-48*time.Hour), "127.0.0.1")
			return c
		}()},
			want: unreachable, cause: isTLS},
		{name: "TLS 1.1", st: secure(own), sv: server{handler: good, tls: func() *tls.Config {
			c := own.Server(both, "127.0.0.1")
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return c
		}()}, want: unreachable},
		{name: "h2 to a server without ALPN", st: func() policy.StreamType {
			st := secure(own)
			st.Protocol = policy.ProtocolH2
			return st
		}(), sv: server{conn: raw("HTTP/1.1 200 OK\r\n\r\n"), tls: own.Server(nil, "127.0.0.1")}, want: unreachable},
		{name: "broken store", st: func() policy.StreamType {
			st := secure(nil)
			st.TrustStore = &policy.TrustStore{Name: "broken", Stack: []*policy.Cert{{Name: "c", DER: "no certificate"}}}
			return st
		}(), sv: server{handler: good, tls: system.Server(both, "127.0.0.1")}, want: unreachable,
			cause: func(err error) bool { e, ok := errors.AsType[*transport.TrustError](err); return ok && e.Cert == "c" }},
		{name: "empty store", st: func() policy.StreamType {
			st := secure(nil)
			st.TrustStore = &policy.TrustStore{Name: "empty"}
			return st
		}(), sv: server{handler: good, tls: system.Server(both, "127.0.0.1")}, want: unreachable,
			cause: func(err error) bool { _, ok := errors.AsType[*transport.TrustError](err); return ok }},
		{name: "cut body", st: opportunistic, sv: server{conn: cut}, want: "CRE POL CNG CON rx(SOM) DIS",
			cause: func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{name: "cut body, chunked", st: opportunistic, sv: server{conn: raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")},
			want: "CRE POL CNG CON rx(SOM) DIS", cause: func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{name: "body up to the close", st: opportunistic, sv: server{conn: raw("HTTP/1.1 200 OK\r\n\r\nhello")},
			want: "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS"},
		{name: "cut before the body", st: opportunistic, sv: server{conn: raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")},
			want: "CRE POL CNG CON DIS"},
		{name: "cut body, not opportunistic", st: policy.StreamType{Retry: retry(2)}, sv: server{conn: cut}, prefix: true,
			want: "CRE POL CNG CON rx(SOM) DIS POL CNG CON rx(SOM) DIS POL CNG CON rx(SOM) DIS POL CNG CON rx(SOM) DIS"},
		{name: "no reply", st: on1(opportunistic, 1), sv: server{conn: func(c net.Conn) { io.Copy(io.Discard, c); c.Close() }},
			want: "CRE POL CNG UNR POL CNG UNR ARF", cause: func(err error) bool { return errors.Is(err, transport.ErrTimeout) }},
	} {
		run := func(t *testing.T, st policy.StreamType, sv server) {
			addr := sv.start(t)
			tr := &trace{on: on{"CRE": requestTx}}
			for k, f := range tt.on {
				tr.on[k] = f
			}
			if tt.tx != "" {
				tr.on["CNG"] = func(s *runtime.Stream) policy.Result {
					s.SetHandlers(runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
						tr.Note(s, "tx")
						return copy(buf, tt.tx), policy.FlagSOM | policy.FlagEOM, policy.OK
					}})
					return policy.OK
				}
			}
			c, s := newStream(t, st, addr, tr, runtime.Options{DialContext: tt.dial, ConnectTimeout: func() time.Duration {
				if tt.name == "no reply" {
					return 50 * time.Millisecond
				}
				return 0
			}()})
			want := tt.want
			tr.await(t, len(strings.Fields(want)))
			if !tt.prefix {
				// What comes too much would come within a few waits for a retry.
				time.Sleep(20 * time.Millisecond)
			}
			err := s.Err()
			c.Close()
			got := tr.String()
			t.Logf("saw %s (%v)", got, err)
			if tt.prefix {
				if !strings.HasPrefix(got, want) {
					t.Errorf("\n got %s\nwant %s ...", got, want)
				}
				return
			}
			if got != want+" DES" {
				t.Errorf("\n got %s\nwant %s DES", got, want)
			}
			failed := strings.Contains(want, "ARF") || !strings.Contains(want, "ACK") && !strings.Contains(want, "NAK")
			if failed != (err != nil) || tt.cause != nil && !tt.cause(err) {
				t.Errorf("the cause is %v (%T)", err, err)
			}
		}
		t.Run(tt.name, func(t *testing.T) { run(t, tt.st, tt.sv) })
		if tt.h2 {
			t.Run(tt.name+" (h2)", func(t *testing.T) {
				st := tt.st
				st.Protocol, st.TLS, st.TrustStore = policy.ProtocolH2, true, own.Store()
				sv := tt.sv
				sv.tls = own.Server(both, "127.0.0.1")
				h := sv.handler
				sv.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.ProtoMajor != 2 {
						t.Errorf("an h2 stream spoke %s", r.Proto)
					}
					h.ServeHTTP(w, r)
				})
				run(t, st, sv)
			})
		}
	}
}

var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Write(body)
})

func isStatus(code int) func(error) bool {
	return func(err error) bool { e, ok := errors.AsType[*sshttp.StatusError](err); return ok && e.Code == code }
}

func isRedirect(err error) bool { _, ok := errors.AsType[*sshttp.RedirectError](err); return ok }

func isTLS(err error) bool { _, ok := errors.AsType[*tls.CertificateVerificationError](err); return ok }
