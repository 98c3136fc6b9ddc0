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
	"net/netip"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// fetched are the events of a successful GET by RequestTx.
const fetched = "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS"

// protocols are those that work without TLS against a server of serveBoth.
var protocols = []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2}

// handlers returns handlers that record states and payload.
func handlers(tr *teststream.Trace) runtime.Handlers {
	return runtime.Handlers{
		State: tr.State,
		Rx: func(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
			tr.Keep(buf)
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

// awaitEvents waits until n events have been recorded.
func awaitEvents(t *testing.T, tr *teststream.Trace, n int) {
	t.Helper()
	if !tr.Await(func() bool { return len(tr.Events()) >= n }) {
		t.Fatalf("fewer than %d events: %s", n, tr)
	}
}

// sender returns a Tx that sends pieces, the last one with FlagEOM.
func sender(pieces ...string) func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result) {
	i := 0
	return func(_ *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
		n := copy(buf, pieces[i])
		var flags policy.Flags
		if i == 0 {
			flags |= policy.FlagSOM
		}
		if i++; i == len(pieces) {
			flags |= policy.FlagEOM
		}
		return n, flags, policy.OK
	}
}

// A server is either a handler, a function for each connection, or an address that refuses
// connections.
type server struct {
	handler http.Handler
	conn    func(net.Conn)
	refused bool
	tls     *tls.Config
}

// start runs the server and returns its address.
func (sv server) start(t *testing.T) netip.AddrPort {
	t.Helper()
	if sv.refused {
		return testserver.Refused(t)
	}
	ln := testserver.Listen(t)
	addr := testserver.Addr(ln)
	hs := &http.Server{Handler: sv.handler}
	if sv.tls != nil {
		ln = tls.NewListener(ln, sv.tls)
		hs.TLSConfig, hs.Protocols = sv.tls, testserver.Protocols(true, false)
		hs.Protocols.SetHTTP2(true)
	}
	if sv.handler != nil {
		testserver.HTTP(t, ln, hs)
	} else {
		testserver.Serve(t, ln, sv.conn)
	}
	return addr
}

// serve runs a server of h1 without TLS.
func serve(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	return server{handler: h}.start(t)
}

// serveH2C runs a server of h2 without TLS that does not speak h1.
func serveH2C(t *testing.T, h http.Handler) netip.AddrPort {
	t.Helper()
	ln := testserver.Listen(t)
	testserver.HTTP(t, ln, &http.Server{Handler: h, Protocols: testserver.Protocols(false, true)})
	return testserver.Addr(ln)
}

// serveBoth runs a server of h1 and h2 without TLS, and returns its URL.
func serveBoth(t *testing.T, h http.Handler) string {
	t.Helper()
	ln := testserver.Listen(t)
	testserver.HTTP(t, ln, &http.Server{Handler: h, Protocols: testserver.Protocols(true, true)})
	return "http://" + ln.Addr().String()
}

// serveUnix runs a server of h1 without TLS, and returns the path of its socket.
func serveUnix(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	ln := testserver.ListenUnix(t)
	testserver.HTTP(t, ln, &http.Server{Handler: h})
	return ln.Addr().String()
}

// raw reads the header of a request, answers with the text, and closes the
// connection.
func raw(answer string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, answer)
		}
	}
}

func status(code int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		io.WriteString(w, body)
	})
}

func redirect(to string) http.Handler { return http.RedirectHandler(to, http.StatusFound) }

var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Write(body)
})

// newPolicy returns a context for the streamtypes.
func newPolicy(t testing.TB, types []*policy.StreamType, o runtime.Options) *runtime.Context {
	t.Helper()
	if o.Transports == nil {
		o.Transports = []transport.Transport{sshttp.New()}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return teststream.NewContext(t, o, types...)
}

// newContext returns a context with one streamtype, "s".
func newContext(t *testing.T, st policy.StreamType, addr netip.AddrPort, o runtime.Options) *runtime.Context {
	t.Helper()
	st.Name = "s"
	if st.Endpoint == "" {
		st.Endpoint = addr.Addr().String()
	}
	if st.Port == 0 {
		st.Port = addr.Port()
	}
	if st.HTTP == nil {
		st.HTTP = &policy.HTTP{}
	}
	return newPolicy(t, []*policy.StreamType{&st}, o)
}

// contextOf returns a context whose streamtypes use the protocol and the URL.
func contextOf(t *testing.T, p policy.Protocol, url string, types ...policy.StreamType) *runtime.Context {
	t.Helper()
	var all []*policy.StreamType
	for _, st := range types {
		st.Protocol, st.Endpoint, st.Opportunistic = p, url, true
		all = append(all, &st)
	}
	return newPolicy(t, all, runtime.Options{})
}

// newStream returns a stream that records its events in tr, and its context.
func newStream(t *testing.T, st policy.StreamType, addr netip.AddrPort, tr *teststream.Trace, o runtime.Options) (*runtime.Context, *runtime.Stream) {
	t.Helper()
	c := newContext(t, st, addr, o)
	s, err := c.NewStream("s", handlers(tr))
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

// fetch makes a stream with the handlers, lets prepare change it, and runs one
// transaction to its end.
func fetch(t *testing.T, st policy.StreamType, addr netip.AddrPort, h runtime.Handlers, prepare func(*runtime.Stream)) (*teststream.Trace, *runtime.Stream) {
	t.Helper()
	// In CREATING, so that there is one transaction even if prepare makes a request.
	tr := &teststream.Trace{On: teststream.Actions{"CRE": func(s *runtime.Stream) policy.Result {
		s.SetHandlers(h)
		if prepare != nil {
			prepare(s)
		}
		return teststream.RequestTx(s)
	}}}
	st.Opportunistic = true
	_, s := newStream(t, st, addr, tr, runtime.Options{})
	tr.AwaitEnd(t, "DIS", "ARF")
	return tr, s
}

// get makes one request and returns the body of the response.
func get(t *testing.T, c *runtime.Context, o ...runtime.CallOption) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := c.Fetch(ctx, "s", o...)
	if err != nil {
		return "", err
	}
	return string(r.Body), nil
}

func isStatus(code int) func(error) bool {
	return func(err error) bool { e, ok := errors.AsType[*sshttp.StatusError](err); return ok && e.Code == code }
}

func isRedirect(err error) bool { _, ok := errors.AsType[*sshttp.RedirectError](err); return ok }

func isTLS(err error) bool { _, ok := errors.AsType[*tls.CertificateVerificationError](err); return ok }
