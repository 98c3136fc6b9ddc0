//go:build linux

package conformance

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/cookies"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/schema"
)

// A keyRow shows the effect of a key over HTTP: it compares what the server and the stream
// observe with and without the key.
type keyRow struct {
	key  string // section and name
	by   string // protocols, of "h1 h2"; "" means both
	both string // JSON members of the streamtype, with and without the key
	with string // more of them with the key
	top  string // JSON members of the policy, with and without the key
	sect string // more of them with the key

	set   map[string]string // metadata
	times int               // number of transactions; 0 means 1

	saw  string // observed only with the key; "" means that there is no difference
	lost string // observed only without the key
}

// elsewhere maps keys that do not concern an HTTP transaction to their tests.
var elsewhere = map[string]string{
	"retry.svalidping":    "runtime/http, TestValidity",
	"retry.svalidhup":     "runtime/http, TestValidity",
	"s.ws_subprotocol":    "runtime/ws",
	"s.ws_binary":         "runtime/ws",
	"s.local_sink":        "runtime/sink",
	"s.plugins":           "for servers only",
	"metrics.name":        "no effect: no figures are reported",
	"metrics.us_schedule": "no effect",
	"metrics.us_halflife": "no effect",
	"metrics.min_outlier": "no effect",
	"metrics.report":      "no effect",
	"s.swake_validity":    "runtime/transport and runtime/mqtt, Options.Wake",
}

const post = `"http_method":"POST","http_url":"/echo"`

var keyRows = []keyRow{
	{key: ".release", sect: `"release":"01234567"`},
	{key: ".product", sect: `"product":"p"`},
	{key: ".schema-version", sect: `"schema-version":1`},
	{key: ".$schema", sect: `"$schema":"x"`},
	{key: ".x-sspolicy", sect: `"x-sspolicy":{}`},
	{key: ".via-socks5", sect: `"via-socks5":"SOCKS"`, saw: "socks: SERVER"},
	{key: "retry.backoff", both: `"http_url":"/503","retry":"r"`, top: `"retry":[{"r":{"backoff":[20],"conceal":1,"jitterpc":1}}]`,
		sect: `"retry":[{"r":{"backoff":[7],"conceal":1,"jitterpc":1}}]`, saw: "wait: 7ms"},
	{key: "retry.conceal", both: `"http_url":"/503","retry":"r"`, top: `"retry":[{"r":{"backoff":[7]}}]`,
		sect: `"retry":[{"r":{"backoff":[7],"conceal":2}}]`, saw: "UNR POL CNG UNR POL CNG UNR ARF"},
	{key: "retry.jitterpc", both: `"http_url":"/503","retry":"r"`, top: `"retry":[{"r":{"backoff":[100],"conceal":1}}]`,
		sect: `"retry":[{"r":{"backoff":[100],"conceal":1,"jitterpc":50}}]`, saw: "wait: 149ms"},
	{key: "trust_stores.name", both: `"tls":true,"port":TLSPORT,"tls_trust_store":"wrong"`, with: `"tls_trust_store":"own"`, saw: " ACK"},
	{key: "trust_stores.stack", both: `"tls":true,"port":TLSPORT,"tls_trust_store":"own"`, sect: `"trust_stores":[{"name":"own","stack":["other"]},{"name":"wrong","stack":["other"]}]`,
		saw: "UNR ARF", lost: " ACK"},
	{key: "auth.name", both: `"http_auth_header":"authorization:"`, with: `"use_auth":"b"`, saw: "Authorization: token1", lost: "Authorization: token0"},
	{key: "auth.type", both: `"http_auth_header":"x-auth:","use_auth":"b","aws_region":"m","aws_service":"n",` + awsMetadata, sect: `"auth":[{"name":"b","type":"sigv4","blob":1}]`,
		set: awsValues, saw: "Authorization: AWS4-HMAC-SHA256"},
	{key: "auth.streamtype", both: `"http_auth_header":"authorization:","use_auth":"b"`, sect: `"auth":[{"name":"b","type":"bearer","streamtype":"s","blob":1}]`},
	{key: "auth.blob", both: `"http_auth_header":"authorization:","use_auth":"b"`, sect: `"auth":[{"name":"b","type":"bearer","blob":2}]`, saw: "Authorization: token2"},
	{key: "s.endpoint", with: `"endpoint":"localhost"`, saw: "Host: localhost"},
	{key: "s.via-socks5", with: `"via-socks5":"SOCKS"`, saw: "socks: SERVER"},
	{key: "s.protocol", by: "h1", with: `"protocol":"h2"`, saw: "HTTP/2.0"},
	{key: "s.port", with: `"port":PORT2`, saw: "Host: SECOND"},
	{key: "s.tls", both: `"port":TLSPORT,"tls_trust_store":"own"`, with: `"tls":true`, saw: "tls: "},
	{key: "s.client_cert", both: `"tls":true,"port":TLSPORT,"tls_trust_store":"own"`, with: `"client_cert":0`, saw: "tls: client certificate 77"},
	{key: "s.opportunistic", both: `"http_url":"/cut","retry":"r"`, top: `"retry":[{"r":{"backoff":[5],"conceal":1}}]`,
		with: `"opportunistic":true`, lost: "DIS POL CNG"},
	{key: "s.nailed_up", with: `"nailed_up":true`, saw: "CRE CNG"},
	{key: "s.allow_redirects", both: `"http_url":"/302"`, with: `"allow_redirects":true`, saw: "GET /there"},
	{key: "s.urgent_tx", with: `"urgent_tx":true`},
	{key: "s.urgent_rx", with: `"urgent_rx":true`},
	{key: "s.attr_priority", with: `"attr_priority":3`, saw: "socket: priority 3"},
	{key: "s.attr_low_latency", with: `"attr_low_latency":true`, saw: "tos 0x10"},
	{key: "s.attr_high_throughput", with: `"attr_high_throughput":true`, saw: "tos 0x8"},
	{key: "s.attr_high_reliability", with: `"attr_high_reliability":true`, saw: "tos 0x4"},
	{key: "s.attr_low_cost", with: `"attr_low_cost":true`}, // Linux reserves that bit for ECN
	{key: "s.long_poll", by: "h2", with: `"long_poll":true`},
	{key: "s.retry", both: `"http_url":"/503"`, with: `"retry":"r"`, top: `"retry":[{"r":{"backoff":[7],"conceal":1}}]`, saw: "UNR POL CNG UNR ARF"},
	{key: "s.timeout_ms", both: `"http_url":"/slow"`, with: `"timeout_ms":20`, saw: "TMO"},
	{key: "s.perf", with: `"perf":true`, saw: "CNG perf CON"},
	{key: "s.tls_trust_store", both: `"tls":true,"port":TLSPORT`, with: `"tls_trust_store":"own"`, saw: " ACK"},
	{key: "s.proxy_buflen", with: `"proxy_buflen":4096`},
	{key: "s.proxy_buflen_rxflow_on_above", with: `"proxy_buflen_rxflow_on_above":4096`},
	{key: "s.proxy_buflen_rxflow_off_below", with: `"proxy_buflen_rxflow_off_below":4096`},
	{key: "s.client_buflen", with: `"client_buflen":4096`},
	{key: "s.client_buflen_rxflow_on_above", with: `"client_buflen_rxflow_on_above":4096`},
	{key: "s.client_buflen_rxflow_off_below", with: `"client_buflen_rxflow_off_below":4096`},
	{key: "s.metadata", with: `"metadata":[{"m":"x-m:"},{"n":""}]`, set: map[string]string{"m": "value"}, saw: "X-M: value"},
	{key: "s.http_resp_map", both: `"http_url":"/404"`, with: `"http_resp_map":[{"404":1404}]`, saw: "CNG USER_1404 CON"},
	{key: "s.http_auth_header", with: `"http_auth_header":"x-auth:"`, saw: "X-Auth: token0"},
	{key: "s.http_dsn_header", with: `"http_dsn_header":"x-dsn:"`, saw: "X-Dsn: serial"},
	{key: "s.http_fwv_header", with: `"http_fwv_header":"x-fwv:"`, saw: "X-Fwv: version"},
	{key: "s.http_devtype_header", with: `"http_devtype_header":"x-type:"`, saw: "X-Type: type"},
	{key: "s.http_auth_preamble", both: `"http_auth_header":"x-auth:"`, with: `"http_auth_preamble":"Bearer "`, saw: "X-Auth: Bearer token0"},
	{key: "s.http_no_content_length", both: post, with: `"http_no_content_length":true`, saw: "length -1", lost: "length 7"},
	{key: "s.rideshare", both: post + `,"http_multipart_name":"first"`, with: `"rideshare":"mate"`, saw: `name="second"`},
	{key: "s.payload_fmt", with: `"payload_fmt":"x"`},
	{key: "s.http_method", with: `"http_method":"DELETE"`, saw: "DELETE /"},
	{key: "s.http_url", with: `"http_url":"/x?y=${m}"`, both: `"metadata":[{"m":""}]`, set: map[string]string{"m": "value"}, saw: "GET /x?y=value"},
	{key: "s.nghttp2_quirk_end_stream", by: "h2", with: `"nghttp2_quirk_end_stream":true`},
	{key: "s.h2q_oflow_txcr", by: "h2", with: `"h2q_oflow_txcr":true`},
	{key: "s.http_multipart_name", both: post, with: `"http_multipart_name":"first"`, saw: `name="first"`},
	{key: "s.http_multipart_filename", both: post + `,"http_multipart_name":"first"`, with: `"http_multipart_filename":"f.txt"`, saw: `filename="f.txt"`},
	{key: "s.http_mime_content_type", both: post + `,"http_multipart_name":"first"`, with: `"http_mime_content_type":"text/x"`, saw: "Content-Type: text/x"},
	{key: "s.http_www_form_urlencoded", both: post, with: `"http_www_form_urlencoded":true`, saw: "Content-Type: application/x-www-form-urlencoded"},
	{key: "s.http_expect", both: `"http_url":"/404"`, with: `"http_expect":404`, saw: " ACK"},
	{key: "s.http_cookies", both: `"http_url":"/cookie"`, with: `"http_cookies":true`, times: 2, saw: "Cookie: a=1"},
	{key: "s.http_fail_redirect", both: `"http_url":"/302"`, with: `"http_fail_redirect":true`, saw: "captive portal: true"},
	{key: "s.http_multipart_ss_in", both: `"http_url":"/parts"`, with: `"http_multipart_ss_in":true`, lost: "--xx"},
	{key: "s.use_auth", both: `"http_auth_header":"x-auth:"`, with: `"use_auth":"b"`, saw: "X-Auth: token1"},
	{key: "s.aws_region", both: `"use_auth":"v4","aws_region":"n","aws_service":"n",` + awsMetadata, with: `"aws_region":"m"`, set: awsValues, saw: "/eu-x/svc/aws4_request"},
	{key: "s.aws_service", both: `"use_auth":"v4","aws_region":"m","aws_service":"m",` + awsMetadata, with: `"aws_service":"n"`, set: awsValues, saw: "/eu-x/svc/aws4_request"},
	{key: "s.direct_proto_str", with: `"direct_proto_str":true`, set: map[string]string{"x-direct": "value"}, saw: "X-Direct: value"},
}

const awsMetadata = `"metadata":[{"m":""},{"n":""},{"date":"x-amz-date:"},{"sum":"x-amz-content-sha256:"}]`

var awsValues = map[string]string{"m": "eu-x", "n": "svc", "date": "20150830T123600Z", "sum": "UNSIGNED-PAYLOAD"}

// TestKeys runs each row over each protocol, and checks that each key that concerns HTTP
// has a row.
func TestKeys(t *testing.T) {
	rows := map[string]bool{}
	for _, r := range keyRows {
		rows[r.key] = true
		if elsewhere[r.key] != "" {
			t.Errorf("%s has a row and is in elsewhere", r.key)
		}
	}
	sections := []schema.Section{schema.Top, schema.Retry, schema.Certs, schema.TrustStores, schema.Metrics, schema.Auth, schema.Streams}
	known := map[string]bool{}
	for _, section := range sections {
		for _, k := range schema.Keys(section) {
			key := string(section) + "." + k.Name
			known[key] = true
			isSection := section == schema.Top && slices.Contains(sections, schema.Section(k.Name))
			if k.Role == "server" || !k.Serves("h1") && !k.Serves("h2") || isSection {
				continue
			}
			if !rows[key] && elsewhere[key] == "" {
				t.Errorf("%s has no row", key)
			}
		}
	}
	for key := range maps.Keys(elsewhere) {
		rows[key] = true
	}
	for key := range rows {
		if !known[key] {
			t.Errorf("%s is not a key", key)
		}
	}
	w := newKeyWorld(t)
	for _, r := range keyRows {
		for _, by := range strings.Fields(cmp.Or(r.by, "h1 h2")) {
			t.Run(r.key+" over "+by, func(t *testing.T) {
				without := w.run(t, r, by, false)
				with := w.run(t, r, by, true)
				if r.saw == "" && r.lost == "" && with != without {
					t.Errorf("with the key\n%s\nwithout\n%s", with, without)
				}
				if r.saw != "" && (!strings.Contains(with, r.saw) || strings.Contains(without, r.saw)) {
					t.Errorf("the key does not cause %q: with the key\n%s\nwithout\n%s", r.saw, with, without)
				}
				if r.lost != "" && (strings.Contains(with, r.lost) || !strings.Contains(without, r.lost)) {
					t.Errorf("the key does not prevent %q: with the key\n%s\nwithout\n%s", r.lost, with, without)
				}
			})
		}
	}
}

// A keyWorld runs the servers of the rows.
type keyWorld struct {
	own, other, clients                     *testcert.Authority
	plain, second, secure, h2c, h2c2, socks netip.AddrPort

	mu   sync.Mutex
	seen []string
}

// see records an observation of a server or hook.
func (w *keyWorld) see(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, fmt.Sprintf(format, args...))
}

func newKeyWorld(t *testing.T) *keyWorld {
	w := &keyWorld{own: testcert.New("own"), other: testcert.New("other"), clients: testcert.New("clients")}
	serve := func(protocols *http.Protocols) netip.AddrPort {
		ln := testserver.Listen(t)
		testserver.HTTP(t, ln, &http.Server{Handler: w, Protocols: protocols})
		return testserver.Addr(ln)
	}
	h1, h2c := testserver.Protocols(true, false), testserver.Protocols(false, true)
	w.plain, w.second, w.h2c, w.h2c2 = serve(h1), serve(h1), serve(h2c), serve(h2c)
	config := w.own.Server([]string{"h2", "http/1.1"}, "127.0.0.1")
	config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, w.clients.Pool()
	ln := testserver.Listen(t)
	w.secure = testserver.Addr(ln)
	testserver.HTTP(t, tls.NewListener(ln, config), &http.Server{Handler: w, TLSConfig: config})
	w.socks = testserver.ServeTCP(t, w.proxy)
	return w
}

// proxy is a SOCKS5 proxy (RFC 1928) for IPv4 addresses.
func (w *keyWorld) proxy(c net.Conn) {
	b := make([]byte, 300)
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return
	}
	io.ReadFull(c, b[:b[1]])
	c.Write([]byte{5, 0})
	if _, err := io.ReadFull(c, b[:10]); err != nil || b[3] != 1 {
		return
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[8])<<8|uint16(b[9]))
	to, err := net.Dial("tcp", addr.String())
	if err != nil {
		return
	}
	defer to.Close()
	w.see("socks: %s", addr)
	c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	go func() { io.Copy(to, c); to.Close() }()
	io.Copy(c, to)
}

// ServeHTTP records the request and answers it.
func (w *keyWorld) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\nHost: %s\nlength %d\n", r.Method, r.RequestURI, r.Proto, r.Host, r.ContentLength)
	if r.TLS != nil {
		fmt.Fprintf(&b, "tls: %s\n", r.TLS.NegotiatedProtocol)
		for _, c := range r.TLS.PeerCertificates {
			fmt.Fprintf(&b, "tls: client certificate %v\n", c.SerialNumber)
		}
	}
	r.Header.Write(&b)
	b.Write(body)
	w.see("%s", &b)
	switch r.URL.Path {
	case "/404":
		rw.WriteHeader(404)
	case "/503":
		rw.WriteHeader(503)
	case "/302":
		http.Redirect(rw, r, "/there", http.StatusFound)
	case "/cookie":
		rw.Header().Set("Set-Cookie", "a=1")
	case "/cut":
		rw.Header().Set("Content-Length", "100")
		io.WriteString(rw, "cut")
		rw.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case "/slow":
		rw.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(600 * time.Millisecond): // 20 ms would do
		}
	case "/parts":
		rw.Header().Set("Content-Type", "multipart/form-data; boundary=xx")
		io.WriteString(rw, "--xx\r\nContent-Type: text/plain\r\n\r\npart\r\n--xx--\r\n")
		return
	}
	io.WriteString(rw, "answer")
}

// run runs the stream of a row, and returns the observations.
func (w *keyWorld) run(t *testing.T, r keyRow, by string, with bool) string {
	t.Helper()
	w.mu.Lock()
	w.seen = nil
	w.mu.Unlock()
	plain, second := w.plain, w.second
	if by == "h2" || strings.Contains(r.with, `"protocol":"h2"`) && with {
		plain, second = w.h2c, w.h2c2
	}
	text := w.policy(t, r, by, with, strings.NewReplacer("SERVER", plain.String(), "SOCKS", w.socks.String(), "TLSPORT", fmt.Sprint(w.secure.Port()),
		"PORT2", fmt.Sprint(second.Port()), "PORT", fmt.Sprint(plain.Port())))
	p, err := sspolicy.Parse("policy", text, sspolicy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	creds := new(credentials.Memory)
	for i := range 4 {
		creds.SetBlob(policy.BlobAuth, i, fmt.Sprint("token", i))
	}
	creds.SetBlob(policy.BlobDeviceSerial, 0, "serial")
	creds.SetBlob(policy.BlobFirmwareVersion, 0, "version")
	creds.SetBlob(policy.BlobDeviceType, 0, "type")
	creds.SetClientCertificate(0, w.clients.Client(77))
	for i := range 2 {
		creds.SetBlob(policy.BlobAWSKeyID, i, "id")
		creds.SetBlob(policy.BlobAWSSecret, i, "secret")
	}
	var conn net.Conn
	c, err := runtime.NewContext(p.Policy, runtime.Options{
		Transports: []transport.Transport{sshttp.New(sshttp.SigV4)}, Credentials: creds, Cookies: cookies.New(),
		Jitter: func() uint16 { return 65535 },
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil {
				w.mu.Lock()
				conn = c
				w.mu.Unlock()
			}
			return c, err
		},
		Hooks: runtime.Hooks{Wait: func(_ context.Context, _ *runtime.Stream, d time.Duration) { w.see("wait: %v", d) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer teststream.Shutdown(t, c)
	left := max(r.times, 1)
	var events []string
	done := make(chan struct{})
	over := sync.OnceFunc(func() { close(done) })
	sent := false
	tr := newTrace(nil)
	h := tr.handlers()
	note := h.State
	end := func() { // end of a transaction
		if left--; left <= 0 {
			over()
		}
	}
	h.State = func(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
		events = append(events, teststream.Name(state))
		switch state {
		case runtime.StateCreating:
			for name, value := range r.set {
				if err := s.SetMetadata(name, value); err != nil && !errors.Is(err, runtime.ErrUnknownMetadata) {
					w.see("%s: %v", name, err)
				}
			}
		case runtime.StateConnected:
			w.mu.Lock()
			sc := conn.(syscall.Conn)
			w.mu.Unlock()
			raw := teststream.Must(sc.SyscallConn())
			raw.Control(func(fd uintptr) {
				priority, _ := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PRIORITY)
				tos, _ := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TOS)
				w.see("socket: priority %d, tos %#x", priority, tos)
			})
			s.StartTimeout(0)
		case runtime.StateDisconnected:
			if s.Err() == nil {
				end()
			} else if s.StreamType().Opportunistic || s.StreamType().Retry == nil || len(events) > 8 {
				left = 1
				end()
				note(s, state, arg)
				return runtime.DestroyMe
			}
		case runtime.StateAllRetriesFailed:
			left = 1
			end()
		}
		return note(s, state, arg)
	}
	h.Rx = func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
		if flags&runtime.FlagPerfJSON != 0 {
			events = append(events, "perf")
		} else {
			w.see("rx: %s", buf)
		}
		return runtime.OK
	}
	h.Tx = func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
		if sent && s.StreamType().Rideshare == "" {
			return 0, 0, runtime.TxDontSend
		}
		sent = true
		return copy(buf, "payload"), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
	}
	s, err := c.NewStream("s", h)
	if err != nil {
		t.Fatal(err)
	}
	for range max(r.times, 1) {
		before := tr.Count("DIS")
		if s.StreamType().HTTP.Method == "POST" {
			s.RequestTxLen(7)
		} else {
			s.RequestTx()
		}
		if !tr.Await(func() bool { return tr.Count("DIS") > before || tr.Count("ARF") > 0 }) {
			t.Fatalf("no end: %s", tr)
		}
	}
	<-done
	w.see("captive portal: %v", s.CaptivePortal())
	teststream.Shutdown(t, c)
	w.mu.Lock()
	defer w.mu.Unlock()
	out := "events: " + strings.Join(events, " ") + "\n" + strings.Join(w.seen, "\n")
	for name, addr := range map[string]netip.AddrPort{"SERVER": plain, "SECOND": second, "SECURE": w.secure} {
		out = strings.ReplaceAll(out, addr.String(), name)
	}
	return out
}

// policy returns the text of the policy of a row.
func (w *keyWorld) policy(t *testing.T, r keyRow, by string, with bool, places *strings.Replacer) []byte {
	t.Helper()
	object := func(texts ...string) map[string]json.RawMessage {
		o := map[string]json.RawMessage{}
		for _, text := range texts {
			if err := json.Unmarshal([]byte("{"+places.Replace(text)+"}"), &o); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
		}
		return o
	}
	stream := []string{`"endpoint":"127.0.0.1","port":PORT,"protocol":"` + by + `","http_method":"GET","http_url":"/"`, r.both}
	cert := func(a *testcert.Authority) string { return base64.StdEncoding.EncodeToString(a.Cert.Raw) }
	top := []string{`"certs":[{"own":"` + cert(w.own) + `"},{"other":"` + cert(w.other) + `"}],` +
		`"trust_stores":[{"name":"own","stack":["own"]},{"name":"wrong","stack":["other"]}],` +
		`"auth":[{"name":"b","type":"bearer","blob":1},{"name":"v4","type":"sigv4","blob":0}]`, r.top}
	if r.key != "s.opportunistic" {
		stream = append(stream, `"opportunistic":true`)
	}
	if with {
		stream, top = append(stream, r.with), append(top, r.sect)
	}
	o := object(top...)
	s := object(stream...)
	mate := json.RawMessage(`{"mate":{"endpoint":"127.0.0.1","port":1,"protocol":"` + by + `","http_method":"POST","http_url":"/","http_multipart_name":"second","opportunistic":true}}`)
	streams := teststream.Must(json.Marshal([]any{mate, map[string]any{"s": s}}))
	var b bytes.Buffer
	b.WriteString("{")
	// Definitions come before references.
	for _, key := range slices.SortedFunc(maps.Keys(o), func(a, b string) int { return order(a) - order(b) }) {
		fmt.Fprintf(&b, "%q:%s,\n", key, o[key])
	}
	fmt.Fprintf(&b, "%q:%s}", "s", streams)
	return b.Bytes()
}

// order returns the position of a section in a policy.
func order(section string) int {
	return slices.Index([]string{"retry", "certs", "trust_stores", "auth"}, section)
}
