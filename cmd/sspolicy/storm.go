package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/internal/storm"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

type stormCmd struct {
	File   string `arg:"" name:"policy" help:"The policy."`
	Stream string `required:"" complete:"streamtypes" placeholder:"NAME" help:"The streamtype."`

	Devices int           `required:"" placeholder:"N" help:"The number of devices."`
	Outage  time.Duration `placeholder:"DURATION" help:"The duration of the outage."`
	From    time.Duration `placeholder:"DURATION" help:"The time from the start to the outage."`
	For     time.Duration `placeholder:"DURATION" help:"The duration to simulate. The default is half an hour after the outage."`
	Kind    storm.Kind    `placeholder:"KIND" help:"How the server fails: refused (the default), silent, closed (it closes each connection at once) or unavailable (HTTP status 503)."`
	Seed    uint64        `default:"1" placeholder:"N" help:"The seed of the random numbers (${default}). The same command has the same output."`

	RetryAfter  time.Duration `placeholder:"DURATION" help:"The Retry-After of status 503 (--kind unavailable)."`
	Boot        time.Duration `placeholder:"DURATION" help:"The time within which the devices boot. By default they are connected at the start."`
	Notice      time.Duration `placeholder:"DURATION" help:"The time within which the devices notice the outage. The default is at once or, with --kind silent, when the validity checks of the policy fail."`
	Every       time.Duration `placeholder:"DURATION" help:"The interval at which the program requests a connection when the stream does not retry."`
	ClockSpread time.Duration `placeholder:"DURATION" help:"The time over which the requests of --every are spread (the default is --every: evenly)."`
	ClockError  float64       `placeholder:"PERCENT" help:"The maximum error of the devices' clocks."`
	Churn       time.Duration `placeholder:"DURATION" help:"The average duration of a connection. The default is forever."`

	Capacity     rate          `placeholder:"N/s" help:"The number of handshakes per second that the server can make. The default is no limit."`
	FindCapacity bool          `help:"Find the smallest capacity with which 99 % of the devices come back."`
	MaxWait      time.Duration `placeholder:"DURATION" help:"The server refuses clients that would wait for longer. By default they queue."`
	Timeout      time.Duration `placeholder:"DURATION" help:"The time that a client waits for the server. The default is 15s for the runtime and 20s for lws."`
	RTT          time.Duration `name:"rtt" default:"50ms" placeholder:"DURATION" help:"The time that an answer takes (${default})."`

	LWS     []schema.Version `name:"lws" complete:"versions" placeholder:"VERSION" help:"Retry as these lws versions do with a policy that they read themselves. The default is the runtime, whose waits are those of lws with C tables."`
	Compare []string         `sep:"none" placeholder:"POLICY" help:"Simulate with this policy too. May be repeated."`

	Format string `enum:"text,json,csv,svg" default:"text" help:"How to print: text, json, csv or svg (${default})."`
	Output string `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
}

// Help returns the description for "sspolicy storm --help".
func (stormCmd) Help() string {
	return "Time is simulated, and no connections are made. The model and its limits are in docs/storm.md."
}

// A rate is a number per second: 200/s or 200.
type rate float64

func (r *rate) UnmarshalText(text []byte) error {
	f, err := strconv.ParseFloat(strings.TrimSuffix(string(text), "/s"), 64)
	if err != nil || !(f > 0) || f > 1e12 {
		return fmt.Errorf("%q is not a positive rate, such as 200/s", text)
	}
	*r = rate(f)
	return nil
}

// Validate checks the command line.
func (c *stormCmd) Validate() error {
	if c.FindCapacity && (c.Capacity > 0 || c.Format == "csv" || len(c.Compare) > 0 || len(c.LWS) > 1) {
		return errors.New("--find-capacity is for one policy and version, and not with --capacity or --format csv")
	}
	if err := checkExtension(c.Output, c.Format, map[string]string{".svg": "svg", ".json": "json", ".csv": "csv"}); err != nil {
		return err
	}
	if c.Devices < 1 {
		return errors.New("--devices must be positive: it is the number of devices of the fleet")
	}
	s := c.scenario()
	return s.Check()
}

func (c *stormCmd) scenario() storm.Scenario {
	return storm.Scenario{
		Devices: c.Devices, Seed: c.Seed, Boot: c.Boot, From: c.From, Outage: c.Outage, For: c.For, Kind: c.Kind, RetryAfter: c.RetryAfter,
		Notice: c.Notice, Every: c.Every, ClockSpread: c.ClockSpread, ClockError: c.ClockError, Churn: c.Churn,
		RTT: c.RTT, Capacity: float64(c.Capacity), MaxWait: c.MaxWait,
	}
}

// clients returns the clients to simulate: each policy with the retries of each
// version.
func (c *stormCmd) clients(p *program) (all []storm.Client, err error) {
	files := append([]string{c.File}, c.Compare...)
	for _, file := range files {
		_, compiled, err := p.compileAssembled(file, nil, "", lint.Options{}, schema.Error)
		if err != nil {
			return nil, err
		}
		st := compiled.StreamType(c.Stream)
		if st == nil {
			return nil, &exitError{exitUsage, fileError(file, unknownStreamType(compiled, c.Stream))}
		}
		name := func(version string) string {
			switch {
			case len(files) == 1:
				return version
			case len(c.LWS) > 1:
				return displayName(file) + ", " + version
			}
			return displayName(file)
		}
		if len(c.LWS) == 0 {
			all = append(all, storm.Client{Name: name("runtime"), Stream: st, Timeout: c.Timeout})
		}
		for _, v := range c.LWS {
			all = append(all, storm.Client{
				Name: name("lws " + v.String()), Stream: st, LWS: true, FirstWait: !v.KeepsBackoff(), Timeout: c.Timeout,
			})
		}
	}
	return all, nil
}

// Run executes the command.
func (c *stormCmd) Run(p *program) error {
	clients, err := c.clients(p)
	if err != nil {
		return err
	}
	out := &storm.Report{}
	for _, client := range clients {
		if c.FindCapacity {
			if out.Search, err = storm.FindCapacity(client, c.scenario()); errors.Is(err, storm.ErrNoCapacity) {
				return &exitError{exitFindings, err}
			} else if err != nil {
				return usage("%v", err)
			}
			out.Runs = append(out.Runs, out.Search.Result)
			continue
		}
		r, err := storm.Run(client, c.scenario())
		if err != nil {
			return usage("%v", err)
		}
		out.Runs = append(out.Runs, r)
	}
	return p.output(c.Output, func(w io.Writer) error { return c.write(w, out) })
}

func (c *stormCmd) write(w io.Writer, out *storm.Report) error {
	var text string
	switch c.Format {
	case "json":
		return report.Encode(w, out)
	case "csv":
		text = out.CSV()
	case "svg":
		if text = out.Chart().SVG(); c.FindCapacity {
			text = out.Search.Chart().SVG()
		}
	default:
		text = harmless(out.Text(c.columns()))
	}
	_, err := io.WriteString(w, text)
	return err
}

// columns returns the width of the text.
func (c *stormCmd) columns() int {
	if c.Output == "" {
		if n, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
			return min(n, 120)
		}
	}
	return 80
}
