package raw_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// rawServer returns a server streamtype "s".
func rawServer(change ...func(*policy.StreamType)) *policy.StreamType {
	st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Server: true, Endpoint: "127.0.0.1"}
	for _, f := range change {
		f(st)
	}
	return st
}

// echoing returns the handlers of a stream that echoes.
func echoing(tr *trace) runtime.Handlers {
	tr.rx = func(s *runtime.Stream, b []byte) { tr.send(s, string(b)) }
	return tr.handlers()
}

func TestRawServer(t *testing.T) {
	cert := system.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")
	socket := filepath.Join(t.TempDir(), "socket")
	for _, tt := range []struct {
		name string
		st   *policy.StreamType
	}{
		{"tcp", rawServer()},
		{"tls", rawServer(secure, func(st *policy.StreamType) {
			st.ServerCert = &policy.Cert{Name: "cert", DER: string(cert.Certificate[0])}
			st.ServerKey = &policy.Cert{Name: "key", DER: string(testcert.KeyDER(cert))}
		})},
		{"unix", rawServer(func(st *policy.StreamType) { st.Endpoint = "+" + socket })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newContext(t, runtime.Options{}, tt.st)
			client, listener := newTrace(), newTrace()
			s, err := c.NewStream("s", listener.handlers(), runtime.WithClients(func(*runtime.Stream) runtime.Handlers { return echoing(client) }))
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial(s.Addr().Network(), s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if tt.st.TLS {
				conn = tls.Client(conn, &tls.Config{RootCAs: system.Pool(), ServerName: "127.0.0.1"})
			}
			defer conn.Close()
			io.WriteString(conn, "hello")
			if buf := make([]byte, 5); true {
				if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "hello" {
					t.Fatalf("%q %v", buf, err)
				}
			}
			conn.(interface{ CloseWrite() error }).CloseWrite()
			client.AwaitEnd(t, "DES")
			client.Want(t, "CRE CNG CON rx DIS DES")
			s.Destroy()
			listener.AwaitEnd(t, "DES")
			listener.Want(t, "CRE DES")
			if _, err := os.Stat(socket); tt.name == "unix" && err == nil {
				t.Error("the socket is still there")
			}
		})
	}
}

// TestRawServerShutdown checks that a connection ends after the requested payload has been
// sent.
func TestRawServerShutdown(t *testing.T) {
	c := newContext(t, runtime.Options{}, rawServer())
	client := newTrace()
	s, err := c.NewStream("s", runtime.Handlers{}, runtime.WithClients(func(*runtime.Stream) runtime.Handlers { return echoing(client) }))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "last")
	client.awaitEvent(t, "rx")
	done := make(chan error)
	go func() { done <- s.Shutdown(context.Background()) }()
	all, err := io.ReadAll(conn)
	if string(all) != "last" || err != nil {
		t.Errorf("%q %v", all, err)
	}
	conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	client.Want(t, "CRE CNG CON rx DIS DES")
}

func TestRawServerErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	at := func(endpoint string) func(*policy.StreamType) {
		return func(st *policy.StreamType) { st.Endpoint = endpoint }
	}
	for name, tt := range map[string]struct {
		change func(*policy.StreamType)
		want   error
	}{
		"no certificate": {secure, runtime.ErrNoCredentials},
		"no interface":   {at("nonesuch0"), runtime.ErrEndpoint},
		"no socket":      {at("!name"), runtime.ErrEndpoint},
		"no path":        {at("+"), runtime.ErrEndpoint},
		"port in use":    {func(st *policy.StreamType) { st.Port = uint16(taken.Addr().(*net.TCPAddr).Port) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := newContext(t, runtime.Options{}, rawServer(tt.change))
			tr := newTrace()
			if _, err := c.NewStream("s", tr.handlers()); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Error(err)
			}
			tr.Want(t, "")
		})
	}
}

// TestRawServerSockets serves on a socket that the program provides.
func TestRawServerSockets(t *testing.T) {
	for _, byName := range []bool{false, true} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		st, options, o := rawServer(), runtime.Options{}, []runtime.StreamOption(nil)
		if byName {
			st.Endpoint, options.Listeners = "!mine", map[string]net.Listener{"mine": ln}
		} else {
			o = append(o, runtime.WithListener(ln))
		}
		c := newContext(t, options, st)
		s, err := c.NewStream("s", echoing(newTrace()), o...)
		if err != nil {
			t.Fatal(err)
		}
		if s.Addr().String() != ln.Addr().String() {
			t.Errorf("listens at %v, not %v", s.Addr(), ln.Addr())
		}
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "x")
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
}

// TestRawServerRefuses checks that handlers can reject a client in each state.
func TestRawServerRefuses(t *testing.T) {
	for _, event := range []string{"CRE", "CNG", "CON"} {
		client := newTrace()
		client.On[event] = func(*runtime.Stream) runtime.Result { return runtime.DestroyMe }
		c := newContext(t, runtime.Options{}, rawServer())
		s, err := c.NewStream("s", runtime.Handlers{}, runtime.WithClients(func(*runtime.Stream) runtime.Handlers { return client.handlers() }))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the client was not refused")
		}
		conn.Close()
		client.AwaitEnd(t, "DES")
		client.Want(t, map[string]string{"CRE": "CRE DES", "CNG": "CRE CNG DES", "CON": "CRE CNG CON DIS DES"}[event])
	}
}

// TestAccept ranges over the connections of clients.
func TestAccept(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := newContext(t, runtime.Options{}, rawServer())
	go func() {
		for range 2 {
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "ping")
			conn.(*net.TCPConn).CloseWrite()
			if all, err := io.ReadAll(conn); string(all) != "ping pong" || err != nil {
				t.Errorf("%q %v", all, err)
			}
		}
		c.Close()
	}()
	n := 0
	for conn, err := range c.Accept("s", runtime.WithListener(ln)) {
		if err != nil {
			if !errors.Is(err, runtime.ErrClosed) {
				t.Error(err)
			}
			break
		}
		n++
		if conn.Peer().Remote == nil {
			t.Error("no peer")
		}
		all, err := io.ReadAll(conn)
		if err != nil {
			t.Error(err)
		}
		if _, err := conn.Write(append(all, " pong"...)); err != nil {
			t.Error(err)
		}
		conn.CloseWrite()
	}
	if n != 2 {
		t.Errorf("%d connections", n)
	}
	for _, err := range c.Accept("s") {
		if !errors.Is(err, runtime.ErrClosed) {
			t.Error(err)
		}
	}
}

// TestRawServerCredentials checks a certificate that Credentials provide and renew, with
// required client certificates.
func TestRawServerCredentials(t *testing.T) {
	issue := func() *tls.Certificate {
		cert := system.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")
		return &cert
	}
	creds, clients := new(credentials.Memory), testcert.New("clients")
	creds.SetServerCertificate("s", issue())
	c := newContext(t, runtime.Options{Credentials: creds}, rawServer(secure))
	s, err := c.NewStream("s", runtime.Handlers{}, runtime.WithClientCertificates(runtime.VerifyPeer, clients.Pool()),
		runtime.WithClients(func(*runtime.Stream) runtime.Handlers { return echoing(newTrace()) }))
	if err != nil {
		t.Fatal(err)
	}
	connect := func(client *tls.Certificate) (*tls.Conn, error) {
		conn, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{RootCAs: system.Pool(),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return client, nil }})
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { conn.Close() })
		io.WriteString(conn, "x")
		_, err = conn.Read(make([]byte, 1))
		return conn, err
	}
	client := clients.Client(7)
	kept, err := connect(client)
	if err != nil {
		t.Fatal(err)
	}
	renewed := issue()
	creds.SetServerCertificate("s", renewed)
	conn, err := connect(client)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(conn.ConnectionState().PeerCertificates[0].Raw, renewed.Certificate[0]) {
		t.Error("the old certificate serves")
	}
	io.WriteString(kept, "y")
	if _, err := kept.Read(make([]byte, 1)); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
	if _, err := connect(&tls.Certificate{}); err == nil {
		t.Error("a client without a certificate was accepted")
	}
}
