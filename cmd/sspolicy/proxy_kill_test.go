package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/sspc"
)

// startProcess starts sspolicy as a process. It returns when a line of its standard error
// contains ready.
func startProcess(t *testing.T, ready string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "sspolicy"
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("%v before %q: %s", err, ready, line)
		}
		if strings.Contains(line, ready) {
			break
		}
	}
	go io.Copy(io.Discard, lines)
	return cmd
}

// TestProxyKilled kills proxy and client processes by SIGKILL. Streams survive the end of
// the proxy, and nothing of a client remains.
func TestProxyKilled(t *testing.T) {
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer origin.Close()
	go func() {
		for {
			conn, err := origin.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	dir := t.TempDir()
	file, config, socket := filepath.Join(dir, "policy.json"), filepath.Join(dir, "proxy.json"), filepath.Join(dir, "socket")
	metrics := filepath.Join(dir, "metrics")
	for name, text := range map[string]string{
		file: fmt.Sprintf(`{"release":"1","product":"p","schema-version":1,"retry":[{"r":{"backoff":[50],"conceal":99}}],
"s":[{"echo":{"endpoint":"127.0.0.1","port":%d,"protocol":"raw","retry":"r"}}]}`, origin.Addr().(*net.TCPAddr).Port),
		config: fmt.Sprintf(`{"listen":[{"address":"unix:%s"}],"metrics":"unix:%s"}`, socket, metrics),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kill := func(cmd *exec.Cmd) {
		t.Helper()
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
	}
	start := func() *exec.Cmd {
		t.Helper()
		return startProcess(t, "listening", "proxy", "--config", config, file)
	}
	running := start()
	p, err := sspc.New("unix:"+socket, sspc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := runtime.NewContext(nil, runtime.Options{Proxy: p})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	connected, received := make(chan struct{}, 1), make(chan string, 1)
	text := ""
	s, err := c.NewStream("echo", runtime.Handlers{
		State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateConnected {
				connected <- struct{}{}
			}
			return runtime.OK
		},
		Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			return copy(buf, text), 0, runtime.OK
		},
		Rx: func(_ *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
			received <- string(buf)
			return runtime.OK
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Connect()
	for round := range 3 {
		select {
		case <-connected:
		case <-ctx.Done():
			t.Fatalf("round %d: the stream is not connected: %v", round, s.Err())
		}
		text = fmt.Sprint("hello ", round)
		s.RequestTx()
		select {
		case got := <-received:
			if got != text {
				t.Errorf("round %d: received %q", round, got)
			}
		case <-ctx.Done():
			t.Fatalf("round %d: nothing received", round)
		}
		for range 3 {
			kill(startProcess(t, "CONNECTED", "run", "--proxy", "unix:"+socket, "--data", "x", "echo"))
		}
		if err := waitLinks(ctx, metrics, 1); err != nil {
			t.Errorf("round %d, after the clients were killed: %v", round, err)
		}
		kill(running)
		running = start()
	}
}

// waitLinks waits until a proxy, which serves its metrics on a unix socket, has n links.
func waitLinks(ctx context.Context, socket string, n int) error {
	want := fmt.Sprintf("\nsspolicy_proxy_links %d\n", n)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	for {
		resp, err := client.Get("http://proxy/metrics")
		if err != nil {
			return err
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if strings.Contains(string(b), want) {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("there are other links:\n" + string(b))
		}
	}
}
