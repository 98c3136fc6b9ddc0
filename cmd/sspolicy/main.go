// Command sspolicy checks, changes, compiles and executes libwebsockets Secure
// Streams policies.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/secure-streams/sspolicy/schema"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// The exit codes, and what the help says of them.
const (
	exitOK       = 0
	exitFindings = 1
	exitUsage    = 2
	exitFailed   = 3
	exitStream   = 4
)

var exitCodes = []struct {
	code    int
	meaning string
}{
	{exitOK, "all is well"},
	{exitFindings, "findings: the policy, or a fragment, is not right"},
	{exitUsage, "the command line is not right"},
	{exitFailed, "sspolicy could not do it: a file that can't be read, say, or a key of the policy that it does not execute"},
	{exitStream, "the stream failed (run)"},
}

// An exitError is an error that ends the program with a code. Without an error
// inside, all has been said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

var errFindings = &exitError{code: exitFindings}

// A program is what the commands have in common.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

type cli struct {
	Validate validateCmd `cmd:"" help:"Check the syntax and shape of policies."`
	Lint     lintCmd     `cmd:"" help:"Find every mistake in policies: syntax, shape and meaning."`
	Fmt      fmtCmd      `cmd:"" help:"Bring policies into the one layout."`
	Explain  explainCmd  `cmd:"" help:"Explain a rule, a key or a state."`
	Rules    rulesCmd    `cmd:"" help:"List the rules of lint."`
	Schema   schemaCmd   `cmd:"" help:"Print the JSON Schema of a policy."`
	Overlay  overlayCmd  `cmd:"" help:"Lay fragments over a policy and print the result."`
	Compile  compileCmd  `cmd:"" help:"Compile a policy to static tables in Go or C."`
	Run      runCmd      `cmd:"" help:"Execute one stream of a policy."`
	Demo     demoCmd     `cmd:"" help:"Show the whole way of a policy, on loopback."`
	Version  versionCmd  `cmd:"" help:"Print the version of sspolicy."`

	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`
	Man        manCmd        `cmd:"" help:"Print the man page."`
}

func description() string {
	var b strings.Builder
	b.WriteString("Checks, changes, compiles and executes libwebsockets Secure Streams policies. A file named - is standard input.\n\nExit codes:\n\n")
	for _, c := range exitCodes {
		fmt.Fprintf(&b, " %d  %s\n", c.code, c.meaning)
	}
	return b.String()
}

// exited is what kong's own exits (--help) panic with.
type exited int

// run executes a command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if e := recover(); e != nil {
			if c, ok := e.(exited); ok {
				code = int(c)
				return
			}
			fmt.Fprintf(stderr, "sspolicy: a defect of sspolicy, please report it: %v\n\n%s", e, debug.Stack())
			code = exitFailed
		}
	}()
	var c cli
	parser, err := kong.New(&c,
		kong.Name("sspolicy"),
		kong.Description(description()),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.Vars{"lws": schema.Latest().String()},
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(duration)),
		kong.KindMapper(reflect.Int, kong.MapperFunc(integer)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		panic(err) // the declarations above are wrong
	}
	ctx, err := parser.Parse(usual(args))
	if err != nil {
		fmt.Fprintf(stderr, "sspolicy: %v\n", err)
		var pe *kong.ParseError
		if errors.As(err, &pe) && pe.Context.Selected() != nil {
			fmt.Fprintf(stderr, "usage: sspolicy %s\n", pe.Context.Selected().Summary())
		} else {
			fmt.Fprintln(stderr, "usage: sspolicy <command>")
		}
		return exitUsage
	}
	err = ctx.Run(&program{stdin, stdout, stderr})
	var e *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &e):
		if e.err != nil {
			complain(stderr, e.err)
		}
		return e.code
	default:
		complain(stderr, err)
		return exitFailed
	}
}

// usual makes commands of what people try first: --version, and help COMMAND.
func usual(args []string) []string {
	switch {
	case len(args) == 0:
	case args[0] == "--version" && len(args) == 1:
		return []string{"version"}
	case args[0] == "help" && len(args) <= 2:
		return append(slices.Clone(args[1:]), "--help")
	}
	return args
}

// duration reads a time span, and says what is missing.
func duration(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is no time span, as 10s, 500ms or 2m are", text)
	}
	target.SetInt(int64(d))
	return nil
}

// integer reads a whole number.
func integer(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("number", &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("%q is no whole number, or too large a one", text)
	}
	target.SetInt(int64(n))
	return nil
}

// complain writes an error for people. Those of package runtime say whose they
// are, which a command need not say twice.
func complain(w io.Writer, err error) {
	fmt.Fprintf(w, "sspolicy: %s\n", harmless(strings.ReplaceAll(err.Error(), "sspolicy: ", "")))
}

// harmless replaces what could make a terminal do something, as a file's name
// may hold.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || 0x7f <= r && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
