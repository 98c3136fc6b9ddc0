package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/ws"
	"github.com/secure-streams/sspolicy/schema"
)

type runCmd struct {
	JSON       bool              `name:"json" help:"Print what happens as JSON, one object a line."`
	Set        map[string]string `mapsep:"none" placeholder:"NAME=VALUE" help:"Set a metadata item of the stream. May be repeated."`
	Data       *string           `placeholder:"TEXT" help:"What to send; @FILE for what is in a file. Without it, standard input is sent if the streamtype's http_method is POST, PUT or PATCH."`
	Overlay    []string          `sep:"none" placeholder:"FRAGMENT" help:"Lay this over the policy first. May be repeated."`
	Timeout    time.Duration     `default:"10s" help:"How long it may take (${default})."`
	File       string            `arg:"" help:"The policy."`
	StreamType string            `arg:"" name:"streamtype" help:"The streamtype to execute."`
}

// Help is what "sspolicy run --help" adds.
func (runCmd) Help() string {
	return "Prints the states of the stream on standard error as they come, and the payload that it receives on standard output. It ends when the peer has acknowledged, and fails if the peer refuses, the answer is cut short, all retries have failed or the time is over."
}

// Run executes the command.
func (c *runCmd) Run(p *program) error {
	_, policy, err := p.compile(c.File, c.Overlay, lint.Options{}, schema.Error)
	if err != nil {
		return err
	}
	st := policy.StreamType(c.StreamType)
	if st == nil {
		return unknownStreamType(policy, c.StreamType)
	}
	if err := c.checkSet(st); err != nil {
		return err
	}
	data, err := c.data(p, st)
	if err != nil {
		return err
	}
	ctx, err := runtime.NewContext(policy, runtime.Options{
		Transports: []runtime.Transport{http.New(), mqtt.New(), ws.New()},
		Logger:     slog.New(slog.NewTextHandler(p.stderr, nil)),
	})
	if err != nil {
		return err
	}
	defer ctx.Close()
	e := &execution{
		events: events{w: p.stderr, json: c.JSON, stream: st.Name, start: time.Now()},
		set:    c.Set, data: data, stdout: p.stdout, done: make(chan error, 1),
	}
	h := runtime.Handlers{State: e.state, Rx: e.rx, Tx: e.tx}
	if len(data) == 0 && st.Protocol <= runtime.ProtocolH3 {
		h.Tx = nil // a body that is known to be empty
	}
	switch _, err := ctx.NewStream(st.Name, h); {
	case err == nil, errors.Is(err, runtime.ErrRefused): // e knows why it refused
	case errors.Is(err, runtime.ErrNoTransport):
		return fmt.Errorf("streamtype %q: there is no transport for %v in this version", st.Name, st.Protocol)
	case errors.Is(err, runtime.ErrNoCredentials):
		return fmt.Errorf("streamtype %q needs credentials, which run has no way to give: %w", st.Name, err)
	default:
		return err
	}
	select {
	case err = <-e.done:
	case <-time.After(c.Timeout):
		err = fmt.Errorf("not done after %v", c.Timeout)
	}
	ctx.Close() // the last states are told
	if err != nil {
		if c.JSON {
			e.emit(event{Event: "failed", Error: err.Error()})
			return &exitError{code: exitStream}
		}
		return &exitError{exitStream, fmt.Errorf("stream %q: %w", st.Name, err)}
	}
	return nil
}

func unknownStreamType(policy *runtime.Policy, name string) error {
	var names []string
	for _, st := range policy.StreamTypes {
		names = append(names, st.Name)
	}
	return unknown("the policy has no streamtype", name, names)
}

// checkSet checks that the streamtype has the metadata that is to be set.
func (c *runCmd) checkSet(st *runtime.StreamType) error {
	var names []string
	for _, m := range st.Metadata {
		names = append(names, m.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		if !slices.Contains(names, name) {
			return unknown(fmt.Sprintf("streamtype %q has no metadata", st.Name), name, names)
		}
	}
	return nil
}

// unknown returns the error for a name that is none of names.
func unknown(problem, name string, names []string) error {
	err := fmt.Errorf("%s %q", problem, name)
	if better := schema.Nearest(name, names); better != "" {
		err = fmt.Errorf("%w: did you mean %q?", err, better)
	}
	return &exitError{exitUsage, err}
}

// data returns what the stream is to send; nil is nothing.
func (c *runCmd) data(p *program, st *runtime.StreamType) ([]byte, error) {
	if c.Data != nil {
		if file, ok := strings.CutPrefix(*c.Data, "@"); ok {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, fileError(file, err)
			}
			return append([]byte{}, data...), nil
		}
		return []byte(*c.Data), nil
	}
	if st.HTTP != nil && slices.Contains([]string{"POST", "PUT", "PATCH"}, st.HTTP.Method) {
		if c.File == "-" || slices.Contains(c.Overlay, "-") {
			return nil, &exitError{exitUsage, errors.New("standard input is a policy already: give what to send with --data")}
		}
		data, err := io.ReadAll(p.stdin)
		return append([]byte{}, data...), err
	}
	return nil, nil
}

// An execution is the handlers of the one stream that is run. They are never
// called two at a time.
type execution struct {
	events
	set    map[string]string
	data   []byte
	sent   int  // how much of it, by the attempt at hand
	all    bool // that was all
	stdout io.Writer
	done   chan error // gets how it ended, once
}

// finish tells how the stream ended, if that is not known yet.
func (e *execution) finish(err error) runtime.Result {
	select {
	case e.done <- err:
	default:
	}
	return runtime.OK
}

func (e *execution) state(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
	e.emit(event{Event: "state", State: state.String(), Ordinal: &arg, Error: cause(s, state)})
	switch state {
	case runtime.StateCreating:
		for name, value := range e.set {
			if err := s.SetMetadata(name, value); err != nil {
				e.finish(err)
				return runtime.DestroyMe
			}
		}
		start := s.RequestTx
		if e.data != nil {
			start = func() error { return s.RequestTxLen(uint64(len(e.data))) }
		}
		if err := start(); err != nil {
			e.finish(err)
			return runtime.DestroyMe
		}
	case runtime.StateConnecting:
		e.sent, e.all = 0, false
	case runtime.StateQoSAckRemote:
		return e.finish(nil)
	case runtime.StateQoSNackRemote:
		return e.finish(errors.New("the peer did not accept it (QOS_NACK_REMOTE)"))
	case runtime.StateAllRetriesFailed:
		err := errors.New("ALL_RETRIES_FAILED")
		if s.Err() != nil {
			err = fmt.Errorf("ALL_RETRIES_FAILED: %w", s.Err())
		}
		return e.finish(err)
	case runtime.StateDisconnected:
		err := errors.New("disconnected before the end of the answer")
		if s.Err() != nil {
			err = fmt.Errorf("%w: %w", err, s.Err())
		}
		return e.finish(err)
	case runtime.StateTimeout:
		return e.finish(errors.New("TIMEOUT"))
	}
	return runtime.OK
}

// cause returns why a connection or an attempt ended, if a state says that it
// did.
func cause(s *runtime.Stream, state runtime.State) string {
	switch state {
	case runtime.StateUnreachable, runtime.StateDisconnected, runtime.StateAuthFailed:
		if err := s.Err(); err != nil {
			return err.Error()
		}
	}
	return ""
}

func (e *execution) rx(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
	n := len(buf)
	e.emit(event{Event: "rx", Length: &n, Flags: flagNames(flags)})
	if _, err := e.stdout.Write(buf); err != nil {
		e.finish(err)
		return runtime.DestroyMe
	}
	return runtime.OK
}

func (e *execution) tx(s *runtime.Stream, ordinal uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
	if e.all && s.Rideshare() != s.StreamType() { // there is nothing for the other parts
		return 0, runtime.FlagSOM | runtime.FlagEOM, runtime.OK
	}
	if e.data == nil || e.all {
		return 0, 0, runtime.TxDontSend
	}
	var flags runtime.Flags
	if e.sent == 0 {
		flags |= runtime.FlagSOM
	}
	n := copy(buf, e.data[e.sent:])
	if e.sent += n; e.sent == len(e.data) {
		e.all = true
		flags |= runtime.FlagEOM
	}
	e.emit(event{Event: "tx", Ordinal: &ordinal, Length: &n, Flags: flagNames(flags)})
	return n, flags, runtime.OK
}

func flagNames(f runtime.Flags) []string {
	names := []string{}
	for i, name := range []string{"SOM", "EOM", "POLL", "RELATED_START", "RELATED_END", "RIDESHARE", "PERF_JSON"} {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// events prints what happens.
type events struct {
	mu     sync.Mutex
	w      io.Writer
	json   bool
	stream string
	start  time.Time
}

// An event is a line of the JSON output. T is in seconds from the start.
type event struct {
	Event   string   `json:"event"`
	Stream  string   `json:"stream"`
	State   string   `json:"state,omitempty"`
	Ordinal *uint32  `json:"ordinal,omitempty"`
	Length  *int     `json:"length,omitempty"`
	Flags   []string `json:"flags,omitzero"`
	Error   string   `json:"error,omitempty"`
	T       seconds  `json:"t"`
}

type seconds time.Duration

// MarshalJSON writes seconds with milliseconds.
func (s seconds) MarshalJSON() ([]byte, error) { return []byte(s.String()), nil }

func (s seconds) String() string { return fmt.Sprintf("%.3f", time.Duration(s).Seconds()) }

func (e *events) emit(v event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v.Stream, v.T = e.stream, seconds(time.Since(e.start))
	if e.json {
		line, _ := json.Marshal(v) // nothing in it can fail
		fmt.Fprintf(e.w, "%s\n", line)
		return
	}
	what := v.State
	if v.Event != "state" {
		what = strings.Join(append([]string{v.Event, fmt.Sprint(*v.Length)}, v.Flags...), " ")
	}
	if v.Error != "" {
		what += ": " + v.Error
	}
	fmt.Fprintf(e.w, "%8s  %s  %s\n", v.T, v.Stream, what)
}
