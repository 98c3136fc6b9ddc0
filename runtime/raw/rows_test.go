package raw_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http/httptrace"
	"testing"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
)

// TestRows maps the required behaviors of a TLS socket with delayed handshakes, by number,
// to their tests.
func TestRows(t *testing.T) {
	for _, tt := range []struct {
		row  string
		test func(*testing.T)
	}{
		{"C1 a new socket is not encrypted", rowNew},
		{"C2 lookup, connect, connected in clear, handshake", rowConnectEncrypted},
		{"C3 what is sent before the handshake is queued", TestStartTLS},
		{"C3 and discarded if it fails", rowDiscarded},
		{"C4 the handler is called once, when encrypted", TestStartTLS},
		{"C5 reading and writing continue", TestStartTLSConn},
		{"C6 encrypted after the handshake alone", TestStartTLS},
		{"C7 the mode, and its handler", TestStartTLS},
		{"C8 delayed TLS, refused in other states", TestStartTLS},
		{"C8 no plaintext of the peer", TestPlaintext},
		{"C9 a configuration is for the next handshake", TestSetConfig},
		{"C10 to C13 verification by a client", TestVerify},
		{"C10 to C13 verification by a server", TestServer},
		{"C14 versions", rowVersions},
		{"C15 a server", TestServer},
		{"C15 from the beginning of an adopted connection", TestAdoptRole},
		{"C16 a failed handshake is an error of the stream", TestServer},
	} {
		t.Run(tt.row, tt.test)
	}
}

func rowNew(t *testing.T) {
	c := newContext(t, runtime.Options{}, streamType(serve(t, func(net.Conn) {})))
	s := teststream.Must(c.NewStream("s", newTrace().handlers()))
	if st := raw.Of(s).State(); st.Mode != raw.Unencrypted || st.Encrypted {
		t.Errorf("%+v", st)
	}
}

func rowConnectEncrypted(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		s := tls.Server(c, own.Server(nil, "localhost"))
		io.WriteString(s, "hello")
		s.Close()
	})
	c := newContext(t, runtime.Options{}, streamType(addr, secure, func(st *policy.StreamType) { st.Endpoint = "localhost" }))
	tr := newTrace()
	note := func(event string) { tr.Note(nil, event) }
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		DNSStart: func(i httptrace.DNSStartInfo) { note("lookup(" + i.Host + ")") },
		ConnectDone: func(_, _ string, err error) {
			if err == nil { // not for an IPv6 address of localhost
				note("connected")
			}
		},
		TLSHandshakeStart: func() { note("handshake") },
		GotConn:           func(httptrace.GotConnInfo) { note("ready") },
	})
	s := teststream.Must(c.NewStream("s", tr.handlers(), raw.With(tr.record(t, raw.Config{})), runtime.WithContext(ctx)))
	s.Connect()
	tr.awaitEvent(t, "DIS")
	tr.Want(t, "CRE CNG lookup(localhost) connected client handshake encrypted ready CON rx unencrypted DIS")
}

// A peer that is not trusted receives nothing.
func rowDiscarded(t *testing.T) {
	got := make(chan string, 100)
	addr := serve(t, func(c net.Conn) {
		s := tls.Server(c, system.Server(nil, "127.0.0.1"))
		text, _ := io.ReadAll(s)
		got <- string(text)
	})
	c := newContext(t, runtime.Options{}, streamType(addr, secure))
	tr := newTrace()
	s := teststream.Must(c.NewStream("s", tr.handlers()))
	tr.send(s, "secret")
	if text := <-got; text != "" {
		t.Errorf("the peer received %q", text)
	}
}

// No version before TLS 1.2, even if the configuration allows it.
func rowVersions(t *testing.T) {
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		config := own.Server(nil, "127.0.0.1")
		config.MinVersion, config.MaxVersion = version, version
		addr := serve(t, func(c net.Conn) {
			s := tls.Server(c, config)
			s.Handshake()
			s.Close()
		})
		c := newContext(t, runtime.Options{}, streamType(addr, secure))
		tr := newTrace()
		s := teststream.Must(c.NewStream("s", tr.handlers(), raw.With(raw.Config{TLS: &tls.Config{MinVersion: tls.VersionTLS10}})))
		s.Connect()
		if !tr.Await(func() bool { return tr.Count("DIS")+tr.Count("UNR")+tr.Count("ARF") > 0 }) {
			t.Fatal(tr)
		}
		if got := tr.Count("CON") > 0; got != ok {
			t.Errorf("version %x: %s", version, tr)
		}
	}
}
