package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWatch: lint --watch reports again when a file is written, replaced or added, or the
// configuration changes; it says so when there are no findings.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		// As many editors do: beside the file, and then in its place.
		tmp := filepath.Join(t.TempDir(), "new")
		if err := os.WriteFile(tmp, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	policy, err := os.ReadFile("../../fixtures/weather.json")
	if err != nil {
		t.Fatal(err)
	}
	good := string(policy)
	write("a.json", good)
	write("b.json", good)
	cmd := exec.Command("sspolicy", "lint", "--watch", ".")
	cmd.Dir = dir
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		for s := bufio.NewScanner(pipe); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	await := func(text string) {
		t.Helper()
		for deadline := time.After(30 * time.Second); ; {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("the program ended before %q", text)
				}
				if strings.Contains(line, text) {
					return
				}
			case <-deadline:
				t.Fatalf("no %q", text)
			}
		}
	}
	await("files: 2, no findings")
	write("a.json", strings.Replace(good, `"port": 443`, `"port": 70443`, 1))
	await("a.json:27:17: error")
	write("a.json", good)
	await("files: 2, no findings")
	write("lab/c.json", strings.Replace(good, `"port": 443`, `"port": 443, "h2q_oflow_txcr": true`, 1))
	await("lab/c.json:27:")
	write(".sspolicy.json", `{"severity": {"wrong-protocol": "off"}}`)
	await("files: 3, no findings")
	write(".sspolicy.json", `{"severity": {"wrong-protocol": "of"}}`)
	await(".sspolicy.json:1:")
	if err := os.Remove(filepath.Join(dir, ".sspolicy.json")); err != nil {
		t.Fatal(err)
	}
	await("lab/c.json:27:")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for range lines {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}
