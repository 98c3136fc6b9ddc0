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

// A watchRun is a running "sspolicy lint --watch" in a folder.
type watchRun struct {
	t     *testing.T
	dir   string
	cmd   *exec.Cmd
	lines chan string
}

// startWatch writes files and starts the program.
func startWatch(t *testing.T, folder string, files map[string]string) *watchRun {
	t.Helper()
	w := &watchRun{t: t, dir: t.TempDir(), lines: make(chan string, 1000)}
	for name, text := range files {
		w.write(name, text)
	}
	w.cmd = exec.Command("sspolicy", "lint", "--watch", folder)
	w.cmd.Dir = w.dir
	pipe, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.cmd.Stderr = w.cmd.Stdout
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.cmd.Process.Kill() })
	go func() {
		for s := bufio.NewScanner(pipe); s.Scan(); {
			w.lines <- s.Text()
		}
		close(w.lines)
	}()
	return w
}

// write replaces a file atomically, like many editors.
func (w *watchRun) write(name, text string) {
	w.t.Helper()
	tmp := filepath.Join(w.t.TempDir(), "new")
	if err := os.WriteFile(tmp, []byte(text), 0o666); err != nil {
		w.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Join(w.dir, name)), 0o777); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

// await waits for a line.
func (w *watchRun) await(text string) {
	w.t.Helper()
	for deadline := time.After(2 * time.Minute); ; {
		select {
		case line, ok := <-w.lines:
			if !ok {
				w.t.Fatalf("the program ended before %q", text)
			}
			if strings.Contains(line, text) {
				return
			}
		case <-deadline:
			w.t.Fatalf("no %q", text)
		}
	}
}

// end interrupts the program.
func (w *watchRun) end() {
	w.t.Helper()
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		w.t.Fatal(err)
	}
	for range w.lines {
	}
	if err := w.cmd.Wait(); err != nil {
		w.t.Errorf("interrupted: %v", err)
	}
}

// TestWatch checks that lint --watch reports again when a file is written, replaced or
// added, or the configuration changes, and that it reports the absence of findings.
func TestWatch(t *testing.T) {
	policy, err := os.ReadFile("../../fixtures/weather.json")
	if err != nil {
		t.Fatal(err)
	}
	good := string(policy)
	w := startWatch(t, ".", map[string]string{"a.json": good, "b.json": good})
	w.await("files: 2, no findings")
	w.write("a.json", strings.Replace(good, `"port": 443`, `"port": 70443`, 1))
	w.await("a.json:27:17: error")
	w.write("a.json", good)
	w.await("files: 2, no findings")
	w.write("lab/c.json", strings.Replace(good, `"port": 443`, `"port": 443, "h2q_oflow_txcr": true`, 1))
	w.await("lab/c.json:27:")
	w.write(".sspolicy.json", `{"severity": {"wrong-protocol": "off"}}`)
	w.await("files: 3, no findings")
	w.write(".sspolicy.json", `{"severity": {"wrong-protocol": "of"}}`)
	w.await(".sspolicy.json:1:")
	if err := os.Remove(filepath.Join(w.dir, ".sspolicy.json")); err != nil {
		t.Fatal(err)
	}
	w.await("lab/c.json:27:")
	w.end()
}

// TestWatchBase checks that a fragment is checked again when its base, in another folder,
// changes.
func TestWatchBase(t *testing.T) {
	policy, err := os.ReadFile("../../fixtures/weather.json")
	if err != nil {
		t.Fatal(err)
	}
	w := startWatch(t, "lab", map[string]string{
		"base/weather.json": string(policy), "lab/staging.json": `{"s": [{"get_weather": {"port": 8443}}]}`,
		"lab/.sspolicy.json": `{"fragments": [{"paths": ["*.json"], "base": "../base/weather.json"}]}`,
	})
	w.await("files: 1, no findings")
	w.write("base/weather.json", strings.Replace(string(policy), `"get_weather"`, `"get_climate"`, 1))
	w.await("overlay-unknown-streamtype")
	w.write("base/weather.json", string(policy))
	w.await("files: 1, no findings")
	w.end()
}
