// Package testbroker runs mosquitto for tests.
package testbroker

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Start runs a broker until the end of the test. It returns when the broker
// listens. config is a mosquitto.conf(5), except for the log and the user.
func Start(t testing.TB, config string) {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto"
	}
	path := filepath.Join(t.TempDir(), "mosquitto.conf")
	const own = "log_dest stderr\nlog_type error\nlog_type information\nuser root\n"
	if err := os.WriteFile(path, []byte(own+config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-c", path)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started, ended := make(chan bool, 1), make(chan struct{})
	var log strings.Builder
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			log.WriteString(lines.Text() + "\n")
			if strings.HasSuffix(lines.Text(), " running") {
				select {
				case started <- true:
				default:
				}
			}
		}
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	select {
	case <-started:
	case <-ended:
		t.Fatalf("mosquitto has ended:\n%s", log.String())
	}
}
