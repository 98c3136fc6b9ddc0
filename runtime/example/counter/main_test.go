package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
)

// TestMain is the program itself in a child process of these tests.
func TestMain(m *testing.M) {
	if os.Getenv("COUNTER") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// start runs the program with a policy of a protocol, and returns the address of its
// TLS server. The test fails if an interrupt does not end it.
func start(t *testing.T, ca *testcert.Authority, protocol string) string {
	t.Helper()
	cert := ca.Certify(testcert.Key(), time.Now().Add(-time.Hour), "localhost", "127.0.0.1")
	port := testserver.FreePort(t).Port()
	file := filepath.Join(t.TempDir(), "policy.json")
	text := fmt.Sprintf(`{
	"certs": [{"cert": %q}, {"key": %q}],
	"s": [{"counter": {
		"server": true, "endpoint": "127.0.0.1", "port": %d, "protocol": %q, "ws_subprotocol": "counter",
		"tls": true, "server_cert": "cert", "server_key": "key",
		"metadata": [{"method": ""}, {"path": ""}]
	}}]
}`, base64.StdEncoding.EncodeToString(cert.Certificate[0]), base64.StdEncoding.EncodeToString(testcert.KeyDER(cert)), port, protocol)
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], file)
	cmd.Env = append(os.Environ(), "COUNTER=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	output := make(chan string, 1)
	go func() {
		text := ""
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			text += lines.Text() + "\n"
		}
		output <- text
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		text := <-output
		if err := cmd.Wait(); err != nil || text != "" {
			t.Errorf("%v\n%s", err, text)
		}
	})
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	for range 6000 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr
		}
		time.Sleep(10 * time.Millisecond) // until the process listens
	}
	t.Fatal("the program does not listen")
	return ""
}

func TestCounter(t *testing.T) {
	ca := testcert.New("CA")
	for _, protocol := range []string{"h1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			addr := start(t, ca, protocol)
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, ForceAttemptHTTP2: true}}
			defer client.CloseIdleConnections()
			resp, err := client.Get("https://" + addr)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, _ := io.ReadAll(resp.Body)
			if string(got) != page || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Errorf("%v %q", resp.Header, got)
			}
			if want := map[string]int{"h1": 1, "h2": 2}[protocol]; resp.ProtoMajor != want {
				t.Errorf("over %s", resp.Proto)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			ws, _, err := websocket.Dial(ctx, "wss://"+addr, &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{"counter"}})
			if err != nil {
				t.Fatal(err)
			}
			defer ws.CloseNow()
			for i := range 3 {
				if _, text, err := ws.Read(ctx); err != nil || string(text) != fmt.Sprint(i+1) {
					t.Fatalf("message %d: %q %v", i, text, err)
				}
			}
		})
	}
}
