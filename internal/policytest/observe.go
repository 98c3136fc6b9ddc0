package policytest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/dummy"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// An observation is the observed behaviour of a stream, with its streamtype.
type observation struct {
	st     *policy.StreamType
	trust  string
	proxy  string
	values []policy.Value // metadata, in the order of the streamtype
	states string         // under the fault

	mu      sync.Mutex
	address string   // dialed address
	request *request // request received by the server
}

// A request is a request that a server received.
type request struct {
	method, url string
	headers     map[string]string // by lower-case name
}

func (o *observation) client() bool {
	c := o.st.Carrier()
	return !o.st.Server && c != policy.ProtocolSink && c != policy.ProtocolFile
}

// tls reports whether the connection uses TLS: the scheme of the endpoint may turn it off.
func (o *observation) tls() bool {
	if e, err := policy.NewEndpoint(o.st, make([]policy.Use, len(o.st.Metadata))); err == nil {
		if t, err := e.Resolve(o.values); err == nil {
			return t.TLS
		}
	}
	return o.st.TLS
}

func (o *observation) dialed() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.address
}

func (o *observation) requested() *request {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.request == nil {
		return &request{}
	}
	return o.request
}

// topic returns a topic after insertion of metadata.
func (o *observation) topic(of func(*policy.MQTT) string) (any, bool) {
	if o.st.MQTT == nil || of(o.st.MQTT) == "" {
		return "", false
	}
	t, err := policy.ParseTopic(of(o.st.MQTT), o.st.Metadata, make([]policy.Use, len(o.st.Metadata)))
	if err != nil {
		return "", false // the stream could not be created
	}
	return t.Expand(o.values), true
}

// givesUp marks the end of a series of attempts.
const givesUp = "gives up"

// maxWaits is the maximum number of waits in an expectation.
const maxWaits = 16

// retry returns the waits before the next attempts: those of the policy and one repetition
// of the last, or fewer if the stream gives up earlier.
func (o *observation) retry() []string {
	r := o.st.Retry
	waits, most := []string{}, 1
	if r != nil {
		most = max(most, len(r.Backoff)) + 1
	}
	for i := uint16(0); ; i++ {
		if !r.Conceals(i + 1) {
			return append(waits, givesUp)
		}
		if int(i) >= maxWaits || int(i) >= most && r.Conceal >= maxWaits {
			return waits
		}
		waits = append(waits, wait(r, i))
	}
}

// wait returns a wait without jitter and with maximum jitter. The actual jitter is slightly
// less: the largest random number is 65535 of 65536.
func wait(r *policy.Retry, tries uint16) string {
	least := r.Delay(tries, 0)
	jitter := (r.Delay(tries, 65535) - least).Milliseconds()
	if jitter == 0 {
		return least.String()
	}
	limit := (jitter*65536 + 65534) / 65535 // rounded up
	return fmt.Sprintf("%v to %v", least, least+time.Duration(limit)*time.Millisecond)
}

// patience is the time limit for a stream to make its request.
const patience = 30 * time.Second

// observe creates a stream and connects it to a server that gives no useful answer. The
// stream follows the policy, except that it trusts this server and uses h2 instead of h3,
// whose requests are equal.
func (o *observation) observe(ctx context.Context, p *policy.Policy, metadata []Item, transports []transport.Transport) error {
	ca := sharedAuthority()
	st := *o.st
	st.SOCKS5Proxy = ""
	if st.Protocol == policy.ProtocolH3 {
		st.Protocol = policy.ProtocolH2
	}
	if st.TLS {
		st.TrustStore = &policy.TrustStore{Name: "test", Stack: []*policy.Cert{{Name: "test", DER: string(ca.Cert.Raw)}}}
	}
	one := policy.Policy{StreamTypes: slices.Clone(p.StreamTypes)}
	for i, other := range one.StreamTypes {
		if other.Name == st.Name {
			one.StreamTypes[i] = &st
		} else if other.Protocol != st.Protocol && st.Rideshare != "" {
			c := *other
			if c.Protocol == policy.ProtocolH3 {
				c.Protocol = policy.ProtocolH2
			}
			one.StreamTypes[i] = &c
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done := make(chan error, 8)
	tell := func(err error) {
		select {
		case done <- err:
		default:
		}
	}
	server, err := o.serve(&st, ca, func() { tell(nil) })
	if err != nil {
		return err
	}
	defer server.Close()
	c, err := runtime.NewContext(&one, runtime.Options{
		Transports:  transports,
		Credentials: dummy.Credentials{CA: ca},
		Cookies:     dummy.Cookies{},
		Logger:      slog.New(slog.DiscardHandler),
		Jitter:      func() uint16 { return 0 },
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			o.mu.Lock()
			if o.address = address; network == "unix" {
				o.address = "+" + address
			}
			o.mu.Unlock()
			if st.HTTP == nil {
				tell(nil)
				return nil, errors.New("the test ends here")
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", server.Addr)
		},
	})
	if err != nil {
		return err
	}
	defer c.Shutdown(context.WithoutCancel(ctx))
	h := runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		if state == runtime.StateUnreachable || state == runtime.StateDisconnected {
			tell(fmt.Errorf("no request: %w", cmp.Or(s.Err(), errRefused)))
		}
		return runtime.OK
	}}
	if st.Sends() {
		h.Tx = func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			return copy(buf, payload), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
		}
	}
	s, err := c.NewStream(st.Name, h)
	if err != nil {
		return err
	}
	for _, m := range metadata {
		if err := s.SetMetadata(m.Name, m.Value); err != nil {
			return &metadataError{m, err}
		}
	}
	if err := s.RequestTxLen(uint64(len(payload))); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("no request in %v", patience)
	}
}

// errRefused is returned when the server rejects the request before it reaches the handler.
var errRefused = errors.New("the server refused it: it may be too long")

// payload is what streams send.
const payload = "sspolicy test"

// A metadataError reports a value that the runtime rejects.
type metadataError struct {
	item Item
	err  error
}

func (e *metadataError) Error() string { return e.err.Error() }
func (e *metadataError) Unwrap() error { return e.err }

// sharedAuthority is the authority of all servers of the process.
var sharedAuthority = sync.OnceValue(func() *testcert.Authority { return testcert.New("sspolicy test") })

// A server is an HTTP server with its address.
type server struct {
	*http.Server
	Addr string
	done chan struct{}
}

func (s *server) Close() error {
	err := s.Server.Close()
	<-s.done
	return err
}

// serve starts a server that records the first request, and then calls got.
func (o *observation) serve(st *policy.StreamType, ca *testcert.Authority, got func()) (*server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{Addr: ln.Addr().String(), done: make(chan struct{})}
	secure := o.tls()
	s.Server = &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		if o.request == nil {
			o.request = newRequest(r, st, secure)
		}
		o.mu.Unlock()
		got()
		w.WriteHeader(http.StatusNoContent)
	})}
	if secure {
		protos := []string{"h2", "http/1.1"}
		if st.Protocol == policy.ProtocolH1 || st.Protocol == policy.ProtocolWS {
			protos = protos[1:]
		}
		config := ca.Server(protos)
		config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c := ca.Certify(testcert.Key(), time.Now().Add(-time.Hour), hostOf(o, hello))
			return &c, nil
		}
		config.Certificates = nil
		s.TLSConfig = config
		ln = tls.NewListener(ln, config)
	} else {
		s.Protocols = new(http.Protocols)
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
	}
	go func() {
		defer close(s.done)
		s.Serve(ln)
	}()
	return s, nil
}

// hostOf returns the host that the certificate of the server must be valid for.
func hostOf(o *observation, hello *tls.ClientHelloInfo) string {
	if hello.ServerName != "" {
		return hello.ServerName
	}
	host, _, err := net.SplitHostPort(o.dialed())
	if err != nil {
		return "localhost"
	}
	return host
}

// ownHeaders depend on the connection, or differ each time.
var ownHeaders = []string{"connection", "content-length", "sec-websocket-key", "sec-websocket-version", "te", "trailer", "transfer-encoding", "upgrade", "x-amz-date"}

func newRequest(r *http.Request, st *policy.StreamType, secure bool) *request {
	scheme := "http"
	if st.Protocol == policy.ProtocolWS {
		scheme = "ws"
	}
	if secure {
		scheme += "s"
	}
	u := url.URL{Scheme: scheme, Host: r.Host}
	q := &request{method: r.Method, url: u.String() + r.RequestURI, headers: map[string]string{}}
	if !strings.HasPrefix(r.RequestURI, "/") {
		q.url = r.RequestURI
	}
	for name, values := range r.Header {
		if name = strings.ToLower(name); !slices.Contains(ownHeaders, name) {
			q.headers[name] = strings.Join(values, ", ")
		}
	}
	if strings.HasPrefix(q.headers["authorization"], "AWS4-") {
		delete(q.headers, "authorization")
	}
	if boundary, ok := strings.CutPrefix(q.headers["content-type"], "multipart/"); ok {
		kind, _, _ := strings.Cut(boundary, ";")
		q.headers["content-type"] = "multipart/" + kind
	}
	return q
}
