// Package demo takes a policy from its text, through the checks and the compiler,
// to a program that executes it, all on one machine.
package demo

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/readfile"
)

const modulePath = "github.com/secure-streams/sspolicy"

// maxModule is the maximum size of go.mod and go.sum.
const maxModule = 1 << 20

// program is the program that the demo builds around the generated package.
//
//go:embed hello.go.txt
var program string

// limit is the time limit for all processes of the demo together. Building net/http
// on a slow machine takes a minute.
const limit = 5 * time.Minute

// Run runs the demo and writes it to w. The function sspolicy executes a command line of
// sspolicy, writes its output and returns its exit code.
//
// The files go to the folder keep or, if that is "", to a temporary folder. Run changes the
// working directory to this folder until it returns, so that commands and messages look as
// they do to a user.
//
// Run fails if the result of a command is not the expected one.
func Run(w io.Writer, keep string, sspolicy func(w io.Writer, args ...string) int) (err error) {
	checkout, err := findCheckout()
	if err != nil {
		return err
	}
	dir := keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sspolicy-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	back, err := enter(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, back()) }()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	d := &demo{ctx: ctx, w: w, sspolicy: sspolicy, checkout: checkout}
	if err := d.run(); err != nil {
		return fmt.Errorf("sspolicy: demo: %s: %w", d.step, err)
	}
	d.heading("Done")
	d.say("All commands did what they should.")
	if keep != "" {
		d.say("The files are in %s. The server has stopped, so connections to it fail now.", keep)
	}
	return d.writeErr
}

// findCheckout returns the root of the module: the working directory or one above it.
func findCheckout() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		text, err := readfile.Regular(filepath.Join(dir, "go.mod"), maxModule)
		if err == nil && strings.HasPrefix(string(text), "module "+modulePath+"\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("sspolicy: demo: %s is not in a checkout of sspolicy, against which the demo builds: run it in a clone", start)
		}
	}
}

// module returns the go.mod and go.sum of the program: those of the checkout, which it
// requires too.
func (d *demo) module() (mod, sum string, err error) {
	text, err := readfile.Regular(filepath.Join(d.checkout, "go.mod"), maxModule)
	if err != nil {
		return "", "", err
	}
	sums, err := readfile.Regular(filepath.Join(d.checkout, "go.sum"), maxModule)
	if err != nil {
		return "", "", err
	}
	mod = strings.Replace(string(text), "module "+modulePath, "module hello", 1) +
		fmt.Sprintf("\nrequire %[1]s v0.0.0\n\nreplace %[1]s => %[2]q\n", modulePath, d.checkout)
	return mod, string(sums), nil
}

// enter makes dir, if necessary, and changes to it. back returns to the previous
// directory.
func enter(dir string) (back func() error, err error) {
	from, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chdir(dir); err != nil {
		return nil, err
	}
	return func() error { return os.Chdir(from) }, nil
}

type demo struct {
	ctx      context.Context
	w        io.Writer
	sspolicy func(io.Writer, ...string) int
	checkout string
	step     string // heading of the current step
	steps    int
	writeErr error // the first error of w
}

func (d *demo) run() (err error) {
	d.heading("A CA, another CA, and a TLS server with a certificate from the first")
	ca, err := newAuthority("sspolicy demo CA")
	if err != nil {
		return err
	}
	other, err := newAuthority("sspolicy demo vendor CA")
	if err != nil {
		return err
	}
	srv, err := newServer(ca)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.close()) }()
	d.say("The server listens on 127.0.0.1, port %d.", srv.port)

	d.heading("A policy for the server")
	sound, broken := policies(srv.port, ca, other)
	mod, sum, err := d.module()
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, text string }{
		{"policy.json", sound}, {"broken.json", broken}, {"break-trust.json", breakTrust},
		{"main.go", program},
		{"go.mod", mod}, {"go.sum", sum},
	} {
		if err := os.WriteFile(f.name, []byte(f.text), 0o644); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("hellopolicy", 0o755); err != nil {
		return err
	}
	d.show("cat policy.json", sound)

	for _, step := range []struct {
		heading string
		do      func() error
	}{
		{"Validate its shape", func() error {
			return d.command(0, nil, "validate", "policy.json")
		}},
		{"Lint it: no output means no findings", func() error {
			return d.command(0, nil, "lint", "policy.json")
		}},
		{"Lint a variant with a misspelt key, and trust stores defined too late", func() error {
			return d.command(1, []string{"[unknown-key]", `did you mean "opportunistic"?`, "[forward-reference]", "^~"}, "lint", "broken.json")
		}},
		{"Compile the policy to a Go package", func() error {
			return d.command(0, nil, "compile", "--lang", "go", "--package", "hellopolicy", "-o", "hellopolicy/policy.go", "policy.json")
		}},
		{"Build and run a program around that package", func() error {
			d.show("cat main.go", program)
			if err := d.process(nil, "go", "build", "-o", exe("hello"), "."); err != nil {
				return err
			}
			return d.process([]string{"state: CONNECTED\n", "payload: Hello, Ada! This came over TLS.\n", "state: QOS_ACK_REMOTE\n", "state: DESTROYING\n"}, "./"+exe("hello"))
		}},
		{"Run one stream of the policy, without a program", func() error {
			return d.command(0, []string{"hello  CONNECTED\n", "Hello, Grace! This came over TLS.\n", "hello  QOS_ACK_REMOTE\n"},
				"run", "--set", "name=Grace", "policy.json", "hello")
		}},
		{"Compile the policy to C tables for lws, for devices (first lines)", func() error {
			return d.head(30, "compile", "--lang", "c", "policy.json")
		}},
		{"Write an overlay for a test, and show what it changes", func() error {
			d.show("cat break-trust.json", breakTrust)
			return d.command(0, []string{"\n-      \"tls_trust_store\": \"demo\",\n+      \"tls_trust_store\": \"vendor\",\n"},
				"overlay", "--diff", "policy.json", "break-trust.json")
		}},
		{"Run the stream with the overlay: the server is not trusted, all retries fail", func() error {
			return d.command(4, []string{"UNREACHABLE: ", "hello  ALL_RETRIES_FAILED\n", "certificate signed by unknown authority"},
				"run", "--set", "name=Grace", "--overlay", "break-trust.json", "policy.json", "hello")
		}},
	} {
		d.heading(step.heading)
		if err := step.do(); err != nil {
			return err
		}
	}
	return nil
}

func exe(name string) string {
	if os.PathSeparator == '\\' {
		return name + ".exe"
	}
	return name
}

func (d *demo) say(format string, args ...any) {
	if _, err := fmt.Fprintf(d.w, format+"\n", args...); d.writeErr == nil {
		d.writeErr = err
	}
}

func (d *demo) heading(text string) {
	d.step = text
	d.steps++
	d.say("\n== %d. %s", d.steps, text)
}

// show shows a text as the output of a command. It truncates long lines.
func (d *demo) show(command, text string) {
	d.say("$ %s", command)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) > 100 {
			line = line[:97] + "..."
		}
		d.say("%s", line)
	}
}

// command executes a command line of sspolicy. It fails if the exit code is not exit, or
// the output does not contain all of contains.
func (d *demo) command(exit int, contains []string, args ...string) error {
	d.say("$ sspolicy %s", strings.Join(args, " "))
	out := &output{w: d.w}
	code := d.sspolicy(out, args...)
	d.say("(exit code %d)", code)
	if code != exit {
		return fmt.Errorf("sspolicy %s: the exit code is %d, not %d", args[0], code, exit)
	}
	return out.check("sspolicy "+args[0], contains)
}

// head executes a command line of sspolicy and shows the first lines of the output.
func (d *demo) head(lines int, args ...string) error {
	var b bytes.Buffer
	if code := d.sspolicy(&b, args...); code != 0 {
		d.say("%s", b.String())
		return fmt.Errorf("sspolicy %s: the exit code is %d, not 0", args[0], code)
	}
	all := strings.SplitAfter(b.String(), "\n")
	if len(all) <= lines {
		return fmt.Errorf("sspolicy %s: the output has fewer than %d lines", args[0], lines)
	}
	d.show(fmt.Sprintf("sspolicy %s | head -n %d", strings.Join(args, " "), lines), strings.Join(all[:lines], ""))
	return nil
}

// process executes a program. It fails if the program fails, or the output does not
// contain all of contains.
func (d *demo) process(contains []string, name string, args ...string) error {
	d.say("$ %s", strings.Join(append([]string{name}, args...), " "))
	out := &output{w: d.w}
	c := exec.CommandContext(d.ctx, name, args...)
	c.Stdout, c.Stderr = out, out
	// The runtime needs only the standard library, so nothing is downloaded.
	c.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOPROXY=off", "GOWORK=off")
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return out.check(name, contains)
}

// An output is a writer that keeps its text.
type output struct {
	w    io.Writer
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	return o.w.Write(p)
}

// check returns an error unless the output contains all of contains.
func (o *output) check(command string, contains []string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range contains {
		if !strings.Contains(o.text.String(), c) {
			return fmt.Errorf("%s: %q is not in the output", command, c)
		}
	}
	return nil
}
