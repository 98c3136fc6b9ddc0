// Package demo shows the whole way of a policy on one machine: from its text,
// by way of the checks and the compiler, to a program that executes it.
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
)

const modulePath = "github.com/secure-streams/sspolicy"

// program is what the demo builds around the generated package.
//
//go:embed hello.go.txt
var program string

// limit is how long the commands of the demo that are processes of their own
// may take, together.
const limit = 5 * time.Minute // to build net/http on a slow machine takes one

// Run shows the demo on w. The function sspolicy executes a command line of
// sspolicy, writes all output of it to the writer and returns its exit code.
//
// The files are written to keep, or if that is empty to a folder that is
// removed at the end. For commands and messages as a user has them in that
// folder, Run makes it the working directory until it returns.
//
// It returns an error if anything is not as announced.
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
		return fmt.Errorf("demo: %s: %w", d.step, err)
	}
	d.heading("Done")
	d.say("Everything went as announced.")
	if keep != "" {
		d.say("The files are in %s. The server is gone, so what connects to it now fails.", keep)
	}
	return d.failed
}

// findCheckout returns the folder of the module's source: the working directory
// or one above it.
func findCheckout() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module "+modulePath+"\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("demo: %s is not in a checkout of sspolicy, where the demo finds the source of the package that generated code needs", start)
		}
	}
}

// enter makes dir the working directory, and the folder itself if need be. The
// function that it returns goes back.
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
	step     string // the heading of the step at hand
	steps    int
	failed   error // of writing to w
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
	d.say("It listens on 127.0.0.1, port %d.", srv.port)

	d.heading("A policy for it")
	sound, broken := policies(srv.port, ca, other)
	for _, f := range []struct{ name, text string }{
		{"policy.json", sound}, {"broken.json", broken}, {"break-trust.json", breakTrust},
		{"main.go", program},
		{"go.mod", fmt.Sprintf("module hello\n\ngo 1.26.0\n\nrequire %[1]s v0.0.0\n\nreplace %[1]s => %[2]q\n", modulePath, d.checkout)},
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
		{"Is its shape right?", func() error {
			return d.command(0, nil, "validate", "policy.json")
		}},
		{"Does it mean what it seems to? No finding is good news", func() error {
			return d.command(0, nil, "lint", "policy.json")
		}},
		{"A variant with a misspelt key, and trust stores that come too late", func() error {
			return d.command(1, []string{"[unknown-key]", `did you mean "opportunistic"?`, "[forward-reference]", "^~"}, "lint", "broken.json")
		}},
		{"From the sound one: a Go package", func() error {
			return d.command(0, nil, "compile", "--lang", "go", "--package", "hellopolicy", "-o", "hellopolicy/policy.go", "policy.json")
		}},
		{"A program around that package", func() error {
			d.show("cat main.go", program)
			if err := d.process(nil, "go", "build", "-o", exe("hello"), "."); err != nil {
				return err
			}
			return d.process([]string{"state: CONNECTED\n", "payload: Hello, Ada! This came over TLS.\n", "state: QOS_ACK_REMOTE\n", "state: DESTROYING\n"}, "./"+exe("hello"))
		}},
		{"The same without a program: one stream, executed from the policy", func() error {
			return d.command(0, []string{"hello  CONNECTED\n", "Hello, Grace! This came over TLS.\n", "hello  QOS_ACK_REMOTE\n"},
				"run", "--set", "name=Grace", "policy.json", "hello")
		}},
		{"For devices: the policy as C tables for lws (the first lines of them)", func() error {
			return d.head(30, "compile", "--lang", "c", "policy.json")
		}},
		{"What if? A fragment to lay over the policy, and what it changes", func() error {
			d.show("cat break-trust.json", breakTrust)
			return d.command(0, []string{"\n-      \"tls_trust_store\": \"demo\",\n+      \"tls_trust_store\": \"vendor\",\n"},
				"overlay", "--diff", "policy.json", "break-trust.json")
		}},
		{"The server is not trusted any more: three retries, then the program is told", func() error {
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
	if _, err := fmt.Fprintf(d.w, format+"\n", args...); d.failed == nil {
		d.failed = err
	}
}

func (d *demo) heading(text string) {
	d.step = text
	d.steps++
	d.say("\n== %d. %s", d.steps, text)
}

// show shows a text as the output of a command. Long lines are cut.
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

// command executes a command line of sspolicy. It fails if the exit code is
// another one than announced, or the output lacks something.
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

// head executes a command line of sspolicy and shows the first lines of its
// output.
func (d *demo) head(lines int, args ...string) error {
	var b bytes.Buffer
	if code := d.sspolicy(&b, args...); code != 0 {
		d.say("%s", b.String())
		return fmt.Errorf("sspolicy %s: the exit code is %d, not 0", args[0], code)
	}
	all := strings.SplitAfter(b.String(), "\n")
	if len(all) <= lines {
		return fmt.Errorf("sspolicy %s: the output has less than %d lines", args[0], lines)
	}
	d.show(fmt.Sprintf("sspolicy %s | head -n %d", strings.Join(args, " "), lines), strings.Join(all[:lines], ""))
	return nil
}

// process executes a program, and fails if that does or the output lacks
// something.
func (d *demo) process(contains []string, name string, args ...string) error {
	d.say("$ %s", strings.Join(append([]string{name}, args...), " "))
	out := &output{w: d.w}
	c := exec.CommandContext(d.ctx, name, args...)
	c.Stdout, c.Stderr = out, out
	// Nothing has to be downloaded, since the runtime uses the standard library
	// alone: so nothing is.
	c.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOPROXY=off", "GOWORK=off")
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return out.check(name, contains)
}

// output keeps what it passes on.
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

// check fails if something is not in the output.
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
