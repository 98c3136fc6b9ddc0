package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

const serverPolicy = `{"s": [
	{"page": {"server": true, "endpoint": "127.0.0.1", "port": 0, "protocol": "h1", "ws_subprotocol": "chat",
		"metadata": [{"path": ""}, {"method": ""}, {"mime": "content-type:"}]}},
	{"bare": {"server": true, "endpoint": "127.0.0.1", "port": 0, "protocol": "h2", "metadata": [{"method": ""}, {"path": ""}]}},
	{"ws": {"server": true, "endpoint": "127.0.0.1", "port": 0, "protocol": "ws"}},
	{"raw": {"server": true, "endpoint": "127.0.0.1", "port": 0, "protocol": "raw"}},
	{"client": {"endpoint": "127.0.0.1", "port": 1, "protocol": "raw"}}
]}`

// TestRunServer runs each kind of server, and sends it requests.
func TestRunServer(t *testing.T) {
	dir := t.TempDir()
	policy, site := filepath.Join(dir, "policy.json"), filepath.Join(dir, "site")
	for name, text := range map[string]string{
		policy: serverPolicy, filepath.Join(site, "index.html"): "<p>index", filepath.Join(site, "sub", "a.txt"): "text", filepath.Join(dir, "secret"): "secret",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	// get returns the status, media type and body of a request.
	get := func(method, path, body string) func(addr string) string {
		return func(addr string) string {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return err.Error()
			}
			defer c.Close()
			fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
			resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
			if err != nil {
				return err.Error()
			}
			answer, _ := io.ReadAll(resp.Body)
			return fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header.Get("Content-Type"), answer)
		}
	}
	say := func(addr, text string) string {
		c, _, err := websocket.Dial(t.Context(), "ws://"+addr, &websocket.DialOptions{Subprotocols: []string{"chat"}})
		if err != nil {
			return err.Error()
		}
		defer c.CloseNow()
		if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			return err.Error()
		}
		_, answer, err := c.Read(t.Context())
		if err != nil {
			return err.Error()
		}
		return string(answer)
	}
	exchange := func(addr string) string { return say(addr, "hello") }
	rawExchange := func(addr string) string {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		io.WriteString(c, "hello")
		c.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(c)
		return string(answer)
	}
	for _, tt := range []struct {
		name, flags, stream string
		ask                 func(addr string) string
		want, stdout        string
	}{
		{"no flags", "", "bare", get("POST", "/", "body"), "200  ", "body"},
		{"echo", "--echo", "bare", get("POST", "/", "body"), "200 text/plain; charset=utf-8 body", "body"},
		{"respond", "--respond hello", "bare", get("GET", "/", ""), "200 text/plain; charset=utf-8 hello", ""},
		{"respond with a file", "--respond @" + filepath.Join(site, "index.html"), "page", get("GET", "/", ""), "200 text/html; charset=utf-8 <p>index", ""},
		{"mime", "--respond {} --mime application/json", "page", get("GET", "/", ""), "200 application/json {}", ""},
		{"index of a folder", "--dir " + site, "page", get("GET", "/", ""), "200 text/html; charset=utf-8 <p>index", ""},
		{"file", "--dir " + site, "page", get("GET", "/sub/a.txt", ""), "200 text/plain; charset=utf-8 text", ""},
		{"folder without index", "--dir " + site, "page", get("GET", "/sub", ""), "404  ", ""},
		{"outside of the folder", "--dir " + site, "page", get("GET", "/sub/../../secret", ""), "404  ", ""},
		{"encoded path", "--dir " + site, "page", get("GET", "/%2e%2e/secret", ""), "404  ", ""},
		{"another method", "--dir " + site, "page", get("POST", "/", ""), "405  ", ""},
		{"ws", "--echo", "ws", exchange, "hello", "hello"},
		{"ws, an empty message", "--echo", "ws", func(addr string) string { return say(addr, "") }, "", ""},
		{"ws on a page's port", "--respond hi", "page", exchange, "hi", "hello"},
		{"raw", "--echo", "raw", rawExchange, "hello", "hello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"run", "--json", "--count", "1", "--timeout", "1m"}, strings.Fields(tt.flags)...)
			events, stderr := io.Pipe()
			var stdout bytes.Buffer
			code := make(chan int, 1)
			go func() {
				code <- run(append(args, policy, tt.stream), nil, &stdout, stderr)
				stderr.Close()
			}()
			answers := make(chan string, 1)
			var last event
			clients := 0
			path := ""   // of the request
			status := "" // that the events have
			for lines := bufio.NewScanner(events); lines.Scan(); {
				var e event
				if err := json.Unmarshal(lines.Bytes(), &struct {
					*event
					T float64 `json:"t"`
				}{event: &e}); err != nil {
					t.Fatalf("%s: %v", lines.Text(), err)
				}
				if e.Event == "listening" {
					go func() { answers <- tt.ask(e.Addr) }()
				}
				clients = max(clients, e.Client)
				path = cmp.Or(path, e.Path)
				if e.Event == "answer" {
					status += strconv.Itoa(e.Status)
				}
				last = e
			}
			if got := <-code; got != exitOK {
				t.Errorf("exit %d", got)
			}
			if got := <-answers; got != tt.want {
				t.Errorf("answer %q, want %q", got, tt.want)
			}
			if want, _, isHTTP := strings.Cut(tt.want, " "); isHTTP && status != want {
				t.Errorf("the events have the status %q, want %q", status, want)
			}
			if strings.HasPrefix(tt.flags, "--dir") && !strings.HasPrefix(path, "/") {
				t.Errorf("the events have the path %q of the request", path)
			}
			if got := stdout.String(); got != tt.stdout {
				t.Errorf("stdout %q, want %q", got, tt.stdout)
			}
			if last.State != "DESTROYING" || last.Client != 0 || clients != 1 {
				t.Errorf("%d clients, and in the end %+v", clients, last)
			}
		})
	}
}

// TestRunServerUsage checks the errors of flags that do not fit a streamtype.
func TestRunServerUsage(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(serverPolicy), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, want string }{
		{"--echo client", `sspolicy: --echo is for servers, and streamtype "client" is a client`},
		{"--data x raw", `sspolicy: --data is for clients, and streamtype "raw" is a server: use --respond`},
		{"--dir . raw", `sspolicy: --dir is for h1 and h2, and the protocol of streamtype "raw" is raw`},
		{"--mime text/html bare", `sspolicy: --mime: streamtype "bare" has no metadata for the header content-type`},
	} {
		var stdout, stderr bytes.Buffer
		args := strings.Fields(tt.args)
		args = append(append([]string{"run"}, args[:len(args)-1]...), policy, args[len(args)-1])
		if code := run(args, nil, &stdout, &stderr); code != exitUsage || strings.TrimSpace(stderr.String()) != tt.want {
			t.Errorf("%s: exit %d\n%s", tt.args, code, stderr.String())
		}
	}
}
