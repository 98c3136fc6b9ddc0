// Command sspolicy checks, changes, compiles and executes libwebsockets Secure
// Streams policies.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/clidoc"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/proxy"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/schema"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// The exit codes.
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
	{exitOK, "success"},
	{exitFindings, "findings: the policy or a fragment has mistakes"},
	{exitUsage, "usage: the command line or the configuration is wrong"},
	{exitFailed, "failure: an unreadable file, or a key that is not supported"},
	{exitStream, "the stream failed (run), or did not do what was expected (fault)"},
}

// An exitError ends the program with a code. Without a wrapped error, everything
// has been reported.
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

// A program is shared by the commands.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

type cli struct {
	Validate   validateCmd   `cmd:"" help:"Check the syntax and shape of policies."`
	Lint       lintCmd       `cmd:"" help:"Find the mistakes in policies: syntax, shape and meaning."`
	Fmt        fmtCmd        `cmd:"" help:"Format policies."`
	LSP        lspCmd        `cmd:"" name:"lsp" help:"Serve editors: the language server protocol over standard input and output."`
	Explain    explainCmd    `cmd:"" help:"Explain a rule, a key or a state."`
	Rules      rulesCmd      `cmd:"" help:"List the rules of lint, and test those of the project."`
	Schema     schemaCmd     `cmd:"" help:"Print the JSON Schema of a policy."`
	Overlay    overlayCmd    `cmd:"" help:"Apply fragments to a policy and print the result."`
	Compile    compileCmd    `cmd:"" help:"Compile a policy to static tables in Go or C."`
	Pack       packCmd       `cmd:"" help:"Print a policy as one line of JSON, or as a C string."`
	Graph      graphCmd      `cmd:"" help:"Draw a policy."`
	Report     reportCmd     `cmd:"" help:"Write an HTML page about policies."`
	Breaking   breakingCmd   `cmd:"" help:"Report the changes between two policies that break programs, peers or devices."`
	Diff       diffCmd       `cmd:"" help:"Print the changes between two policies in words."`
	Import     importCmd     `cmd:"" help:"Print the policy that tables of lws hold, in C source or in a program."`
	Keygen     keygenCmd     `cmd:"" help:"Make a key to sign policies."`
	Sign       signCmd       `cmd:"" help:"Sign a policy for devices."`
	Rotate     rotateCmd     `cmd:"" help:"Replace the keys that devices trust."`
	Verify     verifyCmd     `cmd:"" help:"Check the signature of a policy, or that a program or compiled policy holds it."`
	Init       initCmd       `cmd:"" help:"Write a first policy, with comments, or a configuration."`
	Test       testCmd       `cmd:"" help:"Run tests of what the streams of a policy do."`
	Run        runCmd        `cmd:"" help:"Execute one stream of a policy."`
	Proxy      proxyCmd      `cmd:"" help:"Execute the streams of a policy for other processes."`
	LoginProxy loginProxyCmd `cmd:"" help:"Reuse the sessions of API callers that keep no cookies."`
	Fault      faultCmd      `cmd:"" help:"Run streams against the ways in which networks and servers fail."`
	Certs      certsCmd      `cmd:"" help:"List, check, import, minimize and fetch certificates."`
	Storm      stormCmd      `cmd:"" help:"Simulate a fleet of devices after an outage of their server."`
	Demo       demoCmd       `cmd:"" help:"Run the tour: one policy, from lint to a program."`
	Version    versionCmd    `cmd:"" help:"Print the version of sspolicy."`

	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`
	Man        manCmd        `cmd:"" help:"Print the man page."`
}

func description() string {
	var b strings.Builder
	b.WriteString("Checks, changes, compiles and executes libwebsockets Secure Streams policies. The file - is standard input.\n\nExit codes:\n\n")
	for _, c := range exitCodes {
		fmt.Fprintf(&b, " %d  %s\n", c.code, c.meaning)
	}
	return b.String()
}

// exitCode is the panic value of kong's own exits, such as for --help.
type exitCode int

// run executes a command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if e := recover(); e != nil {
			if c, ok := e.(exitCode); ok {
				code = int(c)
				return
			}
			fmt.Fprintf(stderr, "sspolicy: a bug in sspolicy, please report it: %v\n\n%s", e, debug.Stack())
			code = exitFailed
		}
	}()
	parser := newParser(stdout, stderr)
	p := &program{stdin, stdout, stderr}
	if len(args) > 0 && args[0] == clidoc.CompleteCommand {
		if err := p.complete(parser.Model, args[1:]); err != nil {
			return exitFailed
		}
		return exitOK
	}
	ctx, err := parser.Parse(usual(args))
	if err != nil {
		fmt.Fprintf(stderr, "sspolicy: %s\n", misuse(err, args))
		var pe *kong.ParseError
		if errors.As(err, &pe) && pe.Context.Selected() != nil {
			fmt.Fprintf(stderr, "usage: sspolicy %s\n", pe.Context.Selected().Summary())
			if pe.Context.Selected().Name == "run" {
				fmt.Fprintln(stderr, "       sspolicy run --proxy ADDRESS <streamtype> [flags]")
			}
		} else {
			fmt.Fprintln(stderr, "usage: sspolicy <command>; sspolicy --help lists the commands")
		}
		return exitUsage
	}
	err = ctx.Run(p)
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

// newParser returns the parser of the command line.
func newParser(stdout, stderr io.Writer) *kong.Kong {
	return kong.Must(&cli{},
		kong.Name("sspolicy"),
		kong.Description(description()),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exitCode(code)) }),
		kong.Vars{
			"lws":             schema.Latest().String(),
			"abis":            strings.Join(codegen.ABIs(), ", "),
			"groups":          strings.Join(rules.Groups(), ", "),
			"proxy_address":   proxy.DefaultAddress,
			"connect_timeout": runtime.DefaultConnectTimeout.String(),
		},
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(duration)),
		kong.KindMapper(reflect.Int, kong.MapperFunc(integer)),
		kong.KindMapper(reflect.Uint64, kong.MapperFunc(unsigned)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
}

var (
	unknownLetter = regexp.MustCompile(`^unknown flag -\w\b`)
	missingValue  = regexp.MustCompile(`^(--?[\w-]+): expected .* but got "EOL" \(<EOL>\)$`)
)

// misuse returns an error of the command line as text. All one-letter flags are
// equally near to each other, so none is suggested.
func misuse(err error, args []string) string {
	text := err.Error()
	word, unexpected := strings.CutPrefix(text, "unexpected argument ")
	if pe, ok := errors.AsType[*kong.ParseError](err); ok && unexpected {
		// list is the default of rules: kong reads "rules tst" as "rules list tst".
		if d := pe.Context.Selected(); d != nil && d.Parent != nil && d.Parent.DefaultCmd == d && !slices.Contains(args, d.Name) {
			var names []string
			for _, child := range d.Parent.Children {
				names = append(names, child.Name)
			}
			return unknown(fmt.Sprintf("%q has no command", d.Parent.Name), word, names).Error()
		}
	}
	if flag := unknownLetter.FindString(text); flag != "" {
		return flag
	}
	text = strings.Replace(text, `must be one of "",`, "must be one of ", 1) // a flag without a default
	return missingValue.ReplaceAllString(text, "$1 needs a value")
}

// usual translates two common forms of the command line: --version, and help
// COMMAND.
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

// duration reads a duration flag.
func duration(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 10s, 500ms or 2m", text)
	}
	target.SetInt(int64(d))
	return nil
}

// integer reads an integer flag.
func integer(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("number", &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("%q is not an integer, or out of range", text)
	}
	target.SetInt(int64(n))
	return nil
}

// complain writes an error to the user.
func complain(w io.Writer, err error) {
	fmt.Fprintf(w, "sspolicy: %s\n", harmless(plain(err)))
}

// harmless escapes the characters that a terminal would interpret or hide, except
// line breaks and tabs.
func harmless(s string) string { return escape(s, "\n\t") }

// visible is like harmless, for a text from a peer, which must stay on one line.
func visible(s string) string { return escape(s, "") }

// escape escapes unprintable runes, as in a Go string, except those of keep.
func escape(s, keep string) string {
	special := func(r rune) bool { return !strconv.IsPrint(r) && !strings.ContainsRune(keep, r) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, special) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case special(r):
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(r)
		}
		s = s[size:]
	}
	return b.String()
}
