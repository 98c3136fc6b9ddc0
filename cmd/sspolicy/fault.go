package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/secure-streams/sspolicy/faulttest"
	"github.com/secure-streams/sspolicy/internal/explain"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/h3"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
	"github.com/secure-streams/sspolicy/schema"
)

type faultCmd struct {
	List    faultListCmd    `cmd:"" help:"List the faults."`
	Explain faultExplainCmd `cmd:"" help:"Explain a fault."`
	Make    faultMakeCmd    `cmd:"" help:"Print the overlay that redirects a stream to the peer of a fault."`
	Serve   faultServeCmd   `cmd:"" help:"Run the peer of a fault until Ctrl-C."`
	Run     faultRunCmd     `cmd:"" help:"Run a stream against a fault, and compare its states with those expected."`
	Matrix  faultMatrixCmd  `cmd:"" help:"Run all streams of policies against all faults that fit them."`
}

type faultListCmd struct{ textOrJSON }

// Run executes the command.
func (c *faultListCmd) Run(p *program) error {
	if c.Format == "json" {
		return p.output("", func(w io.Writer) error { return report.Encode(w, explain.FaultList()) })
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, f := range faulttest.All() {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, f.Family, f.Summary)
	}
	for _, set := range faulttest.Presets {
		fmt.Fprintf(w, "%s\tpreset\t%s\n", set.Name, set.Summary)
	}
	return w.Flush()
}

type faultExplainCmd struct {
	Name string `arg:"" complete:"faults" help:"A fault, such as tls-expired."`
}

// Run executes the command.
func (c *faultExplainCmd) Run(p *program) error {
	f := faulttest.Lookup(c.Name)
	if f == nil {
		return unknownFault(c.Name)
	}
	return p.output("", write(explain.Fault(f, report.Docs)))
}

// unknownFault returns the error for a name that is not in the catalogue.
func unknownFault(name string) error {
	return unknown("\"sspolicy fault list\" has no fault", name, faultNames())
}

func faultNames() (names []string) {
	for _, f := range faulttest.All() {
		names = append(names, f.Name)
	}
	return names
}

// faultFlags are the flags of the commands about one fault of one stream.
type faultFlags struct {
	Name   string            `arg:"" complete:"faults" help:"The fault."`
	File   string            `arg:"" name:"policy" help:"The policy."`
	Stream string            `required:"" complete:"faultstreams" placeholder:"NAME" help:"The streamtype."`
	Param  map[string]string `mapsep:"none" placeholder:"NAME=VALUE" help:"A parameter of the fault. May be repeated."`
}

// peerFlags are the flags about the peer of a device.
type peerFlags struct {
	Listen    string          `default:"127.0.0.1:4433" placeholder:"HOST:PORT" help:"The address on which the peer listens (${default})."`
	Authority string          `placeholder:"FILE" help:"The temporary authority that certifies the peer, created if the file does not exist. The default is a file in the user's cache."`
	LWS       *schema.Version `name:"lws" complete:"versions" placeholder:"VERSION" help:"Write the overlay for the overlay function of this lws, which can change little more than the address."`
}

// load compiles the policy and finds the fault.
func (c *faultFlags) load(p *program) (*policy.Policy, *faulttest.Fault, error) {
	f := faulttest.Lookup(c.Name)
	if f == nil {
		return nil, nil, unknownFault(c.Name)
	}
	_, compiled, err := p.compileAssembled(c.File, nil, "", lint.Options{}, schema.Error)
	if err != nil {
		return nil, nil, err
	}
	st := compiled.StreamType(c.Stream)
	if st == nil {
		return nil, nil, unknownStreamType(compiled, c.Stream)
	}
	if ok, why := f.Fits(st); !ok {
		return nil, nil, &exitError{exitUsage, fmt.Errorf("fault %s does not apply to streamtype %q: %s", f.Name, c.Stream, why)}
	}
	if err := f.Check(c.Param); err != nil {
		return nil, nil, &exitError{exitUsage, err}
	}
	return compiled, f, nil
}

// open starts the peer of the fault, and returns the overlay that redirects the
// stream to it.
func (c *peerFlags) open(f *faultFlags, p *program, o faulttest.Options) (*faulttest.Peer, []byte, error) {
	if err := faulttest.CheckListen(c.Listen); err != nil {
		return nil, nil, usage("--listen: %v", err)
	}
	compiled, fault, err := f.load(p)
	if err != nil {
		return nil, nil, err
	}
	if o.Authority, err = faulttest.OpenAuthority(c.Authority); err != nil {
		return nil, nil, err
	}
	o.Args, o.Listen, o.Plain = f.Param, c.Listen, c.LWS != nil
	peer, err := faulttest.Open(compiled, f.Stream, fault, o)
	if err != nil {
		return nil, nil, err
	}
	text := peer.Fragment(compiled)
	if c.LWS != nil {
		if text, err = peer.LWSFragment(compiled); err != nil {
			peer.Close()
			return nil, nil, err
		}
	}
	return peer, text, nil
}

type faultMakeCmd struct {
	faultFlags
	peerFlags
	Output string `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
}

// Help returns the description for "sspolicy fault make --help".
func (faultMakeCmd) Help() string {
	return "The overlay is for the peer that \"sspolicy fault serve\" runs with the same flags. It changes the address of the stream, and for a streamtype with TLS its trust store."
}

// Run executes the command.
func (c *faultMakeCmd) Run(p *program) error {
	peer, text, err := c.open(&c.faultFlags, p, faulttest.Options{})
	if err != nil {
		return err
	}
	peer.Close()
	return p.output(c.Output, write(string(text)))
}

type faultServeCmd struct {
	faultFlags
	peerFlags
	Upstream string `placeholder:"HOST:PORT" help:"A real server behind the fault, in place of a simulated one."`
	Output   string `short:"o" placeholder:"OUT" help:"Write the overlay of \"sspolicy fault make\" to this file."`
}

// Run executes the command.
func (c *faultServeCmd) Run(p *program) error {
	interrupt, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := &lineLog{w: p.stderr, start: time.Now()}
	peer, text, err := c.open(&c.faultFlags, p, faulttest.Options{Upstream: c.Upstream, Log: log.print})
	if err != nil {
		return err
	}
	defer peer.Close()
	if c.Output != "" {
		if err := p.output(c.Output, write(string(text))); err != nil {
			return err
		}
	}
	log.print(fmt.Sprintf("%s for %s on %s; Ctrl-C ends it", c.Name, c.Stream, peer.Address()))
	log.print("expected: " + peer.Want())
	<-interrupt.Done()
	return nil
}

// A lineLog prints lines with their time. It is safe for concurrent use.
type lineLog struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

func (l *lineLog) print(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, "%8s  %s\n", seconds(time.Since(l.start)), harmless(line))
}

// timeFlags are the flags about the times of runs.
type timeFlags struct {
	Hurry          int            `default:"1" placeholder:"N" help:"Divide the backoff and timeouts of the policy, the program and the fault by N. Timeouts are not reduced below 1 s."`
	Timeout        *time.Duration `placeholder:"TIME" help:"The time limit of a run. The default is slightly more than the fault can take."`
	ConnectTimeout time.Duration  `default:"${connect_timeout}" help:"The time limit of each attempt to connect, before --hurry (${default})."`
}

// Validate checks the flags.
func (c *timeFlags) Validate() error {
	switch {
	case c.Hurry < 1 || c.Hurry > 1000:
		return fmt.Errorf("--hurry must be 1 to 1000, but is %d", c.Hurry)
	case c.Timeout != nil && *c.Timeout <= 0:
		return fmt.Errorf("--timeout must be positive, but is %v", *c.Timeout)
	case c.ConnectTimeout <= 0:
		return fmt.Errorf("--connect-timeout must be positive, but is %v", c.ConnectTimeout)
	}
	return nil
}

// hurried describes the effect of --hurry.
func (c *timeFlags) hurried() string {
	return fmt.Sprintf("times are divided by %d, timeouts to 1 s at least", c.Hurry)
}

func (c *timeFlags) options() faulttest.Options {
	return faulttest.Options{
		Transports: faultTransports, Hurry: c.Hurry, Timeout: valueOr(c.Timeout, 0), ConnectTimeout: c.ConnectTimeout,
	}
}

// faultTransports returns the transports of a run.
func faultTransports(hurry int) []transport.Transport {
	resend := mqtt.Options{ResendAfter: 3 * time.Second / time.Duration(hurry)}
	return []transport.Transport{h3.New(http.SigV4), http.New(http.SigV4), mqtt.NewWith(resend), raw.New(raw.TLS), ws.New()}
}

type faultRunCmd struct {
	faultFlags
	timeFlags
	JSON     bool   `name:"json" help:"Print the outcome as JSON."`
	Upstream string `placeholder:"HOST:PORT" help:"A real server behind the fault, in place of a simulated one."`
}

// Run executes the command.
func (c *faultRunCmd) Run(p *program) error {
	compiled, f, err := c.load(p)
	if err != nil {
		return err
	}
	o := c.options()
	o.Args, o.Upstream = c.Param, c.Upstream
	var log []logLine
	var mu sync.Mutex
	o.Log = func(line string) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, logLine{time.Now(), "peer: " + line})
	}
	interrupt, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := faulttest.Run(interrupt, compiled, c.Stream, f, o)
	if err != nil {
		return err
	}
	if c.JSON {
		err = report.Encode(p.stdout, newFaultRow(c.File, r, c.Hurry))
	} else {
		err = c.print(p.stdout, r, log)
	}
	if err == nil && !r.OK {
		return &exitError{code: exitStream}
	}
	return err
}

// A logLine is a line of a timeline.
type logLine struct {
	at   time.Time
	text string
}

// print prints the timeline and the verdict.
func (c *faultRunCmd) print(w io.Writer, r *faulttest.Report, log []logLine) error {
	for _, e := range r.Events {
		line := r.Stream + "  " + e.Name
		if e.Cause != "" {
			line += ": " + plain(errors.New(e.Cause))
		}
		log = append(log, logLine{r.Start.Add(e.At), line})
	}
	slices.SortStableFunc(log, func(a, b logLine) int { return a.at.Compare(b.at) })
	for _, l := range log {
		fmt.Fprintf(w, "%8s  %s\n", seconds(max(0, l.at.Sub(r.Start))), harmless(l.text))
	}
	if c.Hurry > 1 {
		fmt.Fprintf(w, "%s\n", c.hurried())
	}
	verdict := "as expected"
	if !r.OK {
		verdict = "NOT as expected: " + r.Problem
	}
	_, err := fmt.Fprintf(w, "want %s\ngot  %s\n%s\n", r.Want, r.Got, verdict)
	return err
}
