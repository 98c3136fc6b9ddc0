package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/internal/testbroker"
	"github.com/secure-streams/sspolicy/internal/testserver"
)

// hostile is a text that a peer sends wherever it can: terminal commands, text that hides
// or reorders other text, invalid UTF-8, and a forged line of sspolicy.
const hostile = "\x1b]0;owned\x07\x1b[2J\u009b31m\u202eevil\r\nsspolicy: FORGED\n   0.000  s  FORGED\x7f\u2028"

// soft is a hostile text that a header may contain.
const soft = "\u009b31m\u202eevil\u2028\xff"

// hostileLine returns hostile as a valid part of a line in UTF-8.
func hostileLine() string { return strings.NewReplacer("\r", "", "\n", "\v").Replace(hostile) }

// TestPeerTexts checks that no form of output of run contains unescaped text of a peer
// except the payload.
func TestPeerTexts(t *testing.T) {
	named := issue(t, hostile, nil, func(c *x509.Certificate) {
		c.DNSNames = []string{strings.Map(func(r rune) rune {
			if r >= utf8.RuneSelf {
				return -1
			}
			return r
		}, hostile)}
	})
	self := issue(t, hostile, nil, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
	tlsOf := func(i *certAndKey) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{i.cert.Raw}, PrivateKey: i.key}}}
	}
	config, wrong := tlsOf(self), tlsOf(named)
	serve := func(answer string) string {
		return listen(t, nil, func(c net.Conn) {
			bufio.NewReader(c).ReadString('\n')
			io.WriteString(c, answer)
		})
	}
	wsServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			c.Close(4000, hostile)
		}
	}))
	t.Cleanup(wsServer.Close)
	store := fmt.Sprintf(`"certs": [{"a": %q}, {"b": %q}], "trust_stores": [{"name": "t", "stack": ["a", "b"]}],`,
		base64.StdEncoding.EncodeToString(self.cert.Raw), base64.StdEncoding.EncodeToString(named.cert.Raw))
	for name, at := range map[string]struct {
		addr, protocol, keys string
	}{
		"certificate":           {listen(t, config, func(net.Conn) {}), "h1", `"tls": true`},
		"certificate over raw":  {listen(t, config, func(net.Conn) {}), "raw", `"tls": true`},
		"certificate over mqtt": {listen(t, config, func(net.Conn) {}), "mqtt", `"tls": true, "mqtt_topic": "t", "mqtt_clean_start": true`},
		"names":                 {listen(t, wrong, func(net.Conn) {}), "h1", `"tls": true, "tls_trust_store": "t"`},
		"names over raw":        {listen(t, wrong, func(net.Conn) {}), "raw", `"tls": true, "tls_trust_store": "t"`},
		"names over mqtt":       {listen(t, wrong, func(net.Conn) {}), "mqtt", `"tls": true, "tls_trust_store": "t", "mqtt_topic": "t", "mqtt_clean_start": true`},
		"names over h3":         {listenH3(t, wrong, http.NotFoundHandler()), "h3", `"tls": true, "tls_trust_store": "t"`},
		"certificate over h3":   {listenH3(t, config, http.NotFoundHandler()), "h3", `"tls": true`},
		"reason over h3": {listenH3(t, config, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			r.Context().Value(quicConn{}).(*quic.Conn).CloseWithError(7, hostile)
		})), "h3", `"tls": true, "tls_trust_store": "t"`},
		"ALPN": {listen(t, &tls.Config{Certificates: config.Certificates, NextProtos: []string{hostileLine()}}, func(net.Conn) {}),
			"h1", `"tls": true, "tls_trust_store": "t"`},
		"status":             {serve("HTTP/1.1 404 " + hostileLine() + "\r\nContent-Length: 0\r\n\r\n"), "h1", ``},
		"not a status":       {serve("HTTP/1.1 " + hostileLine() + "\r\n\r\n"), "h1", ``},
		"not HTTP":           {serve(hostile + "\r\n\r\n"), "h1", ``},
		"header":             {serve("HTTP/1.1 200 OK\r\n" + hostileLine() + ": x\r\n\r\n"), "h1", ``},
		"header value":       {serve("HTTP/1.1 200 OK\r\nX-A: " + hostileLine() + "\r\nContent-Length: 0\r\n\r\n"), "h1", ``},
		"content-length":     {serve("HTTP/1.1 200 OK\r\nContent-Length: " + hostileLine() + "\r\n\r\n"), "h1", ``},
		"transfer-encoding":  {serve("HTTP/1.1 200 OK\r\nTransfer-Encoding: " + hostileLine() + "\r\n\r\n"), "h1", ``},
		"location":           {serve("HTTP/1.1 302 Found\r\nLocation: /" + hostileLine() + "\r\nContent-Length: 0\r\n\r\n"), "h1", ``},
		"host of a location": {serve("HTTP/1.1 302 Found\r\nLocation: http://" + hostileLine() + "/\r\nContent-Length: 0\r\n\r\n"), "h1", `"allow_redirects": true`},
		"soft status":        {serve("HTTP/1.1 404 " + soft + "\r\nContent-Length: 0\r\n\r\n"), "h1", ``},
		"soft location":      {serve("HTTP/1.1 302 Found\r\nLocation: /" + soft + "\r\nContent-Length: 0\r\n\r\n"), "h1", ``},
		"soft host":          {serve("HTTP/1.1 302 Found\r\nLocation: http://" + soft + "/\r\nContent-Length: 0\r\n\r\n"), "h1", `"allow_redirects": true`},
		"soft encoding":      {serve("HTTP/1.1 200 OK\r\nTransfer-Encoding: " + soft + "\r\n\r\n"), "h1", ``},
		"soft length":        {serve("HTTP/1.1 200 OK\r\nContent-Length: " + soft + "\r\n\r\n"), "h1", ``},
		"soft type":          {serve("HTTP/1.1 200 OK\r\nContent-Type: multipart/" + soft + "\r\nContent-Length: 0\r\n\r\n"), "h1", `"http_multipart_ss_in": true`},
		"soft version":       {serve(soft + "/1.1 200 OK\r\n\r\n"), "h1", ``},
		"soft upgrade":       {serve("HTTP/1.1 101 S\r\nUpgrade: " + soft + "\r\nConnection: upgrade\r\n\r\n"), "ws", ``},
		"soft extension":     {serve("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Extensions: " + soft + "\r\n\r\n"), "ws", ``},
		"soft subprotocol":   {serve("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Protocol: " + soft + "\r\n\r\n"), "ws", `"ws_subprotocol": "x"`},
		"chunk":              {serve("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + hostileLine() + "\r\n"), "h1", ``},
		"handshake of ws":    {serve("HTTP/1.1 400 " + hostileLine() + "\r\nContent-Length: 0\r\n\r\n"), "ws", ``},
		"subprotocol": {serve("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Protocol: " + hostileLine() + "\r\n\r\n"),
			"ws", `"ws_subprotocol": "x"`},
		"reason of ws": {wsServer.Listener.Addr().String(), "ws", ``},
		"packet":       {serve(hostile), "mqtt", `"mqtt_topic": "t", "mqtt_clean_start": true`},
		"topic": {listen(t, nil, func(c net.Conn) {
			io.ReadFull(c, make([]byte, 10))
			text := hostileLine()
			io.WriteString(c, "\x20\x02\x00\x00\x90\x03\x00\x01\x00\x30"+string(rune(2+len(text)))+"\x00"+string(rune(len(text)))+text)
			io.Copy(io.Discard, c)
		}), "mqtt", `"mqtt_subscribe": "#", "mqtt_clean_start": true`},
	} {
		host, port, err := net.SplitHostPort(at.addr)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "names") {
			host = "localhost"
		}
		if at.keys != "" {
			at.keys = ", " + at.keys
		}
		switch at.protocol {
		case "h1", "h3":
			at.keys += `, "http_method": "GET", "http_url": "x"`
		case "ws":
			at.keys += `, "http_url": "x"`
		}
		file := filepath.Join(t.TempDir(), "policy.json")
		text := fmt.Sprintf(`{%s "s": [{"s": {"endpoint": %q, "port": %s, "protocol": %q, "opportunistic": true, "perf": true%s}}]}`, store, host, port, at.protocol, at.keys)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{"text", "--json"} {
			args := []string{"run", "--timeout", "2s", "--connect-timeout", "2s", file, "s"}
			if form == "--json" {
				args = append(args, form)
			}
			if at.protocol == "mqtt" && strings.Contains(at.keys, "topic") || at.protocol == "ws" {
				args = append(args, "--data", "x")
			}
			var stdout, stderr bytes.Buffer
			code := run(args, strings.NewReader(""), &stdout, &stderr)
			t.Logf("%s, %s: exit %d\n%q", name, form, code, stderr.String())
			if code == exitUsage || code == exitFailed || !strings.Contains(stderr.String(), "CONNECTING") {
				t.Errorf("%s: exit %d: %s", name, code, &stderr)
			}
			if i := strings.IndexFunc(stderr.String(), func(r rune) bool { return r != '\n' && !strconv.IsPrint(r) }); i >= 0 || !utf8.Valid(stderr.Bytes()) {
				t.Errorf("%s, %s: the output contains %q:\n%q", name, form, stderr.String()[max(i, 0):max(i, 0)+1], stderr.String())
			}
			for line := range strings.Lines(stderr.String()) {
				if strings.HasPrefix(line, "sspolicy: FORGED") || strings.HasPrefix(line, "   0.000  s  FORGED") {
					t.Errorf("%s, %s: a forged line: %q", name, form, line)
				}
				if form == "--json" && !json.Valid([]byte(line)) {
					t.Errorf("%s: not JSON: %q", name, line)
				}
			}
		}
	}
}

// quicConn is the key of the connection in the context of a request over h3.
type quicConn struct{}

// listenH3 runs an h3 server until the end of the test. It returns its address.
func listenH3(t *testing.T, config *tls.Config, h http.Handler) string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(config),
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context { return context.WithValue(ctx, quicConn{}, c) }}
	go srv.Serve(pc)
	t.Cleanup(func() { srv.Close(); pc.Close() })
	return pc.LocalAddr().String()
}

// listen runs a server until the end of the test, with TLS if config is not nil. It returns
// its address.
func listen(t *testing.T, config *tls.Config, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if config != nil {
				c = tls.Server(c, config)
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(time.Minute))
				if secure, ok := c.(*tls.Conn); ok && secure.Handshake() != nil {
					return
				}
				serve(c)
			}()
		}
	}()
	return ln.Addr().String()
}

// TestRunSignals checks that a signal ends a run gracefully: with the message acknowledged,
// and DISCONNECT or a close frame.
func TestRunSignals(t *testing.T) {
	received := make(chan []byte, 1) // from a connection to the broker
	broker := testserver.FreePort(t)
	testbroker.Start(t, fmt.Sprintf("allow_anonymous true\nlistener %d 127.0.0.1\n", broker.Port()))
	tap := listen(t, nil, func(c net.Conn) {
		up, err := net.Dial("tcp", broker.String())
		if err != nil {
			return
		}
		defer up.Close()
		go io.Copy(c, up)
		var got bytes.Buffer
		io.Copy(up, io.TeeReader(c, &got))
		received <- got.Bytes()
	})
	closed := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		_, _, err = c.Read(r.Context())
		closed <- err
	}))
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "policy.json")
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	policy := fmt.Sprintf(`{"s": [
		{"mqtt": {"endpoint": "127.0.0.1", "port": %s, "protocol": "mqtt", "mqtt_subscribe": "t", "mqtt_clean_start": true, "nailed_up": true}},
		{"ws": {"endpoint": "127.0.0.1", "port": %s, "protocol": "ws", "http_url": "x", "nailed_up": true}}]}`, port(tap), port(srv.Listener.Addr().String()))
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, streamtype := range []string{"mqtt", "ws"} {
		for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			stderr := &signalWriter{t: t, signal: signal}
			if code := run([]string{"run", file, streamtype}, strings.NewReader(""), io.Discard, stderr); code != exitOK {
				t.Errorf("%s, %v: exit %d", streamtype, signal, code)
			}
			if !strings.Contains(stderr.String(), "DESTROYING") {
				t.Errorf("%s, %v: %s", streamtype, signal, stderr.String())
			}
			if streamtype == "ws" {
				if code := websocket.CloseStatus(<-closed); code != websocket.StatusGoingAway {
					t.Errorf("%v: the server got the close code %v", signal, code)
				}
				continue
			}
			if sent := <-received; !bytes.HasSuffix(sent, []byte("\xe0\x00")) {
				t.Errorf("%v: no DISCONNECT: %q", signal, sent)
			}
		}
	}
}

// A signalWriter sends a signal to the process when CONNECTED is written to it.
type signalWriter struct {
	t      *testing.T
	signal os.Signal
	mu     sync.Mutex
	strings.Builder
}

func (w *signalWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if bytes.Contains(p, []byte("  CONNECTED")) {
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Signal(w.signal)
		}
		if err != nil {
			w.t.Error(err)
		}
	}
	return w.Builder.Write(p)
}
