package http_test

import (
	"bufio"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestRenegotiation checks the error for a server that requests a client certificate after
// the handshake, as apache does for a location.
func TestRenegotiation(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("the test needs openssl")
	}
	own := testcert.New("own")
	config := own.Server(nil, "127.0.0.1")
	file := filepath.Join(t.TempDir(), "server.pem")
	testcert.WritePEM(file, config.Certificates[0])
	addr := testserver.FreePort(t)
	cmd := exec.CommandContext(t.Context(), openssl, "s_server", "-accept", addr.String(), "-naccept", "1",
		"-tls1_2", "-cert", file, "-key", file, "-legacy_renegotiation")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(out)
	await := func(text string) {
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Errorf("openssl does not print %q", text)
	}
	await("ACCEPT")
	c := newContext(t, policy.StreamType{TLS: true, TrustStore: own.Store()}, addr, runtime.Options{})
	done := make(chan error, 1)
	go func() {
		_, err := get(t, c)
		done <- err
	}()
	await("GET / HTTP")
	io.WriteString(in, "R\n") // asks for a certificate
	if err := <-done; err == nil || !strings.Contains(err.Error(), "asks for a client certificate after the TLS handshake") {
		t.Errorf("the error is %v", err)
	}
}
