package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/internal/testcert"
)

// A proxyRun is a running "sspolicy proxy --json".
type proxyRun struct {
	t      testing.TB
	lines  *bufio.Reader
	reload chan os.Signal
	end    func()
	done   chan error
}

// startProxy runs the command.
func startProxy(t testing.TB, args ...string) *proxyRun {
	t.Helper()
	parser := newParser(io.Discard, io.Discard)
	parsed, err := parser.Parse(append([]string{"proxy", "--json"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	c := parsed.Selected().Target.Interface().(proxyCmd)
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	r := &proxyRun{t, bufio.NewReader(out), make(chan os.Signal, 1), cancel, make(chan error, 1)}
	go func() {
		r.done <- c.serve(ctx, r.reload, &program{stderr: in})
		in.Close()
	}()
	t.Cleanup(r.stop)
	return r
}

// stop ends the run. It fails the test if the run fails.
func (r *proxyRun) stop() {
	r.end()
	go io.Copy(io.Discard, r.lines)
	if err := <-r.done; err != nil {
		r.t.Error(err)
	}
	r.done <- nil
}

// log returns the next line of the log with the given message.
func (r *proxyRun) log(msg string) map[string]any {
	r.t.Helper()
	for {
		line, err := r.lines.ReadBytes('\n')
		if err != nil {
			r.t.Fatalf("%v before %q", err, msg)
		}
		var v map[string]any
		if json.Unmarshal(line, &v) != nil {
			r.t.Logf("%s", line)
			continue
		}
		if v["msg"] == msg {
			return v
		}
	}
}

// get opens a link, and returns the answer to a GET of the streamtype.
func get(t testing.TB, address, streamtype string) string {
	t.Helper()
	network, host, _ := strings.Cut(address, ":")
	conn, err := net.Dial(network, host)
	if err != nil {
		t.Fatal(err)
	}
	return answer(t, conn, streamtype)
}

// answer is get for an open link, which it closes.
func answer(t testing.TB, conn net.Conn, streamtype string) string {
	t.Helper()
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	b, err := sspcwire.AppendStreamType(nil, sspcwire.StreamType{Name: streamtype})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(sspcwire.AppendConnect(b)); err != nil {
		t.Fatal(err)
	}
	var body []byte
	for r := sspcwire.NewReader(conn, sspcwire.FromProxy, 4096); ; {
		f, err := r.Next()
		if err != nil {
			return fmt.Sprintf("%s%v", body, err)
		}
		switch f.Type {
		case sspcwire.TypeRx:
			p, err := f.Payload()
			if err != nil {
				t.Fatal(err)
			}
			body = append(body, p.Data...)
		case sspcwire.TypeConnState:
			if s, _, _ := f.ConnState(); s.Short() == "ACK" {
				return string(body)
			}
		}
	}
}

// writeProxyPolicy writes a policy with one GET.
func writeProxyPolicy(t testing.TB, file, streamtype, origin string) {
	t.Helper()
	port := origin[strings.LastIndex(origin, ":")+1:]
	text := fmt.Sprintf(`{"release":"1","product":"p","schema-version":1,"retry":[{"r":{"backoff":[1000],"conceal":3}}],
"s":[{%q:{"endpoint":"127.0.0.1","port":%s,"protocol":"h1","http_method":"GET","http_url":"","opportunistic":true,"retry":"r"}}]}`, streamtype, port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestProxy(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	defer origin.Close()
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "policy.json"), "unix:"+filepath.Join(dir, "socket")
	writeProxyPolicy(t, file, "one", origin.URL)
	p := startProxy(t, "--listen", socket, "--listen", "tcp:127.0.0.1:0", file)
	if got := p.log("listening")["address"]; got != socket {
		t.Errorf("listening on %v", got)
	}
	tcp := p.log("listening")["address"].(string)
	for _, address := range []string{socket, tcp} {
		if got := get(t, address, "one"); got != "hello" {
			t.Errorf("%s: %q", address, got)
		}
		if got := get(t, address, "two"); got != "EOF" {
			t.Errorf("%s: %q", address, got)
		}
	}
	// An invalid policy never replaces a valid one.
	if err := os.WriteFile(file, []byte(`{"s":[`), 0o600); err != nil {
		t.Fatal(err)
	}
	p.reload <- nil
	p.log("the policy was not replaced")
	if got := get(t, socket, "one"); got != "hello" {
		t.Errorf("%q", got)
	}
	writeProxyPolicy(t, file, "two", origin.URL)
	p.reload <- nil
	p.log("the policy was replaced")
	if got := get(t, socket, "one") + get(t, socket, "two"); got != "EOFhello" {
		t.Errorf("%q", got)
	}
}

// TestProxyConfig checks roles, metrics, TLS and their reload.
func TestProxyConfig(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	defer origin.Close()
	dir := t.TempDir()
	file, config, socket := filepath.Join(dir, "policy.json"), filepath.Join(dir, "proxy.json"), "unix:"+filepath.Join(dir, "socket")
	writeProxyPolicy(t, file, "one", origin.URL)
	ca := testcert.New("ca")
	testcert.WritePEM(filepath.Join(dir, "cert.pem"), ca.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1"))
	drain := "1s"
	write := func(roles string) {
		t.Helper()
		text := fmt.Sprintf(`{
			"listen": [
				{"address": %q, "mode": "0600"},
				{"address": "tls:127.0.0.1:0", "certificate": "cert.pem", "key": "cert.pem"}
			],
			"metrics": "tcp:127.0.0.1:0", "drain": %q, %s
		}`, socket, drain, roles)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`"roles": [{"name": "all", "streamtypes": ["o*", "_lws_smd", "zzz"]}]`)
	p := startProxy(t, "--config", config, file)
	if got := p.log("the policy has no such streamtype")["streamtype"]; got != "zzz" {
		t.Errorf("a warning about %v", got)
	}
	metrics := "http://" + strings.TrimPrefix(p.log("serving metrics")["address"].(string), "tcp:")
	p.log("listening")
	at := strings.TrimPrefix(p.log("listening")["address"].(string), "tls:")
	if info, err := os.Stat(strings.TrimPrefix(socket, "unix:")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if got := get(t, socket, "one"); got != "hello" {
		t.Errorf("%q", got)
	}
	conn, err := tls.Dial("tcp", at, &tls.Config{RootCAs: ca.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	if got := answer(t, conn, "one"); got != "hello" {
		t.Errorf("over TLS: %q", got)
	}
	write(`"roles": [{"name": "all", "streamtypes": ["["]}]`)
	p.reload <- nil
	if got := p.log(`"[": syntax error in pattern`)["at"]; !strings.HasPrefix(fmt.Sprint(got), config+":6:") {
		t.Errorf("at %v", got)
	}
	p.log("the policy was not replaced")
	if got := get(t, socket, "one"); got != "hello" {
		t.Errorf("%q", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	drain = "2s"
	write(`"roles": []`)
	p.reload <- nil
	if got := p.log("the policy was not replaced")["err"]; !strings.HasPrefix(fmt.Sprint(got), "tls:127.0.0.1:0: tls: failed to find any PEM data") {
		t.Errorf("error %v", got)
	}
	next := testcert.New("next")
	testcert.WritePEM(filepath.Join(dir, "cert.pem"), next.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1"))
	p.reload <- nil
	if got := p.log("settings take effect at the next start")["settings"]; got != "drain" {
		t.Errorf("not taken: %v", got)
	}
	p.log("policy, roles and certificates were replaced")
	if _, err := tls.Dial("tcp", at, &tls.Config{RootCAs: ca.Pool()}); err == nil {
		t.Error("the old certificate is still in force")
	}
	if conn, err := tls.Dial("tcp", at, &tls.Config{RootCAs: next.Pool()}); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	if got := get(t, socket, "one"); got != "EOF" {
		t.Errorf("%q", got)
	}
	fetch := func(path string) string {
		t.Helper()
		resp, err := http.Get(metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %s, %v", path, resp.Status, err)
		}
		return string(b)
	}
	if got := fetch("/health"); got != "ok\n" {
		t.Errorf("%q", got)
	}
	text := fetch("/metrics")
	for _, want := range []string{
		"sspolicy_proxy_streams_total 3\n", "sspolicy_proxy_streams_refused_total 1\n",
		`sspolicy_proxy_stream_states_total{streamtype="one",state="CONNECTED"} 3` + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}
