package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/cookies"
	"github.com/secure-streams/sspolicy/runtime/file"
	"github.com/secure-streams/sspolicy/runtime/h3"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/oauth"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
	"github.com/secure-streams/sspolicy/schema"
)

type runCmd struct {
	JSON           bool              `name:"json" help:"Print events as JSON, one object a line."`
	Set            map[string]string `mapsep:"none" placeholder:"NAME=VALUE" help:"Set a metadata item of the stream. May be repeated."`
	Data           *string           `placeholder:"TEXT" help:"The payload to send; @FILE for the content of a file, @- for standard input. The default is standard input if the streamtype is HTTP and sends a body."`
	Part           map[string]string `mapsep:"none" placeholder:"NAME=TEXT" help:"The payload of streamtype NAME, which shares the request (rideshare). May be repeated."`
	Count          int               `placeholder:"N" help:"End when N messages have been received; over raw, N pieces. Over HTTP the request is repeated until then. A server ends after N answers."`
	Credential     map[string]string `mapsep:"none" placeholder:"NAME=@FILE" help:"A credential: auth.0, device_serial, client_cert.0, client_key.0, server_cert.STREAM, server_key.STREAM and so on. May be repeated."`
	Credentials    string            `placeholder:"DIR" help:"A folder of credentials, in files auth.0, client_cert.0, server_cert.STREAM and so on."`
	Cookies        string            `placeholder:"FILE" help:"Keep cookies in this file (for streamtypes with http_cookies)."`
	Overlay        []string          `sep:"none" placeholder:"FRAGMENT" help:"Apply this fragment to the policy first. May be repeated."`
	Timeout        *time.Duration    `placeholder:"10s" help:"The time limit of the run (10s; none for a server or a nailed_up stream)."`
	ConnectTimeout time.Duration     `default:"${connect_timeout}" help:"The time limit of each attempt to connect (${default})."`
	serveFlags
	proxyFlags
	File       string `arg:"" help:"The policy. With --proxy there is none: the streamtype follows."`
	StreamType string `arg:"" optional:"" name:"streamtype" complete:"streamtypes" help:"The streamtype to execute."`

	stdin string // the flag that reads standard input
}

// defaultTimeout is the time limit of a run without --timeout.
const defaultTimeout = 10 * time.Second

// Validate checks the flags.
func (c *runCmd) Validate() error {
	switch {
	case c.Count < 0:
		return fmt.Errorf("--count must not be negative, but is %d", c.Count)
	case c.Timeout != nil && *c.Timeout <= 0:
		return fmt.Errorf("--timeout must be positive, but is %v", *c.Timeout)
	case c.ConnectTimeout <= 0:
		return fmt.Errorf("--connect-timeout must be positive, but is %v", c.ConnectTimeout)
	}
	if err := c.checkProxy(); err != nil {
		return err
	}
	if c.Cookies != "" {
		for _, f := range append([]string{c.File}, c.Overlay...) {
			if identity(f) == identity(c.Cookies) {
				return fmt.Errorf("--cookies: %s is a policy", c.Cookies)
			}
		}
	}
	return nil
}

// Help returns the description for "sspolicy run --help".
func (runCmd) Help() string {
	return "Prints the states of the stream on standard error, and the payload that it receives on standard output. The run ends when the peer has acknowledged; over ws, and over mqtt without --data, when a message has been received; over raw when the peer closes. A server prints what its clients send, and answers as the flags say, or with an empty 200, until --count answers, --timeout or Ctrl-C; then clients may complete what they have begun, for 5 s. A nailed_up stream runs until it is idle, --count or --timeout is reached, or Ctrl-C. The run fails if the peer refuses, the answer is cut short, all retries have failed, or a limit is reached first: --timeout, or over HTTP the policy's timeout_ms. Errors of streamtypes that the stream does not need are warnings. Credentials come from the flags, then from the folder, then from variables such as SSPOLICY_AUTH_0. With --proxy the policy is that of a Secure Streams proxy; since only the proxy knows the protocol, the run ends when the peer has acknowledged or closed, or a second after the last message."
}

// Run executes the command.
func (c *runCmd) Run(p *program) error {
	if c.Proxy != "" {
		return c.runProxied(p)
	}
	doc, compiled, err := p.compileAssembled(c.File, c.Overlay, c.StreamType, lint.Options{}, schema.Error)
	if err != nil {
		return err
	}
	st := compiled.StreamType(c.StreamType)
	if st == nil {
		return unknownStreamType(compiled, c.StreamType)
	}
	if err := c.checkServe(st); err != nil {
		return err
	}
	if err := c.checkSet(st); err != nil {
		return err
	}
	data, err := c.data(p, st)
	if err != nil {
		return err
	}
	sources, err := c.credentials(p)
	if err != nil {
		return err
	}
	out := &events{w: p.stderr, json: c.JSON, stream: st.Name, start: time.Now()}
	jar, err := cookies.Open(cookies.Options{File: c.Cookies, Logger: out})
	if err != nil {
		return err
	}
	defer jar.Close()
	tokens := oauth.New(sources, oauth.Options{Rotated: func(_ int, request string) { c.keep(p, request) }})
	ctx, err := runtime.NewContext(compiled, runtime.Options{
		Transports:     transports(),
		ConnectTimeout: c.ConnectTimeout,
		Logger:         out,
		Credentials:    tokens,
		Cookies:        jar,
	})
	if err != nil {
		return err
	}
	defer ctx.Close()
	noTokens := tokens.Bind(ctx) // matters only if the stream needs a token
	if st.Server {
		return locate(doc, st, c.serve(p, ctx, st, out))
	}
	messages, err := c.messages(p, ctx, st, data)
	if err != nil {
		return err
	}
	interrupt, stop := interrupted()
	defer stop()
	e := newExecution(st, c, messages, out, p.stdout)
	if unset := c.unset(st); len(unset) > 0 {
		e.emit(event{Event: "unset", Metadata: unset})
	}
	if _, err := ctx.NewStream(st.Name, e.handlers()); err != nil && !errors.Is(err, runtime.ErrRefused) { // e has the reason
		return locate(doc, st, err)
	}
	err = c.wait(ctx, e, interrupt.Done())
	if lost := jar.Close(); lost != nil && err == nil {
		return lost
	}
	if errors.Is(err, runtime.ErrNoCredentials) && noTokens != nil {
		err = fmt.Errorf("%w (%w)", err, noTokens)
	}
	return c.result(e, err)
}

// result returns the error of the command for the result of a run.
func (c *runCmd) result(e *execution, err error) error {
	if usage, ok := errors.AsType[*exitError](err); ok {
		return usage
	}
	if err != nil {
		err = errors.New(visible(trustHint(err, e.st)))
		if c.JSON {
			e.emit(event{Event: "failed", Error: err.Error()})
			return &exitError{code: exitStream}
		}
		return &exitError{exitStream, fmt.Errorf("stream %q: %w", e.st.Name, err)}
	}
	return nil
}

// transports returns the transports of the network, and that of files.
func transports() []transport.Transport {
	return []transport.Transport{h3.New(http.SigV4), http.New(http.SigV4, http.Server), mqtt.New(), raw.New(raw.TLS, raw.Server), ws.New(ws.Server), file.New()}
}

// interrupted returns a context that ends at the first signal to end the process.
func interrupted() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // another signal ends the process
	return ctx, stop
}

// locate adds the position of a streamtype to an error about it, unless the error
// is about the command line or an event.
func locate(doc *schema.Document, st *policy.StreamType, err error) error {
	if _, ok := errors.AsType[*exitError](err); ok || err == nil {
		return err
	}
	if at := schema.NewPolicy(doc).Lookup("s", st.Name); len(at) > 0 {
		err = fmt.Errorf("%v: %w", at[0].NameSpan, err)
	}
	return err
}

// wait waits for the end of the run, and closes the context.
func (c *runCmd) wait(ctx *runtime.Context, e *execution, interrupt <-chan struct{}) error {
	limit, expired := valueOr(c.Timeout, defaultTimeout), (<-chan time.Time)(nil)
	if c.Timeout != nil || !e.st.NailedUp {
		expired = time.After(limit)
	}
	reason, grace := "", doneGrace
	select {
	case err := <-e.done:
		end(ctx, grace)
		return err
	case <-expired:
		reason, grace = fmt.Sprintf("not done after %v", limit), timeoutGrace
	case <-interrupt:
		reason = "interrupted"
	}
	end(ctx, grace)
	if err := e.pending(); err != nil {
		return fmt.Errorf("%s: %w", reason, err)
	}
	return nil
}

// How long a run may take to end: for acknowledgements, DISCONNECT and close
// frames, and the last states.
const (
	doneGrace    = 4 * time.Second
	timeoutGrace = 2 * time.Second
)

// end closes the context within a time limit.
func end(ctx *runtime.Context, grace time.Duration) {
	limit, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	_ = ctx.Shutdown(limit) // the result of the run reports what is missing
}

func unknownStreamType(compiled *policy.Policy, name string) error {
	var names []string
	for _, st := range compiled.StreamTypes {
		names = append(names, st.Name)
	}
	return unknown("the policy has no streamtype", name, names)
}

// checkSet checks that the streamtype has the metadata of --set.
func (c *runCmd) checkSet(st *policy.StreamType) error {
	names := metadataNames(st)
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		// With direct_proto_str it may be a header too.
		if !st.DirectProtoStr && !slices.Contains(names, name) {
			return unknown(fmt.Sprintf("streamtype %q has no metadata", st.Name), name, names)
		}
	}
	return nil
}

// unset returns the names of the metadata without a value.
func (c *runCmd) unset(st *policy.StreamType) []string {
	return slices.DeleteFunc(metadataNames(st), func(name string) bool {
		_, ok := c.Set[name]
		return ok
	})
}

func metadataNames(st *policy.StreamType) (names []string) {
	for _, m := range st.Metadata {
		names = append(names, m.Name)
	}
	return names
}

// unknown returns a usage error for a name that is not in names.
func unknown(problem, name string, names []string) error {
	err := fmt.Errorf("%s %q", problem, name)
	if better := schema.Nearest(name, names); better != "" {
		err = fmt.Errorf("%w: did you mean %q?", err, better)
	} else if len(names) > 0 && len(names) <= 20 {
		err = fmt.Errorf("%w: want one of %s", err, strings.Join(names, ", "))
	}
	return &exitError{exitUsage, err}
}
