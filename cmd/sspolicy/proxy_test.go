package main

import (
	"bufio"
	"context"
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

// stop ends the run, and fails if it fails.
func (r *proxyRun) stop() {
	r.end()
	go io.Copy(io.Discard, r.lines)
	if err := <-r.done; err != nil {
		r.t.Error(err)
	}
	r.done <- nil
}

// log returns the next line of the log with that message.
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
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
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
	// A bad policy never replaces a good one.
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
