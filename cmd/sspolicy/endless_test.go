//go:build unix

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testcert"
)

// TestEndlessInput checks that no command reads an endless file or endless standard input.
func TestEndlessInput(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	policy := file("policy.json", `{"release": "1", "product": "p", "schema-version": 1, "s": [
		{"say": {"endpoint": "127.0.0.1", "port": 1, "protocol": "raw", "opportunistic": true}}]}`)
	identity := filepath.Join(dir, "identity.pem")
	testcert.WritePEM(identity, *testcert.New("clients").Client(1))
	defer func(n int64) { maxLarge = n }(maxLarge)
	maxLarge = 1 << 20
	const endless = "/dev/zero"
	for _, line := range []string{
		"validate @", "lint @", "lint --config @ policy", "fmt --check @", "compile --lang go @", "compile --lang c -o @ --check policy",
		"overlay policy @", "import --elf @", "verify --compiled @ policy", "sign --key @ policy", "sign --key @ @", "init --protocol h1 --ca @",
		"run @ say", "run policy say --data @@", "run policy say --data @-", "run policy say --data x --credential auth.0=@@", "run policy say --overlay @",
		"run --proxy tls:127.0.0.1:1 --proxy-ca @ say", "run --proxy tls:127.0.0.1:1 --proxy-cert @ --proxy-key identity say",
		"run --proxy tls:127.0.0.1:1 --proxy-cert identity --proxy-key @ say", "login-proxy --cert @ http://127.0.0.1:1", "proxy --config @ policy",
		"breaking policy @", "pack @", "graph @", "test @",
	} {
		args := strings.Fields(line)
		for i, arg := range args {
			switch {
			case arg == "@":
				args[i] = endless
			case strings.HasSuffix(arg, "@@"):
				args[i] = strings.TrimSuffix(arg, "@") + endless
			case arg == "policy":
				args[i] = policy
			case arg == "identity":
				args[i] = identity
			}
		}
		zeros, err := os.Open(endless)
		if err != nil {
			t.Fatal(err)
		}
		var stderr strings.Builder
		code := run(args, zeros, io.Discard, &stderr)
		zeros.Close()
		if code == exitOK || !strings.Contains(stderr.String(), "larger than ") || !strings.Contains(stderr.String(), " MiB, the limit") {
			t.Errorf("%s: exit %d: %s", line, code, &stderr)
		}
	}
}

// TestFoundPipe checks that a named pipe found in a folder does not block a command.
func TestFoundPipe(t *testing.T) {
	for name, want := range map[string]string{"pipe.json": "", ".sspolicy.json": "not a regular file", ".gitignore": "not a regular file", "pipe.c": ""} {
		dir := t.TempDir()
		policy := filepath.Join(dir, "policy.json")
		text, err := os.ReadFile("../../fixtures/weather.json")
		if err == nil {
			err = os.WriteFile(policy, text, 0o600)
		}
		if err == nil {
			err = syscall.Mkfifo(filepath.Join(dir, name), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		var stderr strings.Builder
		code := run([]string{"lint", dir}, nil, io.Discard, &stderr)
		if (code == exitOK) != (want == "") || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: exit %d: %s", name, code, &stderr)
		}
	}
	pipe := filepath.Join(t.TempDir(), "tables.c")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	if code := run([]string{"import", pipe}, nil, io.Discard, &stderr); code == exitOK || !strings.Contains(stderr.String(), "not a regular file") {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}

// TestPipeAsBase checks that a named pipe or standard input as the base of a fragment does
// not block a command.
func TestPipeAsBase(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := syscall.Mkfifo("pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	for base, want := range map[string]string{"pipe": "not a regular file", ".": "not a regular file", "-": "no such file"} {
		if err := os.WriteFile("fragment.json", []byte(`{"x-sspolicy": {"base": "`+base+`"}, "s": []}`), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"lint", "overlay", "graph", "report"} {
			stdin, unwritten, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr strings.Builder
			code := run([]string{command, "fragment.json"}, stdin, io.Discard, &stderr)
			if code == exitOK || !strings.Contains(stderr.String(), want) {
				t.Errorf("%s with the base %s: exit %d: %s", command, base, code, &stderr)
			}
			stdin.Close()
			unwritten.Close()
		}
	}
}
