package raw_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// record returns a config whose callbacks are recorded.
func (tr *trace) record(t *testing.T, c raw.Config) raw.Config {
	c.ModeChanged = func(k *raw.Socket, m raw.Mode) policy.Result {
		if st := k.State(); st.Mode != m || st.Encrypted {
			t.Errorf("ModeChanged(%v) in mode %v, encrypted %v", m, st.Mode, st.Encrypted)
		}
		return tr.Note(nil, m.String())
	}
	c.Encrypted = func(k *raw.Socket) policy.Result {
		if st := k.State(); !st.Encrypted || st.Mode == raw.Unencrypted || !st.TLS.HandshakeComplete {
			t.Errorf("Encrypted with state %+v", st)
		}
		return tr.Note(nil, "encrypted")
	}
	return c
}

// mail is a minimal SMTP server with STARTTLS (RFC 3207). It sends extra in clear after
// "220 go".
func mail(config *tls.Config, extra string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		io.WriteString(c, "220 hello\r\n")
		for {
			text := line(r)
			switch text {
			case "":
				if secure, ok := c.(*tls.Conn); ok {
					secure.Close()
				}
				return
			case "STARTTLS":
				io.WriteString(c, "220 go\r\n"+extra)
				secure := tls.Server(c, config)
				if secure.Handshake() != nil {
					return
				}
				c, r = secure, bufio.NewReader(secure)
			default:
				_, encrypted := c.(*tls.Conn)
				fmt.Fprintf(c, "250 %s encrypted=%v\r\n", text, encrypted)
			}
		}
	}
}

// TestStartTLS checks a dialogue that changes to TLS, with callbacks.
func TestStartTLS(t *testing.T) {
	addr := serve(t, mail(own.Server(nil, "127.0.0.1"), ""))
	c := newContext(t, runtime.Options{}, streamType(addr))
	tr := newTrace()
	started := false
	tr.rx = func(s *runtime.Stream, buf []byte) {
		if !started && strings.Contains(tr.Body(), "220 go\r\n") {
			started = true
			k := raw.Of(s)
			if err := k.StartTLS(0); err != nil {
				t.Error(err)
			}
			if st := k.State(); st.Mode != raw.TLSClient || st.Encrypted {
				t.Errorf("in the handshake: %+v", st)
			}
			if err := k.StartTLS(0); err != raw.ErrEncrypted {
				t.Errorf("a second time: %v", err)
			}
			for _, text := range []string{"one", "two", "three"} { // queued
				tr.send(s, text+"\r\n")
			}
		}
	}
	s := teststream.Must(c.NewStream("s", tr.handlers(), raw.With(tr.record(t, raw.Config{}))))
	if err := raw.Of(s).StartTLS(0); err != raw.ErrNotConnected || raw.Of(s).State().Mode != raw.Unencrypted {
		t.Errorf("without a connection: %v", err)
	}
	s.Connect()
	tr.awaitBody(t, "220 hello\r\n")
	tr.send(s, "clear\r\n")
	tr.awaitBody(t, "250 clear encrypted=false\r\n")
	tr.send(s, "STARTTLS\r\n")
	tr.awaitBody(t, "250 one encrypted=true\r\n250 two encrypted=true\r\n250 three encrypted=true\r\n")
	if st := raw.Of(s).State(); st.Mode != raw.TLSClient || !st.Encrypted || len(st.TLS.VerifiedChains) == 0 || st.TLS.Version < tls.VersionTLS12 {
		t.Errorf("encrypted: %+v", st)
	}
	if err := raw.Of(s).StartTLS(0); err != raw.ErrEncrypted {
		t.Errorf("when encrypted: %v", err)
	}
	tr.send(s, "\r\n") // the server closes the connection
	tr.awaitEvent(t, "DIS")
	tr.Want(t, "CRE CNG CON rx client encrypted rx unencrypted DIS")
	if st := raw.Of(s).State(); st.Mode != raw.Unencrypted || st.Encrypted {
		t.Errorf("afterwards: %+v", st)
	}
}

// TestStartTLSConn is TestStartTLS with a Conn.
func TestStartTLSConn(t *testing.T) {
	addr := serve(t, mail(own.Server(nil, "127.0.0.1"), ""))
	c := newContext(t, runtime.Options{}, streamType(addr))
	conn := teststream.Must(c.Open(t.Context(), "s"))
	defer conn.Close()
	r := bufio.NewReader(conn)
	say := func(text, want string) {
		t.Helper()
		if text != "" {
			if _, err := io.WriteString(conn, text+"\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		if got := line(r); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	say("", "220 hello")
	say("a", "250 a encrypted=false")
	say("STARTTLS", "220 go")
	if err := raw.Of(conn).StartTLS(r.Buffered()); err != nil {
		t.Fatal(err)
	}
	say("b", "250 b encrypted=true")
	say("c", "250 c encrypted=true")
	if st := raw.Of(conn).State(); !st.Encrypted {
		t.Errorf("%+v", st)
	}
}

// TestPlaintext checks plaintext from the peer after the start of TLS.
func TestPlaintext(t *testing.T) {
	config := own.Server(nil, "127.0.0.1")
	// The program has received it.
	addr := serve(t, mail(config, "250 injected\r\n"))
	c := newContext(t, runtime.Options{}, streamType(addr))
	tr := newTrace()
	tr.rx = func(s *runtime.Stream, _ []byte) {
		if _, rest, found := strings.Cut(tr.Body(), "220 go\r\n"); found {
			if err := raw.Of(s).StartTLS(len(rest)); rest != "" && err != raw.ErrPlaintext {
				t.Errorf("with %q: %v", rest, err)
			}
		}
	}
	s := teststream.Must(c.NewStream("s", tr.handlers()))
	s.Connect()
	tr.awaitBody(t, "220 hello\r\n")
	tr.send(s, "STARTTLS\r\n")
	tr.awaitEvent(t, "DIS")
	if !errors.Is(s.Err(), raw.ErrPlaintext) {
		t.Error(s.Err())
	}
	// The runtime holds it: a Conn of which only the first line has been read.
	conn := teststream.Must(c.Open(t.Context(), "s"))
	defer conn.Close()
	read := func(n int) {
		t.Helper()
		if _, err := io.ReadFull(conn, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	read(len("220 hello\r\n"))
	io.WriteString(conn, "STARTTLS\r\n")
	read(len("220 go\r\n"))
	if err := raw.Of(conn).StartTLS(0); err != raw.ErrPlaintext {
		t.Errorf("with an unread line: %v", err)
	}
	// It arrives during the handshake.
	late := serve(t, func(c net.Conn) {
		io.WriteString(c, "220 go\r\n")
		r := bufio.NewReader(c)
		r.ReadByte() // the handshake has begun
		io.WriteString(c, "250 injected\r\n")
		io.Copy(io.Discard, r)
	})
	c = newContext(t, runtime.Options{}, streamType(late))
	tr = newTrace()
	tr.rx = func(s *runtime.Stream, _ []byte) { raw.Of(s).StartTLS(0) }
	s = teststream.Must(c.NewStream("s", tr.handlers()))
	s.Connect()
	tr.awaitEvent(t, "DIS")
	var header tls.RecordHeaderError
	if got := tr.Body(); got != "220 go\r\n" || !errors.As(s.Err(), &header) {
		t.Errorf("received %q, %v", got, s.Err())
	}
}

// TestVerify checks each kind of verification with each kind of peer.
func TestVerify(t *testing.T) {
	stranger := testcert.New("stranger")
	good, bad, wrongName := own.Server(nil, "127.0.0.1"), stranger.Server(nil, "127.0.0.1"), own.Server(nil, "elsewhere.test")
	for _, tt := range []struct {
		name   string
		verify raw.PeerVerify
		server *tls.Config
		ok     bool
		chain  bool // State has the chain of the peer
		wrong  bool // State has a VerifyError
	}{
		{"auto, good", raw.VerifyAuto, good, true, true, false},
		{"auto, bad", raw.VerifyAuto, bad, false, false, false},
		{"auto, wrong name", raw.VerifyAuto, wrongName, false, false, false},
		{"verify, good", raw.VerifyPeer, good, true, true, false},
		{"verify, bad", raw.VerifyPeer, bad, false, false, false},
		{"query, good", raw.QueryPeer, good, true, true, false},
		{"query, bad", raw.QueryPeer, bad, true, true, true},
		{"query, wrong name", raw.QueryPeer, wrongName, true, true, true},
		{"none, good", raw.VerifyNone, good, true, false, false},
		{"none, bad", raw.VerifyNone, bad, true, false, false},
	} {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/later=%v", tt.name, later), func(t *testing.T) {
				addr := serveTLS(t, tt.server, echo)
				c := newContext(t, runtime.Options{}, streamType(addr, secure))
				tr := newTrace()
				if later {
					tr.On["CON"] = func(s *runtime.Stream) policy.Result {
						if err := raw.Of(s).StartTLS(0); err != nil {
							t.Error(err)
						}
						return policy.OK
					}
				}
				s := teststream.Must(c.NewStream("s", tr.handlers(), raw.With(tr.record(t, raw.Config{Verify: tt.verify, Later: later}))))
				tr.send(s, "ping")
				want := "CRE POL CNG client encrypted CON rx"
				switch {
				case tt.ok && later:
					want = "CRE POL CNG CON client encrypted rx"
				case later:
					want = "CRE POL CNG CON client unencrypted DIS"
				case !tt.ok:
					want = "CRE POL CNG client unencrypted UNR ARF"
				}
				tr.awaitEvent(t, want[strings.LastIndexByte(want, ' ')+1:])
				tr.Want(t, want)
				st := raw.Of(s).State()
				if got := len(st.TLS.PeerCertificates) > 0; got != tt.chain {
					t.Errorf("State has the chain: %v", got)
				}
				if (st.VerifyError != nil) != tt.wrong {
					t.Errorf("VerifyError is %v", st.VerifyError)
				}
				if !tt.ok {
					var handshake *raw.HandshakeError
					var verify *tls.CertificateVerificationError
					if !errors.As(s.Err(), &handshake) || handshake.Mode != raw.TLSClient || !errors.As(s.Err(), &verify) {
						t.Errorf("Err returns %v", s.Err())
					}
				}
			})
		}
	}
}

// TestRoots checks which roots a client trusts: those of the config, else those of the
// trust store, else those of the system.
func TestRoots(t *testing.T) {
	addr := serveTLS(t, system.Server(nil, "127.0.0.1"), echo)
	other := testcert.New("other")
	for _, tt := range []struct {
		name  string
		store *policy.TrustStore
		c     *tls.Config
		want  string
	}{
		{"none", nil, nil, "CON"},
		{"own", own.Store(), nil, "UNR"},
		{"own, none in the config", own.Store(), &tls.Config{}, "UNR"},
		{"own, system's in the config", own.Store(), &tls.Config{RootCAs: system.Pool()}, "CON"},
		{"none, other in the config", nil, &tls.Config{RootCAs: other.Pool()}, "UNR"},
		{"own, no verification in the config", own.Store(), &tls.Config{InsecureSkipVerify: true}, "UNR"},
		{"another name", nil, &tls.Config{ServerName: "elsewhere.test"}, "UNR"},
		{"TLS 1.1 at most", nil, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "UNR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := streamType(addr, secure)
			st.TrustStore = tt.store
			c := newContext(t, runtime.Options{}, st)
			tr := newTrace()
			s := teststream.Must(c.NewStream("s", tr.handlers(), raw.With(raw.Config{TLS: tt.c})))
			s.Connect()
			tr.AwaitEnd(t, "CON", "ARF")
			if !strings.Contains(tr.String(), tt.want) {
				t.Errorf("got %s (%v)", tr, s.Err())
			}
		})
	}
}

// TestSetConfig checks that a config takes effect at the next handshake.
func TestSetConfig(t *testing.T) {
	stranger := testcert.New("stranger")
	addr := serveTLS(t, stranger.Server(nil, "127.0.0.1"), echo)
	c := newContext(t, runtime.Options{}, streamType(addr, secure))
	tr := newTrace()
	s := teststream.Must(c.NewStream("s", tr.handlers()))
	s.Connect()
	tr.awaitEvent(t, "ARF")
	raw.Of(s).SetConfig(raw.Config{Verify: raw.QueryPeer})
	s.Connect()
	tr.awaitEvent(t, "CON")
	raw.Of(s).SetConfig(raw.Config{})
	tr.send(s, "hello") // under the config of its handshake
	tr.awaitBody(t, "hello")
	if st := raw.Of(s).State(); st.VerifyError == nil || len(st.TLS.PeerCertificates) == 0 {
		t.Errorf("%+v", st)
	}
}

// TestServer checks the server side, on connections that the program has accepted,
// with each kind of verification of the client.
func TestServer(t *testing.T) {
	cert := own.Server(nil, "127.0.0.1")
	for _, tt := range []struct {
		name   string
		verify raw.PeerVerify
		client *tls.Certificate
		ok     bool
		chain  bool
		wrong  error
	}{
		{"auto, no certificate", raw.VerifyAuto, nil, true, false, raw.ErrNoPeerCertificate},
		{"query, good", raw.QueryPeer, own.Client(1), true, true, nil},
		{"query, bad", raw.QueryPeer, system.Client(1), true, true, x509.UnknownAuthorityError{}},
		{"none", raw.VerifyNone, own.Client(1), true, false, nil},
		{"verify, good", raw.VerifyPeer, own.Client(1), true, true, nil},
		{"verify, bad", raw.VerifyPeer, system.Client(1), false, false, nil},
		{"verify, no certificate", raw.VerifyPeer, nil, false, false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ln := testserver.Listen(t)
			defer ln.Close()
			client := teststream.Must(net.Dial("tcp", ln.Addr().String()))
			defer client.Close()
			accepted := teststream.Must(ln.Accept())
			waits := 0
			c := newContext(t, runtime.Options{Hooks: runtime.Hooks{
				Wait: func(context.Context, *runtime.Stream, time.Duration) { waits++ }}}, streamType(ln.Addr(), retry(5)))
			tr := newTrace()
			tr.rx = func(s *runtime.Stream, buf []byte) {
				switch string(buf) {
				case "STARTTLS\r\n":
					if err := raw.Of(s).StartServerTLS(0, []byte("220 go\r\n")); err != nil {
						t.Error(err)
					}
				default:
					tr.send(s, "250 "+string(buf))
				}
			}
			s := teststream.Must(c.NewStream("s", tr.handlers(), raw.Adopt(accepted, raw.Unencrypted, tr.record(t, raw.Config{Verify: tt.verify, TLS: cert}))))
			r := bufio.NewReader(client)
			io.WriteString(client, "a\r\n")
			if got := line(r); got != "250 a" {
				t.Errorf("%q", got)
			}
			io.WriteString(client, "STARTTLS\r\n")
			if got := line(r); got != "220 go" {
				t.Errorf("%q", got)
			}
			config := &tls.Config{RootCAs: own.Pool(), ServerName: "127.0.0.1"}
			if tt.client != nil {
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return tt.client, nil }
			}
			secured := tls.Client(client, config)
			want := "CRE CNG CON rx server unencrypted DIS"
			if tt.ok {
				want = "CRE CNG CON rx server encrypted rx unencrypted DIS"
				r = bufio.NewReader(secured)
				io.WriteString(secured, "b\r\n")
				if got := line(r); got != "250 b" {
					t.Errorf("%q", got)
				}
				st := raw.Of(s).State()
				if st.Mode != raw.TLSServer || (len(st.TLS.PeerCertificates) > 0) != tt.chain || (st.VerifyError == nil) != (tt.wrong == nil) {
					t.Errorf("%+v", st)
				}
				secured.Close()
			} else {
				secured.Handshake()
				io.Copy(io.Discard, secured)
			}
			tr.awaitEvent(t, "DIS")
			tr.Settle(t, s)
			tr.Want(t, want+" TMO TMO")
			if waits > 0 {
				t.Error("a retry follows")
			}
			var handshake *raw.HandshakeError
			if !tt.ok && (!errors.As(s.Err(), &handshake) || handshake.Mode != raw.TLSServer) {
				t.Errorf("Err returns %v", s.Err())
			}
		})
	}
}

// TestServerPlaintext checks a client that continues in clear after STARTTLS.
func TestServerPlaintext(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := newContext(t, runtime.Options{}, streamType(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}))
	conn := teststream.Must(c.Open(t.Context(), "s", raw.Adopt(ours, raw.Unencrypted, raw.Config{TLS: own.Server(nil, "127.0.0.1")})))
	defer conn.Close()
	go io.WriteString(theirs, "STARTTLS\r\nRCPT TO:<you@example.com>\r\n")
	buf := make([]byte, len("STARTTLS\r\n"))
	if _, err := io.ReadFull(conn, buf); err != nil {
		t.Fatal(err)
	}
	if err := raw.Of(conn).StartServerTLS(0, []byte("220 go\r\n")); err != raw.ErrPlaintext {
		t.Error(err)
	}
	// The writer may have begun before, and takes the piece then, though it cannot send it.
	_, err := conn.Write([]byte("x"))
	if err == nil {
		err = conn.Flush(t.Context())
	}
	if !errors.Is(err, raw.ErrPlaintext) {
		t.Errorf("then Write and Flush: %v", err)
	}
}

// TestAdoptRole checks that an adopted connection starts TLS in the role that the program
// selects, independently of the policy.
func TestAdoptRole(t *testing.T) {
	for _, change := range []func(*policy.StreamType){func(*policy.StreamType) {}, secure} {
		for _, role := range []raw.Mode{raw.Unencrypted, raw.TLSClient, raw.TLSServer} {
			ours, theirs := net.Pipe()
			c := newContext(t, runtime.Options{}, streamType(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, change))
			go func() {
				switch role {
				case raw.TLSClient:
					theirs = tls.Server(theirs, own.Server(nil, "127.0.0.1"))
				case raw.TLSServer: // speaks first
					theirs = tls.Client(theirs, &tls.Config{RootCAs: own.Pool(), ServerName: "127.0.0.1"})
				}
				echo(theirs)
			}()
			conn, err := c.Open(t.Context(), "s", raw.Adopt(ours, role, raw.Config{TLS: own.Server(nil, "127.0.0.1")}))
			if err != nil {
				t.Fatalf("%v: %v", role, err)
			}
			buf := make([]byte, 5)
			io.WriteString(conn, "hello")
			if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "hello" {
				t.Errorf("%v: %q, %v", role, buf, err)
			}
			if st := raw.Of(conn).State(); st.Mode != role || st.Encrypted != (role != raw.Unencrypted) {
				t.Errorf("%v: %+v", role, st)
			}
			conn.Close()
		}
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := newContext(t, runtime.Options{}, streamType(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}))
	if _, err := c.Open(t.Context(), "s", raw.Adopt(ours, raw.TLSServer, raw.Config{})); !errors.Is(err, raw.ErrNoCertificate) {
		t.Errorf("without a certificate: %v", err)
	}
}

// TestAdopt checks streams of adopted connections.
func TestAdopt(t *testing.T) {
	ours, theirs := net.Pipe()
	c := newContext(t, runtime.Options{}, streamType(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, retry(5)))
	tr := newTrace()
	option := raw.Adopt(ours, raw.Unencrypted, raw.Config{})
	s := teststream.Must(c.NewStream("s", tr.handlers(), option))
	if err := raw.Of(s).StartServerTLS(0, nil); err != raw.ErrNoCertificate && err != raw.ErrNotConnected {
		t.Errorf("without a certificate: %v", err)
	}
	go func() {
		io.WriteString(theirs, "hello")
		theirs.Close()
	}()
	tr.awaitEvent(t, "DIS")
	s.RequestTx() // the stream does not connect again
	tr.awaitEvent(t, "ARF")
	if want := "CRE CNG CON rx DIS POL CNG UNR ARF"; tr.String() != want || tr.Body() != "hello" || !errors.Is(s.Err(), raw.ErrAdopted) {
		t.Errorf("got %s, %q (%v)\nwant %s", tr, tr.Body(), s.Err(), want)
	}
	// A stream that does not use the connection closes it.
	ours, theirs = net.Pipe()
	tr = newTrace()
	tr.On["CNG"] = func(*runtime.Stream) policy.Result { return policy.DestroyMe }
	c.NewStream("s", tr.handlers(), raw.Adopt(ours, raw.Unencrypted, raw.Config{}))
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is not closed: %v", err)
	}
	// A policy need not have an endpoint for it. A stream without either fails.
	bare := newContext(t, runtime.Options{}, &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw})
	ours, theirs = net.Pipe()
	tr = newTrace()
	teststream.Must(bare.NewStream("s", tr.handlers(), raw.Adopt(ours, raw.Unencrypted, raw.Config{})))
	go func() {
		io.WriteString(theirs, "hello")
		theirs.Close()
	}()
	if tr.awaitEvent(t, "DIS"); tr.Body() != "hello" {
		t.Errorf("without an endpoint: %q", tr.Body())
	}
	tr = newTrace()
	lone := teststream.Must(bare.NewStream("s", tr.handlers()))
	lone.RequestTx()
	if tr.awaitEvent(t, "ARF"); !errors.Is(lone.Err(), policy.ErrEndpoint) {
		t.Errorf("neither an endpoint nor a connection: %v", lone.Err())
	}
	// use_auth is not supported.
	h1 := streamType(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})
	h1.Protocol = policy.ProtocolRaw
	h1.Auth = &policy.Auth{Name: "a"}
	refuse := newContext(t, runtime.Options{Credentials: &credentials.Memory{}}, h1)
	if _, err := refuse.NewStream("s", runtime.Handlers{}); !errors.Is(err, transport.ErrUnsupported) {
		t.Errorf("use_auth: %v", err)
	}
}

// TestOpenSSL tests against openssl: its server, and its client with STARTTLS of SMTP.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl (Debian package openssl) is needed")
	}
	dir := t.TempDir()
	testcert.WritePEM(filepath.Join(dir, "cert.pem"), own.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1"))

	t.Run("s_server", func(t *testing.T) {
		addr := net.TCPAddrFromAddrPort(testserver.FreePort(t))
		cmd := exec.Command(openssl, "s_server", "-accept", addr.String(), "-cert", filepath.Join(dir, "cert.pem"), "-rev", "-quiet")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			cmd.Process.Kill()
			cmd.Wait()
		}()
		c := newContext(t, runtime.Options{}, streamType(addr, secure, retry(10_000)))
		conn := teststream.Must(c.Open(t.Context(), "s"))
		defer conn.Close()
		io.WriteString(conn, "hello\n")
		if got := line(bufio.NewReader(conn)); got != "olleh" {
			t.Errorf("%q", got)
		}
	})
	t.Run("s_client -starttls smtp", func(t *testing.T) {
		ln := testserver.Listen(t)
		defer ln.Close()
		cmd := exec.Command(openssl, "s_client", "-connect", ln.Addr().String(), "-starttls", "smtp", "-quiet", "-verify_quiet")
		in := teststream.Must(cmd.StdinPipe())
		out := teststream.Must(cmd.StdoutPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			cmd.Process.Kill()
			cmd.Wait()
		}()
		accepted := teststream.Must(ln.Accept())
		c := newContext(t, runtime.Options{}, streamType(ln.Addr()))
		conn := teststream.Must(c.Open(t.Context(), "s", raw.Adopt(accepted, raw.Unencrypted, raw.Config{TLS: own.Server(nil, "127.0.0.1")})))
		defer conn.Close()
		io.WriteString(conn, "220 hello\r\n")
		r := bufio.NewReader(conn)
		if got := line(r); !strings.HasPrefix(got, "EHLO") {
			t.Fatalf("%q", got)
		}
		io.WriteString(conn, "250-hello\r\n250 STARTTLS\r\n")
		if got := line(r); got != "STARTTLS" {
			t.Fatalf("%q", got)
		}
		if err := raw.Of(conn).StartServerTLS(r.Buffered(), []byte("220 go\r\n")); err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "250 under TLS\r\n")
		if got := line(bufio.NewReader(out)); got != "250 under TLS" && got != "250 STARTTLS" {
			t.Errorf("%q", got)
		}
		io.WriteString(in, "NOOP\n")
		if got := line(r); got != "NOOP" {
			t.Errorf("%q", got)
		}
		if st := raw.Of(conn).State(); st.Mode != raw.TLSServer || !st.Encrypted {
			t.Errorf("%+v", st)
		}
	})
}

// An injector is a connection from which plaintext arrives while StartTLS stops its
// reader.
type injector struct {
	net.Conn
	data chan string
}

func (c *injector) Read(b []byte) (int, error) { return copy(b, <-c.data), nil }

func (c *injector) SetReadDeadline(time.Time) error {
	select {
	case c.data <- "250 injected\r\n":
	default:
	}
	return nil
}

// TestPlaintextDuringStart checks plaintext that arrives during StartTLS.
func TestPlaintextDuringStart(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := newContext(t, runtime.Options{}, streamType(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}))
	tr := newTrace()
	conn := &injector{ours, make(chan string, 1)}
	s := teststream.Must(c.NewStream("s", tr.handlers(), raw.Adopt(conn, raw.Unencrypted, raw.Config{})))
	conn.data <- "220 go\r\n"
	tr.awaitBody(t, "220 go\r\n")
	if err := raw.Of(s).StartTLS(0); err != nil {
		t.Error(err)
	}
	tr.awaitEvent(t, "DIS")
	if tr.Body() != "220 go\r\n" || !errors.Is(s.Err(), raw.ErrPlaintext) {
		t.Errorf("received %q, %v", tr.Body(), s.Err())
	}
}

// TestTruncated checks that a TLS connection ends normally only with a close_notify.
func TestTruncated(t *testing.T) {
	config := own.Server(nil, "127.0.0.1")
	for _, tt := range []struct {
		name string
		end  func(*tls.Conn)
		want error
	}{
		{"close_notify", func(c *tls.Conn) { c.Close() }, io.EOF},
		{"FIN alone", func(c *tls.Conn) { c.NetConn().Close() }, io.ErrUnexpectedEOF},
	} {
		addr := serve(t, func(c net.Conn) {
			secured := tls.Server(c, config)
			io.WriteString(secured, "hello")
			tt.end(secured)
		})
		c := newContext(t, runtime.Options{}, streamType(addr, secure))
		tr := newTrace()
		s := teststream.Must(c.NewStream("s", tr.handlers()))
		s.Connect()
		tr.awaitEvent(t, "DIS")
		if tr.Body() != "hello" || !errors.Is(s.Err(), tt.want) {
			t.Errorf("%s: received %q, Err returns %v, want %v", tt.name, tr.Body(), s.Err(), tt.want)
		}
	}
}

// TestCertificateNames checks that names in a certificate are escaped in the log.
func TestCertificateNames(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a\nERROR forged\x1b[31m"}}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	addr := serveTLS(t, config, func(c net.Conn) { c.(*tls.Conn).Handshake() })
	st := streamType(addr, secure)
	st.Endpoint = "localhost"
	c := newContext(t, runtime.Options{}, st)
	tr := newTrace()
	s := teststream.Must(c.NewStream("s", tr.handlers()))
	s.Connect()
	tr.awaitEvent(t, "UNR")
	var handshake *raw.HandshakeError
	if err := s.Err(); !errors.As(err, &handshake) || strings.ContainsAny(err.Error(), "\n\x1b") || !strings.Contains(err.Error(), `a\nERROR forged\x1b`) {
		t.Errorf("got %q", err)
	}
}

// TestDestroyUnread checks that the end of a stream waits 1 s, not 5 s, to send
// close_notify to a peer that does not read.
func TestDestroyUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go func() {
			peer := tls.Server(theirs, own.Server(nil, "peer.example"))
			_ = peer.Handshake()
		}()
		defer theirs.Close()
		st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "peer.example", Port: 1, TLS: true, TrustStore: own.Store()}
		c := newContext(t, runtime.Options{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil },
		}, st)
		tr := newTrace()
		tr.Prefix = teststream.Elapsed(0)
		s := teststream.Must(c.NewStream("s", tr.handlers()))
		s.Connect()
		synctest.Wait()
		tr.send(s, "unread")
		synctest.Wait()
		s.Destroy()
		time.Sleep(10 * time.Second)
		tr.Want(t, "CRE CNG CON 1s:DIS 1s:DES")
	})
}
