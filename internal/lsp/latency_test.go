//go:build unix

package lsp

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// large returns a policy with n streamtypes.
func large(n int) string {
	var b strings.Builder
	b.WriteString(`{
  "release": "1",
  "retry": [{"default": {"backoff": [1000, 5000, 30000], "conceal": 5, "jitterpc": 20, "svalidping": 30, "svalidhup": 35}}],
  "s": [
`)
	for i := range n {
		fmt.Fprintf(&b, `    {
      "stream_%d": {
        "endpoint": "host%d.example.com",
        "port": 443,
        "protocol": "h1",
        "http_method": "GET",
        "http_url": "index%d.html?id=${id}",
        "tls": true,
        "opportunistic": true,
        "retry": "default",
        "metadata": [{"id": ""}]
      }
    }`, i, i, i)
		if i+1 < n {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString("  ]\n}\n")
	return b.String()
}

// cpu returns the CPU time of the process.
func cpu(t *testing.T) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// TestLatency measures the time from a keystroke to its findings in a policy of 1,000
// streamtypes, and the CPU time of server and client. LSPKEYS is the number of keystrokes.
// It writes the policy and the keystrokes to LSPKEYSFILE, to measure another server with
// them.
func TestLatency(t *testing.T) {
	keys := 20
	if text := os.Getenv("LSPKEYS"); text != "" {
		var err error
		if keys, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	const typed = "\"timeout_ms\": 5000,\n"
	type key struct {
		Start int    `json:"start"`
		End   int    `json:"end"`
		Text  string `json:"text"`
	}
	policy := large(1000)
	var script []key
	for i := 0; len(script) < keys; i = (i + 377) % 1000 {
		at := strings.Index(policy, fmt.Sprintf("\"host%d.example.com\",\n", i)) + len(fmt.Sprintf("\"host%d.example.com\",\n", i))
		for j := range typed {
			script = append(script, key{at + j, at + j, typed[j : j+1]})
		}
		script = append(script, key{at, at + len(typed), ""})
	}
	script = script[:keys]
	if file := os.Getenv("LSPKEYSFILE"); file != "" {
		text, err := json.Marshal(map[string]any{"policy": policy, "keys": script})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(t)
	c.open(uri, policy)
	c.await(uri, func([]diagnostic) bool { return true })
	var took, cost []time.Duration
	for _, k := range script {
		start, before := time.Now(), cpu(t)
		c.edit(uri, k.Start, k.End, k.Text)
		c.await(uri, func([]diagnostic) bool { return true })
		took, cost = append(took, time.Since(start)), append(cost, cpu(t)-before)
		c.mu.Lock()
		c.published[uri] = c.published[uri][len(c.published[uri])-1:]
		c.mu.Unlock()
	}
	t.Logf("%d keystrokes in %d bytes", len(script), len(policy))
	for name, list := range map[string][]time.Duration{"time": took, "processor time": cost} {
		slices.Sort(list)
		t.Logf("%s: median %v, p99 %v, most %v", name, list[len(list)/2], list[len(list)*99/100], list[len(list)-1])
	}
}
