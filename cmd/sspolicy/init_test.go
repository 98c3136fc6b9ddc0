package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/testbroker"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/schema"
)

// command runs a command line that must succeed.
func command(t *testing.T, args ...string) (stdout string) {
	t.Helper()
	var out, stderr bytes.Buffer
	if code := run(args, strings.NewReader(""), &out, &stderr); code != exitOK {
		t.Fatalf("%q: exit %d\n%s", args, code, &stderr)
	}
	return out.String()
}

// initialize writes a policy and compiles it. Package starter checks that lint and fmt
// accept it.
func initialize(t *testing.T, flags ...string) (file string) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "policy.json")
	command(t, append([]string{"init", "-o", file}, flags...)...)
	command(t, "compile", "--lang", "go", "-o", filepath.Join(dir, "policy.go"), file)
	command(t, "compile", "--lang", "c", "-o", filepath.Join(dir, "policy.c"), file)
	return file
}

// TestInitClients checks that the policy of each client works with a server.
func TestInitClients(t *testing.T) {
	ca := testcert.New("init")
	roots := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw}), 0o666); err != nil {
		t.Fatal(err)
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL, r.Header.Get("Accept-Language"), r.Proto)
	})
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		if kind, text, err := c.Read(r.Context()); err == nil {
			c.Write(r.Context(), kind, append([]byte(r.URL.Path+" "), text...))
			c.Read(r.Context())
		}
	})
	serve := func(h http.Handler, secure bool) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: h}
		t.Cleanup(func() { s.Close() })
		if secure {
			s.TLSConfig = ca.Server([]string{"h2", "http/1.1"}, "localhost")
			go s.ServeTLS(ln, "", "")
		} else {
			go s.Serve(ln)
		}
		return ln.Addr().String()
	}
	bytesBack := func(c net.Conn) { io.Copy(c, c) }
	broker := testserver.FreePort(t)
	testbroker.Start(t, fmt.Sprintf("allow_anonymous true\nlistener %d 127.0.0.1\n", broker.Port()))
	if out, err := exec.Command("mosquitto_pub", "-p", strconv.Itoa(int(broker.Port())), "-t", "example/down", "-r", "-m", "kept").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const send = "--data hello --count 1"
	for _, at := range []struct {
		protocol, addr, run, want string
		secure                    bool
	}{
		{"h1", serve(page, true), "--set language=da", "GET /v1/example da HTTP/1.1", true},
		{"h1", serve(page, false), "--set language=da", "GET /v1/example da HTTP/1.1", false},
		{"h2", serve(page, true), "--set language=da", "GET /v1/example da HTTP/2.0", true},
		{"h3", listenH3(t, ca.Server(nil, "localhost"), page), "--set language=da", "GET /v1/example da HTTP/3.0", true},
		{"ws", serve(echo, true), send, "/v1/example hello", true},
		{"ws", serve(echo, false), send, "/v1/example hello", false},
		{"raw", listen(t, ca.Server(nil, "localhost"), bytesBack), send, "hello", true},
		{"raw", listen(t, nil, bytesBack), send, "hello", false},
		{"mqtt", broker.String(), send, "kept", false},
	} {
		t.Run(fmt.Sprintf("%s, TLS %v", at.protocol, at.secure), func(t *testing.T) {
			_, port, err := net.SplitHostPort(at.addr)
			if err != nil {
				t.Fatal(err)
			}
			flags := []string{"--protocol", at.protocol, "--endpoint", "localhost", "--port", port}
			if at.secure {
				flags = append(flags, "--ca", roots)
			} else {
				flags = append(flags, "--no-tls")
			}
			file := initialize(t, flags...)
			got := command(t, append(append([]string{"run", "--timeout", "1m"}, strings.Fields(at.run)...), file, "example")...)
			if got != at.want {
				t.Errorf("got %q, want %q", got, at.want)
			}
		})
	}
}

// TestInitServers checks that the policy of each server works with the policy of a client.
func TestInitServers(t *testing.T) {
	ca := testcert.New("init")
	dir := t.TempDir()
	roots, pair := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "server.pem")
	if err := os.WriteFile(roots, ca.PEM(), 0o666); err != nil {
		t.Fatal(err)
	}
	testcert.WritePEM(pair, ca.Server(nil, "localhost").Certificates[0])
	for _, at := range []struct {
		protocol, client string
		tls              bool
	}{
		{"h1", "h1", false}, {"h2", "h1", false}, {"ws", "ws", false}, {"raw", "raw", false},
		{"h1", "h1", true}, {"h2", "h2", true}, {"ws", "ws", true}, {"raw", "raw", true},
	} {
		protocol, client := at.protocol, at.client
		t.Run(fmt.Sprintf("%s, TLS %v", protocol, at.tls), func(t *testing.T) {
			port := strconv.Itoa(int(testserver.FreePort(t).Port()))
			serving, asks := []string{"--server"}, []string{"--no-tls"}
			if at.tls {
				serving, asks = append(serving, "--cert", pair, "--key", pair), []string{"--ca", roots}
			}
			file := initialize(t, append(serving, "--protocol", protocol, "--endpoint", "127.0.0.1", "--port", port)...)
			if info, err := os.Stat(file); err != nil {
				t.Fatal(err)
			} else if at.tls && info.Mode().Perm() != 0o600 {
				t.Errorf("the file with the key has the mode %v", info.Mode())
			}
			asking := initialize(t, append(asks, "--protocol", client, "--endpoint", "localhost", "--port", port)...)
			ask := []string{"run", "--timeout", "1m", asking, "example"}
			if client == "ws" || client == "raw" {
				ask = append(ask, "--data", "x", "--count", "1")
			}
			if protocol == "ws" { // the server wants its subprotocol
				fragment := filepath.Join(t.TempDir(), "chat.json")
				if err := os.WriteFile(fragment, []byte(`{"s": [{"example": {"ws_subprotocol": "example"}}]}`), 0o666); err != nil {
					t.Fatal(err)
				}
				ask = append(ask, "--overlay", fragment)
			}
			events, stderr := io.Pipe()
			code, answer := make(chan int, 1), make(chan string, 1)
			go func() {
				code <- run([]string{"run", "--json", "--count", "1", "--timeout", "1m", "--respond", "hello", file, "example"}, nil, io.Discard, stderr)
				stderr.Close()
			}()
			for lines := bufio.NewScanner(events); lines.Scan(); {
				var e struct{ Event string }
				if json.Unmarshal(lines.Bytes(), &e) == nil && e.Event == "listening" {
					go func() { answer <- command(t, ask...) }()
				}
			}
			if got := <-code; got != exitOK {
				t.Fatalf("exit %d", got)
			}
			if got := <-answer; got != "hello" {
				t.Errorf("answer %q", got)
			}
		})
	}
}

// TestQuestions checks that answers give the same policy as flags, and that a question is
// repeated after an invalid answer.
func TestQuestions(t *testing.T) {
	for _, tt := range []struct{ answers, flags, prompt string }{
		{"\n\n\n\n\n\n", "", "Which port? [443]"},
		{"client\nmqtt\nup\nm.example.com\nno\n\n", "--protocol mqtt --stream up --endpoint m.example.com --no-tls", "Which port? [1883]"},
		{"x\nserver\nmqtt\nws\na b\nchat\nnone\n70000\n8000\n", "--server --protocol ws --stream chat --port 8000", "Please answer h1, h2, ws or raw."},
		{"client\nh3\n\n!\nh.example.com\n", "--protocol h3 --endpoint h.example.com --port 443", "Please answer a host name"},
	} {
		var output bytes.Buffer
		var c initCmd
		o, err := c.options(&questions{bufio.NewReader(strings.NewReader(tt.answers + "\n")), &output})
		if err != nil {
			t.Fatalf("%q: %v", tt.answers, err)
		}
		got, _ := o.Policy()
		if want := command(t, append([]string{"init"}, strings.Fields(tt.flags)...)...); got != want {
			t.Errorf("%q: the policy is not that of %s:\n%s", tt.answers, tt.flags, got)
		}
		if !strings.Contains(output.String(), tt.prompt) {
			t.Errorf("%q: prompted %s", tt.answers, &output)
		}
	}
	var c initCmd
	if _, err := c.options(&questions{bufio.NewReader(strings.NewReader("")), io.Discard}); err == nil {
		t.Error("the end of the input is an answer")
	}
}

// TestQuestionsKey checks that a policy with a private key goes to a file, although no
// flag names one, and not to one that exists.
func TestQuestionsKey(t *testing.T) {
	t.Chdir(t.TempDir())
	testcert.WritePEM("server.pem", testcert.New("init").Server(nil, "localhost").Certificates[0])
	var stdout, stderr bytes.Buffer
	p := &program{stdout: &stdout, stderr: &stderr}
	q := &questions{bufio.NewReader(strings.NewReader("server\nh1\n\nserver.pem\n\n\nserver.pem\n\n")), &stderr}
	var c initCmd
	if err := c.write(p, q); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	if stdout.Len() > 0 {
		t.Errorf("written to standard output:\n%s", &stdout)
	}
	if !strings.Contains(stderr.String(), "server.pem exists") {
		t.Errorf("prompted %s", &stderr)
	}
	if text, err := os.ReadFile("policy.json"); !strings.Contains(string(text), `"server_key": "MI`) {
		t.Errorf("%v: %s", err, text)
	}
}

// TestInitRootsTooLong checks that a certificate file that is too long is not read to its
// end.
func TestInitRootsTooLong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "roots")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, schema.MaxSize+1); err != nil {
		t.Fatal(err)
	}
	c := initCmd{Protocol: "h1", CA: file}
	if _, err := c.options(nil); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v", err)
	}
}
