package http_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestCredentialHeaders checks the headers with credentials, and that nothing is sent if
// one is missing.
func TestCredentialHeaders(t *testing.T) {
	var conns atomic.Int32
	addr := server{conn: func(c net.Conn) {
		conns.Add(1)
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		_, head, _ := strings.Cut(string(buf[:n]), "\r\n")
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(head), head)
	}}.start(t)
	blobs := func(b ...any) *credentials.Memory {
		m := new(credentials.Memory)
		for i := 0; i < len(b); i += 3 {
			m.SetBlob(b[i].(policy.Blob), b[i+1].(int), b[i+2].(string))
		}
		return m
	}
	auth := policy.HTTP{AuthHeader: "authorization:", AuthPreamble: "Bearer "}
	basic, err := credentials.BasicAuth("Aladdin", "open sesame") // of RFC 7617 section 2
	if err != nil {
		t.Fatal(err)
	}
	all := policy.HTTP{AuthHeader: "x-auth", DSNHeader: "x-dsn:", FWVHeader: "X-Fwv:", DevTypeHeader: "x-dev:"}
	for _, tt := range []struct {
		name  string
		h     policy.HTTP
		auth  *policy.Auth
		creds transport.Credentials
		meta  map[string]string
		want  string // headers after Host; "-" means that no connection is made
		err   error
	}{
		{name: "token", h: auth, creds: blobs(policy.BlobAuth, 0, "secret"), want: "Authorization: Bearer secret\r\n"},
		{name: "token of an index", h: auth, auth: &policy.Auth{Type: "x", Blob: 3}, creds: blobs(policy.BlobAuth, 0, "zero", policy.BlobAuth, 3, "three"),
			want: "Authorization: Bearer three\r\n"},
		{name: "all", h: all, creds: blobs(policy.BlobAuth, 0, "a", policy.BlobDeviceSerial, 0, "1", policy.BlobFirmwareVersion, 0, "2", policy.BlobDeviceType, 0, "3"),
			want: "X-Auth: a\r\nX-Dev: 3\r\nX-Dsn: 1\r\nX-Fwv: 2\r\n"},
		{name: "Basic as a token", h: policy.HTTP{AuthHeader: "authorization:", AuthPreamble: "Basic "}, creds: blobs(policy.BlobAuth, 0, basic), want: "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"},
		{name: "Basic as metadata", meta: map[string]string{"auth": "Basic " + basic}, want: "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"},
		{name: "hex digits", h: auth, creds: credentials.HexAuth{Credentials: blobs(policy.BlobAuth, 0, "\x00\n\xff")}, want: "Authorization: Bearer 000aff\r\n"},
		{name: "no token", h: auth, creds: blobs(policy.BlobAuth, 1, "secret"), want: "-", err: transport.ErrNoCredentials},
		{name: "empty token", h: auth, creds: blobs(policy.BlobAuth, 0, ""), want: "-", err: transport.ErrNoCredentials},
		{name: "one of four is missing", h: all, creds: blobs(policy.BlobAuth, 0, "a", policy.BlobDeviceSerial, 0, "1", policy.BlobDeviceType, 0, "3"),
			want: "-", err: transport.ErrNoCredentials},
		{name: "line break", h: auth, creds: blobs(policy.BlobAuth, 0, "secret\r\nX-Evil: 1"), want: "-", err: transport.ErrBadCredentials},
		{name: "metadata too", h: auth, creds: blobs(policy.BlobAuth, 0, "secret"), meta: map[string]string{"auth": "secret"}, want: "-"},
		{name: "another control character", h: auth, creds: blobs(policy.BlobAuth, 0, "secret\x01"), want: "-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conns.Store(0)
			tr := &teststream.Trace{}
			var logged bytes.Buffer
			st := &policy.StreamType{Name: "s", Endpoint: addr.Addr().String(), Port: addr.Port(), Opportunistic: true, HTTP: &tt.h, Auth: tt.auth,
				Metadata: []policy.Metadata{{Name: "auth", Header: "Authorization:"}}}
			c := newPolicy(t, []*policy.StreamType{st}, runtime.Options{Credentials: tt.creds, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
			s, err := c.NewStream("s", handlers(tr))
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range tt.meta {
				s.SetMetadata(k, v)
			}
			s.RequestTx()
			tr.AwaitEnd(t, "DIS", "ARF")
			if tt.want == "-" {
				tr.Want(t, "CRE POL CNG UNR ARF")
				if conns.Load() != 0 || s.Err() == nil || tt.err != nil && !errors.Is(s.Err(), tt.err) {
					t.Errorf("%d connections, %v, want none, %v", conns.Load(), s.Err(), tt.err)
				}
				if strings.Contains(fmt.Sprintf("%v %+v %#v", s.Err(), s.Err(), s.Err()), "secret") || strings.Contains(logged.String(), "secret") {
					t.Errorf("the token is in an error or in the log: %v; %s", s.Err(), logged.String())
				}
				return
			}
			if got := tr.Body(); got != "Host: "+addr.String()+"\r\n"+tt.want+"\r\n" {
				t.Errorf("the server got %q: %s, %v", got, tr, s.Err())
			}
		})
	}
}

// TestCredentialsRefused checks policies that cannot be executed.
func TestCredentialsRefused(t *testing.T) {
	for _, tt := range []struct {
		h    policy.HTTP
		auth *policy.Auth
		none bool // without Options.Credentials
		want error
	}{
		{h: policy.HTTP{AuthHeader: "authorization:"}, none: true, want: transport.ErrNoCredentials},
		{h: policy.HTTP{AuthHeader: "transfer-encoding:"}, want: transport.ErrUnsupported},
		{h: policy.HTTP{AuthHeader: "host"}, want: transport.ErrUnsupported},
		{h: policy.HTTP{AuthHeader: "a b:"}, want: transport.ErrUnsupported},
		{h: policy.HTTP{AuthHeader: "x\r\ny:"}, want: transport.ErrUnsupported},
		{h: policy.HTTP{AuthHeader: "x:", DSNHeader: "X"}, want: transport.ErrUnsupported},
		{h: policy.HTTP{AuthHeader: "x:", AuthPreamble: "a\r\nb"}, want: transport.ErrUnsupported},
		{auth: &policy.Auth{Type: "x"}, want: transport.ErrUnsupported},
	} {
		o := runtime.Options{Credentials: new(credentials.Memory)}
		if tt.none {
			o.Credentials = nil
		}
		c := newPolicy(t, []*policy.StreamType{{Name: "s", Endpoint: "h", HTTP: &tt.h, Auth: tt.auth}}, o)
		if _, err := c.NewStream("s", runtime.Handlers{}); !errors.Is(err, tt.want) {
			t.Errorf("%+v, %+v: %v", tt.h, tt.auth, err)
		}
	}
}

// TestCredentialsOnRedirect checks that credentials are not sent to another server,
// whatever header they are in.
func TestCredentialsOnRedirect(t *testing.T) {
	own := testcert.New("own")
	headers := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s|%s|%s", r.Header.Get("X-Token"), r.Header.Get("X-Dsn"), r.Header.Get("X-M"))
	}
	to := ""
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/start" {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		headers(w, r)
	})
	other := serve(t, headers)
	plain := serve(t, h)
	back := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+plain.String()+"/end", http.StatusFound)
	})
	secure := server{handler: h, tls: own.Server(nil, "127.0.0.1")}.start(t)
	for name, tt := range map[string]struct {
		from     netip.AddrPort
		to, want string
	}{
		"same origin":    {plain, "/end", "secret|serial|m"},
		"other port":     {plain, "http://" + other.String(), "||m"},
		"to TLS":         {plain, "https://" + secure.String() + "/end", "||m"},
		"there and back": {plain, "http://" + back.String(), "||m"},
	} {
		to = tt.to
		creds := new(credentials.Memory)
		creds.SetBlob(policy.BlobAuth, 0, "secret")
		creds.SetBlob(policy.BlobDeviceSerial, 0, "serial")
		tr := &teststream.Trace{On: teststream.Actions{"CRE": func(s *runtime.Stream) policy.Result { s.SetMetadata("m", "m"); return teststream.RequestTx(s) }}}
		_, s := newStream(t, policy.StreamType{Opportunistic: true, TrustStore: own.Store(), Metadata: []policy.Metadata{{Name: "m", Header: "x-m:"}},
			HTTP: &policy.HTTP{URL: "/start", AllowRedirects: true, AuthHeader: "x-token:", DSNHeader: "x-dsn:"}}, tt.from, tr, runtime.Options{Credentials: creds})
		tr.AwaitEnd(t, "DIS", "ARF")
		if tr.Body() != tt.want {
			t.Errorf("%s: the last server got %q, want %q: %v", name, tr.Body(), tt.want, s.Err())
		}
	}
}

// TestClientCertificates checks that a server receives the certificate that the policy
// names, over h1 and h2, and that no connection is made without it.
func TestClientCertificates(t *testing.T) {
	own, clients, strangers := testcert.New("own"), testcert.New("clients"), testcert.New("strangers")
	for _, protocol := range []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2} {
		config := own.Server([]string{"h2", "http/1.1"}, "127.0.0.1")
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs = clients.Pool()
		var mu sync.Mutex
		conns := map[string]bool{}
		to := ""
		addr := server{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			conns[r.RemoteAddr] = true
			if r.URL.Path == "/redirect" {
				http.Redirect(w, r, to, http.StatusFound)
				return
			}
			fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber)
		}), tls: config}.start(t)
		other := server{handler: status(200, "x"), tls: own.Server([]string{"h2", "http/1.1"}, "127.0.0.1")}.start(t)
		to = "https://" + other.String()

		creds := new(credentials.Memory)
		creds.SetClientCertificate(0, clients.Client(100))
		creds.SetClientCertificate(1, clients.Client(101))
		creds.SetClientCertificate(2, strangers.Client(102))
		var types []*policy.StreamType
		for name, cert := range map[string]uint8{"anonymous": 0, "zero": 1, "zero again": 1, "one": 2, "stranger": 3, "missing": 4, "redirect": 1} {
			st := &policy.StreamType{Name: name, Protocol: protocol, TLS: true, TrustStore: own.Store(), ClientCert: cert, Opportunistic: true,
				Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &policy.HTTP{AllowRedirects: true}}
			if len(types) > 0 {
				st.TrustStore = types[0].TrustStore
			}
			if name == "redirect" {
				st.HTTP.URL = "/redirect"
			}
			types = append(types, st)
		}
		c := newPolicy(t, types, runtime.Options{Credentials: creds})
		run := func(step, name, want string, nconns int, cause error) {
			t.Helper()
			tr := &teststream.Trace{}
			s, err := c.NewStream(name, handlers(tr))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Destroy()
			s.Connect()
			tr.AwaitEnd(t, "DIS", "ARF")
			mu.Lock()
			defer mu.Unlock()
			if tr.Body() != want || len(conns) != nconns || cause != nil && !errors.Is(s.Err(), cause) {
				t.Errorf("%v, %s: %s, the server answered %q over %d connections, want %q over %d: %v", protocol, step, tr, tr.Body(), len(conns), want, nconns, s.Err())
			}
			if want == "" && !strings.HasSuffix(tr.String(), "UNR ARF") {
				t.Errorf("%v, %s: %s", protocol, step, tr)
			}
		}
		run("first", "zero", "100", 1, nil)
		run("the same certificate", "zero again", "100", 1, nil)
		run("another index", "one", "101", 2, nil)
		run("no certificate", "anonymous", "", 2, nil)
		run("not of the server's authority", "stranger", "", 2, nil)
		run("missing", "missing", "", 2, transport.ErrNoCredentials)
		creds.SetClientCertificate(0, clients.Client(103))
		run("replaced", "zero", "103", 3, nil)
		creds.SetClientCertificate(0, nil)
		run("removed, while connections are kept", "zero", "", 3, transport.ErrNoCredentials)
		creds.SetClientCertificate(0, clients.Client(104))
		run("to another server", "redirect", "", 4, nil)
	}
}

// TestSessions checks that TLS sessions are resumed, but not by a stream with another
// client certificate or trust store, even with the same certificates.
func TestSessions(t *testing.T) {
	own := testcert.New("own")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := own.Server([]string{"http/1.1"}, "127.0.0.1")
		config.MinVersion, config.MaxVersion = version, version
		addr := server{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			io.WriteString(w, fmt.Sprint(r.TLS.DidResume))
		}), tls: config}.start(t)
		creds := new(credentials.Memory)
		creds.SetClientCertificate(0, own.Client(100))
		store, twin := own.Store(), own.Store()
		twin.Name = "twin" // names of stores are unique in a policy
		var types []*policy.StreamType
		for name, st := range map[string]policy.StreamType{
			"a": {TrustStore: store}, "b": {TrustStore: store}, "twin": {TrustStore: twin},
			"other": {TrustStore: testcert.New("other").Store()}, "system": {}, "client": {TrustStore: store, ClientCert: 1},
		} {
			st.Name, st.TLS, st.Opportunistic, st.HTTP = name, true, true, &policy.HTTP{}
			st.Endpoint, st.Port = addr.Addr().String(), addr.Port()
			types = append(types, &st)
		}
		c := newPolicy(t, types, runtime.Options{Credentials: creds})
		for i, step := range []struct{ name, resumed string }{
			{"a", "false"}, {"a", "true"}, {"b", "true"}, {"twin", "false"}, {"twin", "true"},
			{"other", ""}, {"system", ""}, {"client", "false"}, {"client", "true"}, {"a", "true"},
		} {
			tr := &teststream.Trace{}
			s, err := c.NewStream(step.name, handlers(tr))
			if err != nil {
				t.Fatal(err)
			}
			s.Connect()
			tr.AwaitEnd(t, "DIS", "ARF")
			if tr.Body() != step.resumed || (step.resumed == "") != isTLS(s.Err()) {
				t.Errorf("TLS %x, step %d, %s: resumed %q, want %q: %s, %v", version, i, step.name, tr.Body(), step.resumed, tr, s.Err())
			}
		}
	}
}

// TestDirectProtoStr checks headers that the policy does not declare.
func TestDirectProtoStr(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Answer", "42")
		fmt.Fprintf(w, "%s|%s|%s", r.Header.Values("X-Ask"), r.Header.Get("X-Mapped"), r.Host)
	})
	st := policy.StreamType{Opportunistic: true, DirectProtoStr: true, Metadata: []policy.Metadata{{Name: "mapped", Header: "x-mapped:"}}}
	answers := ""
	tr := &teststream.Trace{On: teststream.Actions{"CON": func(s *runtime.Stream) policy.Result {
		for _, name := range []string{"x-answer", "X-Answer:", "x-ask", "none"} {
			v, err := s.Metadata(name)
			answers += fmt.Sprintf("%s,%v;", v, err)
		}
		return policy.OK
	}}}
	_, s := newStream(t, st, addr, tr, runtime.Options{})
	for name, value := range map[string]string{"x-ask:": "old", "mapped": "m", "host": "other.test"} {
		if err := s.SetMetadata(name, value); err != nil {
			t.Error(err)
		}
	}
	if err := s.SetMetadata("X-ASK", "new"); err != nil {
		t.Error(err)
	}
	for name, value := range map[string]string{"x-evil": "a\r\nb", "x evil": "", "": "", ":": "", "x\r\ny": "z"} {
		if err := s.SetMetadata(name, value); !errors.Is(err, runtime.ErrMetadataValue) && !errors.Is(err, runtime.ErrUnknownMetadata) {
			t.Errorf("%q set to %q: %v", name, value, err)
		}
	}
	s.RequestTx()
	tr.AwaitEnd(t, "DIS", "ARF")
	if tr.Body() != "[new]|m|other.test" || answers != "42,<nil>;42,<nil>;new,<nil>;,<nil>;" {
		t.Errorf("the server got %q, the stream %q: %s, %v", tr.Body(), answers, tr, s.Err())
	}
	if err := s.SetMetadata("transfer-encoding", "chunked"); err != nil {
		t.Error(err)
	}
	s.Connect()
	tr.AwaitEnd(t, "UNR ARF")
	if _, ok := errors.AsType[*sshttp.HeaderError](s.Err()); !ok {
		t.Errorf("transfer-encoding: %v", s.Err())
	}
}
