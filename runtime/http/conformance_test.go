package http_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestConformance compares the sequences of states with those of lws 5.0.0, against
// real servers. docs/differences.md explains the intended differences.
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
	reset := func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }
	notFound := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "x.invalid", IsNotFound: true}}
	}

	for _, tt := range []struct {
		name   string
		st     policy.StreamType
		sv     server
		on     teststream.Actions
		dial   func(context.Context, string, string) (net.Conn, error)
		limit  time.Duration // ConnectTimeout
		tx     string        // body to send
		h2     bool          // also run over h2 with TLS
		want   string
		prefix bool // want is a prefix
		cause  func(error) bool
	}{
		{name: "GET 200 by RequestTx", st: opportunistic, sv: server{handler: good}, h2: true,
			want: "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS"},
		{name: "GET 200 by Connect", st: opportunistic, sv: server{handler: good}, on: teststream.Actions{"CRE": teststream.Connect}, h2: true,
			want: "CRE CNG CON rx(SOM) rx(EOM) ACK DIS"},
		{name: "nailed up", st: policy.StreamType{NailedUp: true, Retry: retry(2)}, sv: server{handler: good}, on: teststream.Actions{"CRE": nil}, h2: true,
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
		{name: "refused, Connect", st: opportunistic, sv: server{refused: true}, on: teststream.Actions{"CRE": teststream.Connect},
			want: "CRE CNG UNR POL CNG UNR POL CNG UNR ARF"},
		{name: "refused, nailed up", st: policy.StreamType{NailedUp: true, Retry: retry(2)}, sv: server{refused: true}, on: teststream.Actions{"CRE": nil},
			want: "CRE CNG UNR POL CNG UNR POL CNG UNR ARF"},
		{name: "refused, no retry", st: policy.StreamType{Opportunistic: true}, sv: server{refused: true}, want: "CRE POL CNG UNR ARF"},
		{name: "refused, conceal 0", st: on1(opportunistic, 0), sv: server{refused: true}, want: "CRE POL CNG UNR ARF"},
		{name: "refused, no retry, Connect", st: policy.StreamType{Opportunistic: true}, sv: server{refused: true}, on: teststream.Actions{"CRE": teststream.Connect},
			want: "CRE CNG UNR ARF"},
		{name: "reset before the reply", st: opportunistic, sv: server{conn: reset}, want: unreachable},
		{name: "closed before the reply", st: opportunistic, sv: server{conn: raw("")}, want: unreachable},
		{name: "half a head", st: opportunistic, sv: server{conn: raw("HTTP/1.1 200 OK\r\nConte")}, want: unreachable},
		{name: "no HTTP", st: opportunistic, sv: server{conn: raw("220 ready\r\n")}, want: unreachable},
		{name: "name does not exist", st: opportunistic, sv: server{refused: true}, dial: notFound, want: unreachable,
			cause: func(err error) bool { e, ok := errors.AsType[*net.DNSError](err); return ok && e.IsNotFound }},
		{name: "TLS to a plain port", st: secure(own), sv: server{handler: good}, want: unreachable},
		{name: "plain to a TLS port", st: opportunistic, sv: server{conn: func(c net.Conn) { c.Read(make([]byte, 1)) }, tls: own.Server(h1, "127.0.0.1")},
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
		{name: "cut body, not opportunistic", st: policy.StreamType{Retry: retry(2)}, sv: server{conn: cut},
			want: "CRE POL CNG CON rx(SOM) DIS POL CNG CON rx(SOM) DIS POL CNG CON rx(SOM) DIS UNR ARF"},
		{name: "no reply", limit: 50 * time.Millisecond, st: on1(opportunistic, 1), sv: server{conn: func(c net.Conn) { io.Copy(io.Discard, c) }},
			want: "CRE POL CNG UNR POL CNG UNR ARF", cause: func(err error) bool { return errors.Is(err, transport.ErrTimeout) }},
	} {
		run := func(t *testing.T, st policy.StreamType, sv server) {
			addr := sv.start(t)
			tr := &teststream.Trace{On: teststream.Actions{"CRE": teststream.RequestTx}}
			for k, f := range tt.on {
				tr.On[k] = f
			}
			if tt.tx != "" {
				tr.On["CNG"] = func(s *runtime.Stream) policy.Result {
					s.SetHandlers(runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
						tr.Note(s, "tx")
						return copy(buf, tt.tx), policy.FlagSOM | policy.FlagEOM, policy.OK
					}})
					return policy.OK
				}
			}
			var waits atomic.Int32
			c, s := newStream(t, st, addr, tr, runtime.Options{DialContext: tt.dial, ConnectTimeout: tt.limit, Hooks: runtime.Hooks{
				Wait: func(context.Context, *runtime.Stream, time.Duration) { waits.Add(1) }}})
			want := tt.want
			awaitEvents(t, tr, len(strings.Fields(want)))
			if !tt.prefix {
				tr.Settle(t, s)
			}
			err := s.Err()
			teststream.Shutdown(t, c)
			got := tr.String()
			t.Logf("got %s (%v)", got, err)
			if tt.prefix {
				if !strings.HasPrefix(got, want) {
					t.Errorf("\n got %s\nwant %s ...", got, want)
				}
				return
			}
			if want += " TMO TMO DES"; got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
			if n := strings.Count(want, "UNR POL") + strings.Count(want, "DIS POL"); int(waits.Load()) != n {
				t.Errorf("%d waits for a retry, want %d", waits.Load(), n)
			}
			failed := strings.Contains(want, "ARF") || !strings.Contains(want, "ACK") && !strings.Contains(want, "NAK")
			if failed != (err != nil) || tt.cause != nil && !tt.cause(err) {
				t.Errorf("Err returns %v (%T)", err, err)
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
						t.Errorf("a request of %s", r.Proto)
					}
					h.ServeHTTP(w, r)
				})
				run(t, st, sv)
			})
		}
	}
}
