package http_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// serve returns the address of a plain server.
func serve(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	return server{handler: h}.start(t)
}

// fetch makes a stream, lets set prepare it, runs one transaction and returns
// what it saw, without DES.
func fetch(t *testing.T, st policy.StreamType, addr netip.AddrPort, h runtime.Handlers, set func(*runtime.Stream)) (*trace, *runtime.Stream) {
	t.Helper()
	// From inside CREATING, so that there is one transaction even if set asks
	// for one too.
	tr := &trace{on: on{"CRE": func(s *runtime.Stream) policy.Result {
		s.SetHandlers(h)
		if set != nil {
			set(s)
		}
		return requestTx(s)
	}}}
	st.Opportunistic = true
	_, s := newStream(t, st, addr, tr, runtime.Options{})
	tr.AwaitEnd(t, "DIS", "ARF")
	return tr, s
}

const fetched = "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS"

func want(t *testing.T, tr *trace, want string) {
	t.Helper()
	if got := tr.String(); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestStatus(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	seen := map[string]int{}
	note := func(state string) func(*runtime.Stream) policy.Result {
		return func(s *runtime.Stream) policy.Result { seen[state] = s.Status(); return policy.OK }
	}
	tr := &trace{on: on{"CRE": requestTx, "CNG": note("CNG"), "CON": note("CON"), "NAK": note("NAK"), "DIS": note("DIS")}}
	newStream(t, policy.StreamType{HTTP: &policy.HTTP{}, Opportunistic: true}, addr, tr, runtime.Options{})
	tr.AwaitEnd(t, "DIS")
	if got := fmt.Sprint(seen); got != "map[CNG:0 CON:418 DIS:418 NAK:418]" {
		t.Error(got)
	}
}

// TestRequest checks what goes on the wire.
func TestRequest(t *testing.T) {
	var mu sync.Mutex
	var seen string
	addr := server{conn: func(c net.Conn) {
		defer c.Close()
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		mu.Lock()
		seen = string(buf[:n])
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
			"GET /a%20b%09c%22%23%C3%A9%41% HTTP/1.1\r\n" + host + "\r\n"},
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
			if seen != tt.want {
				t.Errorf("\n got %q\nwant %q", seen, tt.want)
			}
		})
	}
}

// TestRefusedHeaders checks that what would break the framing of the request
// is refused, not dropped.
func TestRefusedHeaders(t *testing.T) {
	addr := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	for name, value := range map[string]string{"transfer-encoding:": "chunked", "connection:": "x-b", "content-length:": "-12345", "te:": "trailers", "host:": "a b"} {
		tr, s := fetch(t, policy.StreamType{Metadata: []policy.Metadata{{Name: "m", Header: name}}}, addr, runtime.Handlers{},
			func(s *runtime.Stream) { s.SetMetadata("m", value) })
		want(t, tr, "CRE POL CNG UNR ARF")
		if _, ok := errors.AsType[*sshttp.HeaderError](s.Err()); !ok {
			t.Errorf("%s: %v", name, s.Err())
		} else if text := fmt.Sprintf("%v %+v %#v", s.Err(), s.Err(), s.Err()); strings.Contains(text, value) {
			t.Errorf("%s: the error tells the value: %s", name, text)
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
		c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{
			{Name: "s", Endpoint: "h", HTTP: &tt.h, Metadata: tt.m}}}, runtime.Options{Transports: []transport.Transport{sshttp.New()}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.NewStream("s", runtime.Handlers{})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%+v %+v: %v", tt.h, tt.m, err)
		}
		c.Close()
	}
}

// TestResponseHeaders checks that metadata is set when CONNECTED comes.
func TestResponseHeaders(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if v := r.Header.Get("X-Srv"); v != "" {
			t.Errorf("what the server sent came back: %q", v)
		}
		w.Header()["x-sRV"] = []string{"one"}
		io.WriteString(w, "x")
	})
	var got []string
	h := runtime.Handlers{State: nil}
	tr := &trace{on: on{"CON": func(s *runtime.Stream) policy.Result {
		v, err := s.Metadata("srv")
		got = append(got, fmt.Sprint(v, err))
		return policy.OK
	}}}
	_, s := newStream(t, policy.StreamType{Opportunistic: true, Metadata: []policy.Metadata{{Name: "srv", Header: "X-Srv:"}}}, addr, tr, runtime.Options{})
	s.SetHandlers(h)
	s.RequestTx()
	tr.AwaitEnd(t, "DIS")
	s.RequestTx()
	tr.AwaitEnd(t, "DIS POL CNG CON rx(SOM) rx(EOM) ACK DIS")
	if strings.Join(got, ",") != "one<nil>,one<nil>" {
		t.Errorf("metadata at CONNECTED is %q", got)
	}
}

// sender returns a Tx that sends pieces, the last with FlagEOM.
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
		body   string // "-": the request fails
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
		{"more than announced is not asked for", post, func(s *runtime.Stream) { s.RequestTxLen(2) }, []string{"ab", "cd"}, 2, "ab"},
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
				want(t, tr, "CRE POL CNG UNR ARF")
				if s.Err() == nil {
					t.Error("no cause")
				}
				return
			}
			length, _ := s.Metadata("seen")
			if string(tr.body) != tt.body || length != fmt.Sprint(tt.length) {
				t.Errorf("the server got %q with content-length %s, want %q with %d: %s, %v", tr.body, length, tt.body, tt.length, tr, s.Err())
			}
		})
	}
}

// TestMethods checks that the server gets the body of each method that has one,
// and its length where that is known, in whatever pieces it is made.
func TestMethods(t *testing.T) {
	url := both(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
				if want := proto[p] + " " + method + " " + tt.want; string(tr.body) != want {
					t.Errorf("%s: the server got %s, want %s: %s", tt.name, tr.body, want, tr)
				}
			}
		}
	}
}

// TestTxDontSend checks that a body waits for RequestTx.
func TestTxDontSend(t *testing.T) {
	addr := serve(t, echo)
	asked := make(chan uint32, 10)
	ready := false
	tr := &trace{}
	_, s := newStream(t, policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{Method: "POST"}}, addr, tr, runtime.Options{})
	var mu sync.Mutex
	s.SetHandlers(runtime.Handlers{Tx: func(_ *runtime.Stream, ordinal uint32, buf []byte) (int, policy.Flags, policy.Result) {
		mu.Lock()
		defer mu.Unlock()
		asked <- ordinal
		if !ready {
			return 0, 0, policy.TxDontSend
		}
		return copy(buf, "late"), policy.FlagSOM | policy.FlagEOM, policy.OK
	}})
	s.Connect()
	if n := <-asked; n != 0 {
		t.Errorf("the first ordinal is %d", n)
	}
	s.RequestTx()
	<-asked
	mu.Lock()
	ready = true
	mu.Unlock()
	s.RequestTx()
	if n := <-asked; n != 2 {
		t.Errorf("the third ordinal is %d", n)
	}
	tr.AwaitEnd(t, "DIS")
	if string(tr.body) != "late" {
		t.Errorf("the server got %q", tr.body)
	}
}

// TestEarlyAnswer checks that a server may answer before it has all of the
// message, and that Tx stops then.
func TestEarlyAnswer(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex() // else net/http reads on before it answers
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
	})
	tr := &trace{}
	_, s := newStream(t, policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{Method: "POST"}}, addr, tr, runtime.Options{})
	var ended atomic.Bool
	tr.on = on{"DIS": func(*runtime.Stream) policy.Result { ended.Store(true); return policy.OK }}
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
	want(t, tr, "CRE CNG CON rx(SOM) rx(EOM) NAK DIS")
}

// TestLarge moves more than any buffer holds, both ways at once, over h1 and h2.
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
		tr := &trace{}
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
	var seen []string
	note := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, fmt.Sprintf("%s %s auth=%q x=%q ct=%q", r.Method, r.URL, r.Header.Get("Authorization"), r.Header.Get("X-M"), r.Header.Get("Content-Type")))
		mu.Unlock()
		io.WriteString(w, "end")
	}
	other := serve(t, note)
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
		note(w, r)
	}
	plain := serve(t, h)
	secure := server{handler: http.HandlerFunc(h), tls: own.Server([]string{"h2", "http/1.1"}, "127.0.0.1")}.start(t)
	for _, tt := range []struct {
		name, method string
		tls          bool
		code         int
		to           string
		want         string // what the last server saw; "": refused
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
			code, to, seen = tt.code, tt.to, nil
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
			if got := strings.Join(seen, "; "); got != tt.want {
				t.Errorf("the server saw %s, want %s (%s, %v)", got, tt.want, tr, s.Err())
			}
			if tt.want == "" && (!isRedirect(s.Err()) || !strings.HasSuffix(tr.String(), "UNR ARF")) {
				t.Errorf("refused with %s, %v", tr, s.Err())
			}
		})
	}
}

// TestRetryAfter checks that the header raises the wait.
func TestRetryAfter(t *testing.T) {
	for _, header := range []string{"1", "date"} {
		var first, second time.Time
		addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if first.IsZero() {
				first = time.Now()
				v := header
				if v == "date" { // of a server whose clock is a year off
					now := first.Add(-365 * 24 * time.Hour).UTC()
					w.Header().Set("Date", now.Format(http.TimeFormat))
					v = now.Add(time.Second).Format(http.TimeFormat)
				}
				w.Header().Set("Retry-After", v)
				w.WriteHeader(503)
				return
			}
			second = time.Now()
		})
		tr := &trace{}
		_, s := newStream(t, policy.StreamType{Opportunistic: true, Retry: &policy.Retry{Backoff: []time.Duration{time.Millisecond}, Conceal: 1}},
			addr, tr, runtime.Options{})
		s.RequestTx()
		tr.AwaitEnd(t, "DIS")
		want(t, tr, "CRE POL CNG UNR POL CNG CON ACK DIS")
		if d := second.Sub(first); d < time.Second || d > 5*time.Second {
			t.Errorf("Retry-After %s: the next request came after %v", header, d)
		}
	}
}

// TestKeepAlive checks that connections are used again, by streams with the
// same trust only.
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
		c, err := runtime.NewContext(&policy.Policy{StreamTypes: types}, runtime.Options{
			Logger:     slog.New(slog.DiscardHandler),
			Transports: []transport.Transport{sshttp.New()},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				dials.Add(1)
				return new(net.Dialer).DialContext(ctx, network, address)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			name  string
			ok    bool
			dials int32
		}{{"a", true, 1}, {"a", true, 1}, {"b", true, 1}, {"wrong", false, 2}, {"system", false, 3}, {"a", true, 3},
			{"urgent", true, 4}, {"fast", true, 5}, {"urgent", true, 5}, {"a", true, 5}} {
			tr := &trace{}
			s, err := c.NewStream(step.name, tr.handlers())
			if err != nil {
				t.Fatal(err)
			}
			s.RequestTx()
			tr.AwaitEnd(t, "DIS", "ARF")
			if ok := strings.Contains(tr.String(), "ACK"); ok != step.ok || dials.Load() != step.dials {
				t.Errorf("%v, stream %s: %s, %d dials so far, want success %v with %d", protocol, step.name, tr, dials.Load(), step.ok, step.dials)
			}
		}
		c.Close()
	}
}

func TestUnix(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "s"), "@sspolicy-test-" + fmt.Sprint(time.Now().UnixNano())} {
		if name[0] == '@' && goruntime.GOOS != "linux" {
			continue // no other system has abstract names
		}
		ln, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.URL) })}
		go hs.Serve(ln)
		tr, _ := fetch(t, policy.StreamType{Endpoint: "+" + name, HTTP: &policy.HTTP{URL: "/x?y"}}, netip.AddrPort{}, runtime.Handlers{
			Rx: nil,
		}, nil)
		want(t, tr, fetched)
		if string(tr.body) != "localhost/x?y" {
			t.Errorf("the server saw %s", tr.body)
		}
		hs.Close()
	}
}

// TestCloseInFlight closes the context at each point of a transaction.
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
		tr := &trace{on: on{"CRE": connect}}
		c, _ := newStream(t, policy.StreamType{HTTP: &policy.HTTP{URL: path}}, addr, tr, runtime.Options{})
		tr.await(t, len(strings.Fields(want))-2)
		c.Close()
		if got := tr.String(); got != want && got != strings.Replace(want, " DIS", "", 1) {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
	close(release)

	// A peer that accepts and never says a word, not even for TLS.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	tr := &trace{on: on{"CRE": connect}}
	c, _ := newStream(t, policy.StreamType{TLS: true}, ln.Addr().(*net.TCPAddr).AddrPort(), tr, runtime.Options{})
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c.Close()
	want(t, tr, "CRE CNG DES")
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the connection outlived the context: %v", err)
	}
}

// TestMany runs many streams at once.
func TestMany(t *testing.T) {
	addr := serve(t, echo)
	c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{{Name: "s", Opportunistic: true,
		Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &policy.HTTP{Method: "POST"}}}},
		runtime.Options{Transports: []transport.Transport{sshttp.New()}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			tr := &trace{}
			h := tr.handlers()
			h.Tx = func(s *runtime.Stream, n uint32, buf []byte) (int, policy.Flags, policy.Result) {
				return copy(buf, fmt.Sprint(i, ":", n)), policy.FlagEOM, policy.OK
			}
			s, err := c.NewStream("s", h)
			if err != nil {
				t.Error(err)
				return
			}
			for n := range 20 {
				tr.body = nil
				tr.Reset()
				s.RequestTx()
				tr.AwaitEnd(t, "DIS", "ARF")
				if string(tr.body) != fmt.Sprint(i, ":", n) {
					t.Errorf("stream %d got %q: %s %v", i, tr.body, tr, s.Err())
				}
			}
		})
	}
	wg.Wait()
	c.Close()
}
