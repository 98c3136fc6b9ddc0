package http_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func TestStatus(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	statuses := map[string]int{}
	record := func(state string) func(*runtime.Stream) policy.Result {
		return func(s *runtime.Stream) policy.Result { statuses[state] = s.Status(); return policy.OK }
	}
	tr := &teststream.Trace{On: teststream.Actions{"CRE": teststream.RequestTx, "CNG": record("CNG"), "CON": record("CON"), "NAK": record("NAK"), "DIS": record("DIS")}}
	newStream(t, policy.StreamType{HTTP: &policy.HTTP{}, Opportunistic: true}, addr, tr, runtime.Options{})
	tr.AwaitEnd(t, "DIS")
	if got := fmt.Sprint(statuses); got != "map[CNG:0 CON:418 DIS:418 NAK:418]" {
		t.Error(got)
	}
}

// TestRequest checks the bytes of requests.
func TestRequest(t *testing.T) {
	var mu sync.Mutex
	var request string
	addr := server{conn: func(c net.Conn) {
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		mu.Lock()
		request = string(buf[:n])
		mu.Unlock()
		io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	}}.start(t)
	host := "Host: " + addr.String() + "\r\n"
	items := []policy.Metadata{{Name: "a"}, {Name: "b", Header: "x-b:"}, {Name: "auth", Header: "Authorization"},
		{Name: "h", Header: "host:"}, {Name: "ct", Header: "content-type:"}, {Name: "len", Header: "content-length:"}}
	for _, tt := range []struct {
		name     string
		endpoint string
		h        policy.HTTP
		set      map[string]string
		want     string
	}{
		{"plain", "", policy.HTTP{}, nil, "GET / HTTP/1.1\r\n" + host + "\r\n"},
		{"url", "", policy.HTTP{URL: "path?q=1"}, nil, "GET /path?q=1 HTTP/1.1\r\n" + host + "\r\n"},
		{"double slash", "", policy.HTTP{URL: "//path//x"}, nil, "GET /path//x HTTP/1.1\r\n" + host + "\r\n"},
		{"slashes from metadata", "", policy.HTTP{URL: "/${a}"}, map[string]string{"a": "//internal.test/x"},
			"GET /internal.test/x HTTP/1.1\r\n" + host + "\r\n"},
		{"method", "", policy.HTTP{Method: "DELETE", URL: "/x"}, nil, "DELETE /x HTTP/1.1\r\n" + host + "\r\n"},
		{"metadata in the URL", "", policy.HTTP{URL: "/${a}/x?y=${a}&${b}"}, map[string]string{"a": "1/2"},
			"GET /1/2/x?y=1/2& HTTP/1.1\r\n" + host + "\r\n"},
		{"escapes", "", policy.HTTP{URL: "/${a}"}, map[string]string{"a": "a b\tc\"#é%41%"},
			"GET /a%20b%09c%22%23%C3%A9%2541%25 HTTP/1.1\r\n" + host + "\r\n"},
		{"a part", "", policy.HTTP{URL: "/x/${a}?y=1&a=${a}"}, map[string]string{"a": "p/q?&=+;z"},
			"GET /x/p/q%3F%26%3D%2B%3Bz?y=1&a=p/q%3F%26%3D%2B%3Bz HTTP/1.1\r\n" + host + "\r\n"},
		{"the whole", "", policy.HTTP{URL: "${a}"}, map[string]string{"a": "p/q?y=1&z=%41"},
			"GET /p/q?y=1&z=%41 HTTP/1.1\r\n" + host + "\r\n"},
		{"headers", "", policy.HTTP{}, map[string]string{"b": "1, 2", "auth": "Bearer x"},
			"GET / HTTP/1.1\r\n" + host + "Authorization: Bearer x\r\nX-B: 1, 2\r\n\r\n"},
		{"an empty header", "", policy.HTTP{}, map[string]string{"b": ""}, "GET / HTTP/1.1\r\n" + host + "X-B: \r\n\r\n"},
		{"host", "", policy.HTTP{}, map[string]string{"h": "other.test"}, "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"},
		{"form", "", policy.HTTP{Method: "POST", WWWFormURLEncoded: true}, nil,
			"POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"},
		{"form with its own type", "", policy.HTTP{WWWFormURLEncoded: true}, map[string]string{"ct": "a/b"},
			"GET / HTTP/1.1\r\n" + host + "Content-Type: a/b\r\n\r\n"},
		{"endpoint is a URL", "http://" + addr.String() + "/from/endpoint?q", policy.HTTP{URL: "/unused"}, nil,
			"GET /from/endpoint?q HTTP/1.1\r\n" + host + "\r\n"},
		{"endpoint is host and port", addr.String(), policy.HTTP{URL: "/unused"}, nil, "GET / HTTP/1.1\r\n" + host + "\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := policy.StreamType{Endpoint: tt.endpoint, HTTP: &tt.h, Metadata: items}
			fetch(t, st, addr, runtime.Handlers{}, func(s *runtime.Stream) {
				for k, v := range tt.set {
					if err := s.SetMetadata(k, v); err != nil {
						t.Error(err)
					}
				}
			})
			mu.Lock()
			defer mu.Unlock()
			if request != tt.want {
				t.Errorf("\n got %q\nwant %q", request, tt.want)
			}
		})
	}
}

// TestRefusedHeaders checks that metadata in headers that frame the request fails the
// attempt.
func TestRefusedHeaders(t *testing.T) {
	addr := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	for name, value := range map[string]string{"transfer-encoding:": "chunked", "connection:": "x-b", "content-length:": "-12345", "te:": "trailers", "host:": "a b"} {
		tr, s := fetch(t, policy.StreamType{Metadata: []policy.Metadata{{Name: "m", Header: name}}}, addr, runtime.Handlers{},
			func(s *runtime.Stream) { s.SetMetadata("m", value) })
		tr.Want(t, "CRE POL CNG UNR ARF")
		if _, ok := errors.AsType[*sshttp.HeaderError](s.Err()); !ok {
			t.Errorf("%s: %v", name, s.Err())
		} else if text := fmt.Sprintf("%v %+v %#v", s.Err(), s.Err(), s.Err()); strings.Contains(text, value) {
			t.Errorf("%s: the error contains the value: %s", name, text)
		}
	}
}

func TestPrepare(t *testing.T) {
	for _, tt := range []struct {
		h    policy.HTTP
		m    []policy.Metadata
		want error
		text string
	}{
		{h: policy.HTTP{AuthHeader: "authorization:"}, want: transport.ErrNoCredentials, text: "http_auth_header"},
		{h: policy.HTTP{DSNHeader: "x:"}, want: transport.ErrNoCredentials, text: "http_dsn_header"},
		{h: policy.HTTP{FWVHeader: "x:"}, want: transport.ErrNoCredentials, text: "http_fwv_header"},
		{h: policy.HTTP{DevTypeHeader: "x:"}, want: transport.ErrNoCredentials, text: "http_devtype_header"},
		{h: policy.HTTP{MultipartFilename: "x"}, want: transport.ErrUnsupported, text: "http_multipart_name"},
		{h: policy.HTTP{MIMEContentType: "text/plain"}, want: transport.ErrUnsupported, text: "http_multipart_name"},
		{h: policy.HTTP{MultipartName: "a\r\nb"}, want: transport.ErrUnsupported, text: "http_multipart_name"},
		{h: policy.HTTP{MultipartName: "x", MultipartFilename: "a\x00"}, want: transport.ErrUnsupported, text: "http_multipart_filename"},
		{h: policy.HTTP{MultipartName: "x", MIMEContentType: "a/b\nx: y"}, want: transport.ErrUnsupported, text: "http_mime_content_type"},
		{h: policy.HTTP{MultipartName: "x", MIMEContentType: "no type"}, want: transport.ErrUnsupported, text: "http_mime_content_type"},
		{h: policy.HTTP{MultipartName: "x", WWWFormURLEncoded: true}, want: transport.ErrUnsupported, text: "http_www_form_urlencoded"},
		{h: policy.HTTP{Method: "G T"}, want: transport.ErrUnsupported, text: "http_method"},
		{h: policy.HTTP{Method: "GET\r\nx: y"}, want: transport.ErrUnsupported, text: "http_method"},
		{h: policy.HTTP{Method: "CONNECT"}, want: transport.ErrUnsupported, text: "http_method"},
		{h: policy.HTTP{RespMap: []policy.StatusState{{Status: 200, State: 5}}}, want: transport.ErrUnsupported, text: "http_resp_map"},
		{m: []policy.Metadata{{Name: "m", Header: "a b:"}}, text: "not the name of a header"},
		{m: []policy.Metadata{{Name: "m", Header: ":"}}, text: "not the name of a header"},
	} {
		c := newPolicy(t, []*policy.StreamType{{Name: "s", Endpoint: "h", HTTP: &tt.h, Metadata: tt.m}}, runtime.Options{})
		_, err := c.NewStream("s", runtime.Handlers{})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%+v %+v: %v", tt.h, tt.m, err)
		}
	}
}

// TestResponseHeaders checks that metadata is set at CONNECTED.
func TestResponseHeaders(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if v := r.Header.Get("X-Srv"); v != "" {
			t.Errorf("the request has the header of the last response: %q", v)
		}
		w.Header()["x-sRV"] = []string{"one"}
		io.WriteString(w, "x")
	})
	var got []string
	tr := &teststream.Trace{On: teststream.Actions{"CON": func(s *runtime.Stream) policy.Result {
		v, err := s.Metadata("srv")
		got = append(got, fmt.Sprint(v, err))
		return policy.OK
	}}}
	_, s := newStream(t, policy.StreamType{Opportunistic: true, Metadata: []policy.Metadata{{Name: "srv", Header: "X-Srv:"}}}, addr, tr, runtime.Options{})
	s.RequestTx()
	tr.AwaitEnd(t, "DIS")
	s.RequestTx()
	tr.AwaitEnd(t, "DIS POL CNG CON rx(SOM) rx(EOM) ACK DIS")
	if strings.Join(got, ",") != "one<nil>,one<nil>" {
		t.Errorf("at CONNECTED the metadata is %q", got)
	}
}

func TestBody(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		echo(w, r)
	})
	post := policy.StreamType{HTTP: &policy.HTTP{Method: "POST"}, Metadata: []policy.Metadata{{Name: "len", Header: "content-length:"}, {Name: "seen", Header: "x-length:"}}}
	for _, tt := range []struct {
		name   string
		st     policy.StreamType
		set    func(*runtime.Stream)
		pieces []string
		length int64
		body   string // "-" means that the request fails
	}{
		{"chunked", post, nil, []string{"ab", "cd"}, -1, "abcd"},
		{"empty", post, nil, []string{""}, -1, ""},
		{"with a length", post, func(s *runtime.Stream) { s.RequestTxLen(4) }, []string{"ab", "cd"}, 4, "abcd"},
		{"no_content_length", policy.StreamType{HTTP: &policy.HTTP{Method: "PUT", NoContentLength: true}, Metadata: post.Metadata},
			func(s *runtime.Stream) { s.RequestTxLen(4) }, []string{"ab", "cd"}, -1, "abcd"},
		{"length from metadata", post, func(s *runtime.Stream) { s.SetMetadata("len", "3") }, []string{"abc"}, 3, "abc"},
		{"length from metadata with another method", policy.StreamType{HTTP: &policy.HTTP{Method: "REPORT"}, Metadata: post.Metadata},
			func(s *runtime.Stream) { s.SetMetadata("len", "3") }, []string{"abc"}, 3, "abc"},
		{"too short", post, func(s *runtime.Stream) { s.RequestTxLen(5) }, []string{"ab", "cd"}, 0, "-"},
		{"longer than announced", post, func(s *runtime.Stream) { s.RequestTxLen(2) }, []string{"ab", "cd"}, 2, "ab"},
		{"a length and no Tx", post, func(s *runtime.Stream) { s.RequestTxLen(2) }, nil, 0, "-"},
		{"no Tx", post, nil, nil, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := runtime.Handlers{}
			if tt.pieces != nil {
				h.Tx = sender(tt.pieces...)
			}
			tr, s := fetch(t, tt.st, addr, h, tt.set)
			if tt.body == "-" {
				tr.Want(t, "CRE POL CNG UNR ARF")
				if s.Err() == nil {
					t.Error("Err returns nil")
				}
				return
			}
			length, _ := s.Metadata("seen")
			if tr.Body() != tt.body || length != fmt.Sprint(tt.length) {
				t.Errorf("the server got %q with content-length %s, want %q with %d: %s, %v", tr.Body(), length, tt.body, tt.length, tr, s.Err())
			}
		})
	}
}

// TestMethods checks the body and its length for each method that has one.
func TestMethods(t *testing.T) {
	url := serveBoth(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %d %q %v", r.Proto, r.Method, r.ContentLength, body, err)
	}))
	proto := map[policy.Protocol]string{policy.ProtocolH1: "HTTP/1.1", policy.ProtocolH2: "HTTP/2.0"}
	for _, p := range protocols {
		for _, method := range []string{"POST", "PUT", "PATCH"} {
			for _, tt := range []struct {
				name     string
				length   uint64
				noLength bool
				pieces   []string
				want     string
			}{
				{"with its length", 4, false, []string{"a", "bc", "d"}, `4 "abcd" <nil>`},
				{"without a length", 0, false, []string{"a", "bc", "d"}, `-1 "abcd" <nil>`},
				{"http_no_content_length", 4, true, []string{"a", "bc", "d"}, `-1 "abcd" <nil>`},
				{"http_no_content_length without one", 0, true, []string{"abcd"}, `-1 "abcd" <nil>`},
				{"no Tx", 0, false, nil, `0 "" <nil>`},
			} {
				c := contextOf(t, p, url, policy.StreamType{Name: "s", HTTP: &policy.HTTP{Method: method, NoContentLength: tt.noLength}})
				h := runtime.Handlers{}
				if tt.pieces != nil {
					h.Tx = sender(tt.pieces...)
				}
				tr := transact(t, c, h, tt.length)
				if want := proto[p] + " " + method + " " + tt.want; tr.Body() != want {
					t.Errorf("%s: the server got %s, want %s: %s", tt.name, tr.Body(), want, tr)
				}
			}
		}
	}
}

// TestTxDontSend checks that a body waits for RequestTx.
func TestTxDontSend(t *testing.T) {
	addr := serve(t, echo)
	ordinals := make(chan uint32, 10)
	ready := false
	tr := &teststream.Trace{}
	_, s := newStream(t, policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{Method: "POST"}}, addr, tr, runtime.Options{})
	var mu sync.Mutex
	s.SetHandlers(runtime.Handlers{Tx: func(_ *runtime.Stream, ordinal uint32, buf []byte) (int, policy.Flags, policy.Result) {
		mu.Lock()
		defer mu.Unlock()
		ordinals <- ordinal
		if !ready {
			return 0, 0, policy.TxDontSend
		}
		return copy(buf, "late"), policy.FlagSOM | policy.FlagEOM, policy.OK
	}})
	s.Connect()
	if n := <-ordinals; n != 0 {
		t.Errorf("the first ordinal is %d", n)
	}
	s.RequestTx()
	<-ordinals
	mu.Lock()
	ready = true
	mu.Unlock()
	s.RequestTx()
	if n := <-ordinals; n != 2 {
		t.Errorf("the third ordinal is %d", n)
	}
	tr.AwaitEnd(t, "DIS")
	if tr.Body() != "late" {
		t.Errorf("the server got %q", tr.Body())
	}
}

// TestEarlyAnswer checks that a server may answer before the request is complete, and that
// Tx is not called afterwards.
func TestEarlyAnswer(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex() // otherwise net/http reads the body first
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
	})
	var ended atomic.Bool
	tr := &teststream.Trace{On: teststream.Actions{"DIS": func(*runtime.Stream) policy.Result { ended.Store(true); return policy.OK }}}
	_, s := newStream(t, policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{Method: "POST"}}, addr, tr, runtime.Options{})
	s.SetHandlers(runtime.Handlers{Tx: func(_ *runtime.Stream, ordinal uint32, buf []byte) (int, policy.Flags, policy.Result) {
		if ended.Load() {
			t.Error("Tx after DISCONNECTED")
		}
		if ordinal == 0 {
			return copy(buf, "x"), policy.FlagSOM, policy.OK
		}
		return 0, 0, policy.TxDontSend
	}})
	s.Connect()
	tr.AwaitEnd(t, "DIS")
	tr.Want(t, "CRE CNG CON rx(SOM) rx(EOM) NAK DIS")
}

// TestLarge transfers more than the buffers hold in both directions at once.
func TestLarge(t *testing.T) {
	const size = 3 << 20
	own := testcert.New("own")
	for _, protocol := range []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2} {
		addr := server{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(200)
			io.Copy(w, r.Body)
		}), tls: own.Server([]string{"h2", "http/1.1"}, "127.0.0.1")}.start(t)
		sent, got := 0, 0
		out, in := sha256.New(), sha256.New()
		tr := &teststream.Trace{}
		_, s := newStream(t, policy.StreamType{Protocol: protocol, TLS: true, TrustStore: own.Store(), Opportunistic: true,
			HTTP: &policy.HTTP{Method: "POST"}}, addr, tr, runtime.Options{})
		s.SetHandlers(runtime.Handlers{
			Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
				n := min(len(buf), size-sent)
				for i := range n {
					buf[i] = byte((sent + i) * 7)
				}
				out.Write(buf[:n])
				sent += n
				if sent == size {
					return n, policy.FlagEOM, policy.OK
				}
				return n, 0, policy.OK
			},
			Rx: func(_ *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
				in.Write(buf)
				got += len(buf)
				return policy.OK
			},
		})
		s.RequestTx()
		tr.AwaitEnd(t, "DIS")
		if sent != size || got != size || string(out.Sum(nil)) != string(in.Sum(nil)) {
			t.Errorf("%v: sent %d, got %d of %d: %s, %v", protocol, sent, got, size, tr, s.Err())
		}
	}
}

func TestRedirects(t *testing.T) {
	own := testcert.New("own")
	var mu sync.Mutex
	var requests []string
	record := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		requests = append(requests, fmt.Sprintf("%s %s auth=%q x=%q ct=%q", r.Method, r.URL, r.Header.Get("Authorization"), r.Header.Get("X-M"), r.Header.Get("Content-Type")))
		mu.Unlock()
		io.WriteString(w, "end")
	}
	other := serve(t, record)
	code := 302
	to := ""
	h := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/start" {
			w.Header().Set("Location", to)
			w.WriteHeader(code)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/loop") {
			var n int
			fmt.Sscanf(r.URL.Path, "/loop%d", &n)
			if n > 0 {
				http.Redirect(w, r, fmt.Sprintf("/loop%d", n-1), http.StatusMovedPermanently)
				return
			}
		}
		record(w, r)
	}
	plain := serve(t, h)
	secure := server{handler: http.HandlerFunc(h), tls: own.Server([]string{"h2", "http/1.1"}, "127.0.0.1")}.start(t)
	for _, tt := range []struct {
		name, method string
		tls          bool
		code         int
		to           string
		want         string // the request at the end; "" means that the redirect fails
	}{
		{"relative", "GET", false, 302, "end?q", `GET /end?q auth="secret" x="v" ct="t"`},
		{"same origin", "GET", false, 307, "http://" + plain.String() + "/end", `GET /end auth="secret" x="v" ct="t"`},
		{"another port", "GET", false, 302, "http://" + other.String() + "/end", `GET /end auth="" x="v" ct="t"`},
		{"to TLS", "GET", false, 302, "https://" + secure.String() + "/end", `GET /end auth="" x="v" ct="t"`},
		{"from TLS", "GET", true, 302, "http://" + plain.String() + "/end", ""},
		{"with a password", "GET", false, 302, "http://u:p@" + plain.String() + "/end", `GET /end auth="secret" x="v" ct="t"`},
		{"four", "GET", false, 302, "/loop3", `GET /loop0 auth="secret" x="v" ct="t"`},
		{"five", "GET", false, 302, "/loop4", ""},
		{"nowhere", "GET", false, 302, "", ""},
		{"to a file", "GET", false, 302, "file:///etc/passwd", ""},
		{"POST 302", "POST", false, 302, "/end", `GET /end auth="secret" x="v" ct=""`},
		{"POST 303", "POST", false, 303, "/end", `GET /end auth="secret" x="v" ct=""`},
		{"POST 307", "POST", false, 307, "/end", ""},
		{"PUT 301", "PUT", false, 301, "/end", `GET /end auth="secret" x="v" ct=""`},
		{"HEAD 303", "HEAD", false, 303, "/end", `HEAD /end auth="secret" x="v" ct="t"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, to, requests = tt.code, tt.to, nil
			addr := plain
			if tt.tls {
				addr = secure
			}
			tr, s := fetch(t, policy.StreamType{TLS: tt.tls, TrustStore: own.Store(),
				HTTP:     &policy.HTTP{Method: tt.method, URL: "/start", AllowRedirects: true},
				Metadata: []policy.Metadata{{Name: "auth", Header: "authorization:"}, {Name: "m", Header: "x-m:"}, {Name: "ct", Header: "content-type:"}},
			}, addr, runtime.Handlers{Tx: sender("body")}, func(s *runtime.Stream) {
				s.SetMetadata("auth", "secret")
				s.SetMetadata("m", "v")
				s.SetMetadata("ct", "t")
			})
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(requests, "; "); got != tt.want {
				t.Errorf("the server got %s, want %s (%s, %v)", got, tt.want, tr, s.Err())
			}
			if tt.want == "" && (!isRedirect(s.Err()) || !strings.HasSuffix(tr.String(), "UNR ARF")) {
				t.Errorf("got %s, %v", tr, s.Err())
			}
		})
	}
}

// TestRetryAfter checks that the header increases the wait.
func TestRetryAfter(t *testing.T) {
	for _, header := range []string{"1", "date"} {
		synctest.Test(t, func(t *testing.T) {
			var times []time.Time
			var network testserver.Network
			ln := network.Listen("127.0.0.1:80")
			testserver.HTTP(t, ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if times = append(times, time.Now()); len(times) > 1 {
					return
				}
				v := header
				if v == "date" { // from a server whose clock is a year off
					now := time.Now().Add(-365 * 24 * time.Hour).UTC()
					w.Header().Set("Date", now.Format(http.TimeFormat))
					v = now.Add(time.Second).Format(http.TimeFormat)
				}
				w.Header().Set("Retry-After", v)
				w.WriteHeader(503)
			})})
			tr := &teststream.Trace{}
			_, s := newStream(t, policy.StreamType{Opportunistic: true, Retry: &policy.Retry{Backoff: []time.Duration{time.Millisecond}, Conceal: 1}},
				testserver.Addr(ln), tr, runtime.Options{DialContext: network.DialContext})
			s.RequestTx()
			tr.AwaitEnd(t, "DIS")
			tr.Want(t, "CRE POL CNG UNR POL CNG CON ACK DIS")
			if d := times[1].Sub(times[0]); d != time.Second {
				t.Errorf("Retry-After %s: the next request came after %v", header, d)
			}
		})
	}
}

// TestKeepAlive checks that connections are kept, and shared only by streams with
// the same trust and attributes.
func TestKeepAlive(t *testing.T) {
	own, other := testcert.New("own"), testcert.New("other")
	for _, protocol := range []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2} {
		addr := server{handler: status(200, "x"), tls: own.Server([]string{"h2", "http/1.1"}, "127.0.0.1")}.start(t)
		var dials atomic.Int32
		var types []*policy.StreamType
		stores := map[string]*policy.TrustStore{"a": own.Store(), "wrong": other.Store(), "system": nil}
		stores["b"] = stores["a"]
		for name, store := range stores {
			types = append(types, &policy.StreamType{Name: name, Protocol: protocol, TLS: true, TrustStore: store, Opportunistic: true,
				Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &policy.HTTP{}})
		}
		urgent, fast := *types[0], *types[0]
		urgent.Name, urgent.TrustStore, urgent.Priority = "urgent", stores["a"], 1
		fast.Name, fast.TrustStore, fast.AttrLowLatency = "fast", stores["a"], true
		types = append(types, &urgent, &fast)
		c := newPolicy(t, types, runtime.Options{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				dials.Add(1)
				return new(net.Dialer).DialContext(ctx, network, address)
			},
		})
		for _, step := range []struct {
			name  string
			ok    bool
			dials int32
		}{{"a", true, 1}, {"a", true, 1}, {"b", true, 1}, {"wrong", false, 2}, {"system", false, 3}, {"a", true, 3},
			{"urgent", true, 4}, {"fast", true, 5}, {"urgent", true, 5}, {"a", true, 5}} {
			tr := &teststream.Trace{}
			s, err := c.NewStream(step.name, handlers(tr))
			if err != nil {
				t.Fatal(err)
			}
			s.RequestTx()
			tr.AwaitEnd(t, "DIS", "ARF")
			if ok := strings.Contains(tr.String(), "ACK"); ok != step.ok || dials.Load() != step.dials {
				t.Errorf("%v, stream %s: %s, %d dials so far, want success %v with %d", protocol, step.name, tr, dials.Load(), step.ok, step.dials)
			}
		}
	}
}

func TestUnix(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "s"), "@sspolicy-test-" + fmt.Sprint(time.Now().UnixNano())} {
		if name[0] == '@' && goruntime.GOOS != "linux" {
			continue // abstract names exist on Linux alone
		}
		ln, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		testserver.HTTP(t, ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.URL) })})
		tr, _ := fetch(t, policy.StreamType{Endpoint: "+" + name, HTTP: &policy.HTTP{URL: "/x?y"}}, netip.AddrPort{}, runtime.Handlers{}, nil)
		tr.Want(t, fetched)
		if tr.Body() != "localhost/x?y" {
			t.Errorf("the server got %s", tr.Body())
		}
	}
}

// TestCloseInFlight shuts the context down at each step of a transaction.
func TestCloseInFlight(t *testing.T) {
	release := make(chan struct{})
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			io.WriteString(w, "part")
			w.(http.Flusher).Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	for path, want := range map[string]string{"/head": "CRE CNG DES", "/body": "CRE CNG CON rx(SOM) DIS DES"} {
		tr := &teststream.Trace{On: teststream.Actions{"CRE": teststream.Connect}}
		c, _ := newStream(t, policy.StreamType{HTTP: &policy.HTTP{URL: path}}, addr, tr, runtime.Options{})
		awaitEvents(t, tr, len(strings.Fields(want))-2)
		teststream.Shutdown(t, c)
		if got := tr.String(); got != want && got != strings.Replace(want, " DIS", "", 1) {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
	close(release)

	// A peer that accepts the connection and sends nothing, not even during the TLS
	// handshake.
	ln := testserver.Listen(t)
	tr := &teststream.Trace{On: teststream.Actions{"CRE": teststream.Connect}}
	c, _ := newStream(t, policy.StreamType{TLS: true}, testserver.Addr(ln), tr, runtime.Options{})
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	teststream.Shutdown(t, c)
	tr.Want(t, "CRE CNG DES")
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the connection outlived the context: %v", err)
	}
}

// TestMany runs many streams at the same time.
func TestMany(t *testing.T) {
	addr := serve(t, echo)
	c := newContext(t, policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{Method: "POST"}}, addr, runtime.Options{Logger: teststream.Logger(t)})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			tr := &teststream.Trace{}
			h := handlers(tr)
			h.Tx = func(s *runtime.Stream, n uint32, buf []byte) (int, policy.Flags, policy.Result) {
				return copy(buf, fmt.Sprint(i, ":", n)), policy.FlagEOM, policy.OK
			}
			s, err := c.NewStream("s", h)
			if err != nil {
				t.Error(err)
				return
			}
			want := ""
			for n := range 20 {
				want += fmt.Sprint(i, ":", n)
				tr.Reset()
				s.RequestTx()
				tr.AwaitEnd(t, "DIS", "ARF")
				if tr.Body() != want {
					t.Errorf("stream %d got %q: %s %v", i, tr.Body(), tr, s.Err())
				}
			}
		})
	}
	wg.Wait()
}
