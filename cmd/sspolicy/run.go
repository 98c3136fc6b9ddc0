package main

import (
	"cmp"
	"context"
	"crypto/x509"
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
	"github.com/secure-streams/sspolicy/runtime/cookies"
	"github.com/secure-streams/sspolicy/runtime/credentials"
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
	JSON        bool              `name:"json" help:"Print what happens as JSON, one object a line."`
	Set         map[string]string `mapsep:"none" placeholder:"NAME=VALUE" help:"Set a metadata item of the stream. May be repeated."`
	Data        *string           `placeholder:"TEXT" help:"What to send; @FILE for what is in a file, @- for standard input. Without it, standard input is sent if the streamtype's http_method is POST, PUT or PATCH."`
	Part        map[string]string `mapsep:"none" placeholder:"NAME=TEXT" help:"What the streamtype NAME sends, which shares the request (rideshare). May be repeated."`
	Count       int               `placeholder:"N" help:"End when N messages have been received; over raw, N pieces."`
	Credential  map[string]string `mapsep:"none" placeholder:"NAME=@FILE" help:"A credential: auth.0, device_serial, aws_key_id.0 and so on. May be repeated."`
	Credentials string            `placeholder:"DIR" help:"Credentials in the files of a folder: auth.0, client_cert.0, client_key.0 and so on."`
	Cookies     string            `placeholder:"FILE" help:"Keep cookies in this file (for streamtypes with http_cookies)."`
	Overlay     []string          `sep:"none" placeholder:"FRAGMENT" help:"Lay this over the policy first. May be repeated."`
	Timeout     time.Duration     `default:"10s" help:"How long it may take (${default})."`
	File        string            `arg:"" help:"The policy."`
	StreamType  string            `arg:"" name:"streamtype" help:"The streamtype to execute."`

	stdin string // which flag has taken standard input
}

// Validate says what is wrong with the flags.
func (c *runCmd) Validate() error {
	switch {
	case c.Count < 0:
		return fmt.Errorf("--count is a number of messages, not %d", c.Count)
	case c.Timeout <= 0:
		return fmt.Errorf("--timeout is longer than nothing, not %v", c.Timeout)
	case c.Cookies != "":
		for _, f := range append([]string{c.File}, c.Overlay...) {
			if identity(f) == identity(c.Cookies) {
				return fmt.Errorf("--cookies: %s is a policy", c.Cookies)
			}
		}
	}
	return nil
}

// Help is what "sspolicy run --help" adds.
func (runCmd) Help() string {
	return "Prints the states of the stream on standard error as they come, and the payload that it receives on standard output. It ends when the peer has acknowledged; over ws, and mqtt that sends nothing, when a message has come; over raw when the peer closes. It fails if the peer refuses, the answer is cut short, all retries have failed, or the time is over (that of --timeout; over HTTP also timeout_ms of the policy). Credentials come from the flags, then the folder, then variables such as SSPOLICY_AUTH_0."
}

// Run executes the command.
func (c *runCmd) Run(p *program) error {
	doc, compiled, err := p.compile(c.File, c.Overlay, lint.Options{}, schema.Error)
	if err != nil {
		return err
	}
	st := compiled.StreamType(c.StreamType)
	if st == nil {
		return unknownStreamType(compiled, c.StreamType)
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
	logger := slog.New(slog.NewTextHandler(p.stderr, nil))
	jar, err := cookies.Open(cookies.Options{File: c.Cookies, Logger: logger})
	if err != nil {
		return err
	}
	defer jar.Close()
	tokens := oauth.New(sources, oauth.Options{Rotated: func(_ int, request string) { c.keep(p, request) }})
	ctx, err := runtime.NewContext(compiled, runtime.Options{
		Transports:  []transport.Transport{h3.New(http.SigV4), http.New(http.SigV4), mqtt.New(), raw.New(), ws.New(), file.New()},
		Logger:      logger,
		Credentials: tokens,
		Cookies:     jar,
	})
	if err != nil {
		return err
	}
	defer ctx.Shutdown(context.Background())
	noTokens := tokens.Bind(ctx) // which matters if the stream needs one that is not given
	messages, err := c.messages(p, ctx, st, data)
	if err != nil {
		return err
	}
	e := &execution{
		events: events{w: p.stderr, json: c.JSON, stream: st.Name, start: time.Now()},
		set:    c.Set, messages: messages, count: c.Count, stdout: p.stdout, done: make(chan error, 1),
	}
	if e.count == 0 && (st.Protocol == policy.ProtocolWS || st.Protocol == policy.ProtocolMQTT && messages == nil) {
		e.count, e.after = 1, true
	}
	h := runtime.Handlers{State: e.state, Rx: e.rx, Tx: e.tx}
	if e.length() == 0 && st.Protocol.IsHTTP() {
		h.Tx = nil // a body that is known to be empty
	}
	if _, err := ctx.NewStream(st.Name, h); err != nil && !errors.Is(err, runtime.ErrRefused) { // e knows why it refused
		if at := schema.NewPolicy(doc).Lookup("s", st.Name); len(at) > 0 {
			err = fmt.Errorf("%v: %w", at[0].NameSpan, err)
		}
		return err
	}
	late := false
	select {
	case err = <-e.done:
	case <-time.After(c.Timeout):
		late = true
	}
	ctx.Shutdown(context.Background()) // delivers the last states
	if late {
		err = fmt.Errorf("not done after %v: %w", c.Timeout, e.pending(st))
	}
	if lost := jar.Close(); lost != nil && err == nil {
		return lost
	}
	if errors.Is(err, runtime.ErrNoCredentials) && noTokens != nil {
		err = fmt.Errorf("%w (%w)", err, noTokens)
	}
	if usage, ok := errors.AsType[*exitError](err); ok {
		return usage
	}
	if err != nil {
		err = trustHint(err, st)
		if c.JSON {
			e.emit(event{Event: "failed", Error: strings.ReplaceAll(err.Error(), "sspolicy: ", "")})
			return &exitError{code: exitStream}
		}
		return &exitError{exitStream, fmt.Errorf("stream %q: %w", st.Name, err)}
	}
	return nil
}

func unknownStreamType(policy *policy.Policy, name string) error {
	var names []string
	for _, st := range policy.StreamTypes {
		names = append(names, st.Name)
	}
	return unknown("the policy has no streamtype", name, names)
}

// checkSet checks that the streamtype has the metadata that is to be set.
func (c *runCmd) checkSet(st *policy.StreamType) error {
	var names []string
	for _, m := range st.Metadata {
		names = append(names, m.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		// With direct_proto_str it may be a header too.
		if !st.DirectProtoStr && !slices.Contains(names, name) {
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
	} else if len(names) > 0 && len(names) <= 20 {
		err = fmt.Errorf("%w: there is %s", err, strings.Join(names, ", "))
	}
	return &exitError{exitUsage, err}
}

// data returns what the stream is to send; nil is nothing.
func (c *runCmd) data(p *program, st *policy.StreamType) ([]byte, error) {
	switch {
	case st.MQTT != nil && st.MQTT.Subscribe == "" && (c.Data == nil || c.Count > 0):
		return nil, &exitError{exitUsage, fmt.Errorf("streamtype %q receives nothing, since it has no mqtt_subscribe: say what to publish with --data, without --count", st.Name)}
	case st.MQTT != nil && st.MQTT.Topic == "" && c.Data != nil:
		return nil, &exitError{exitUsage, fmt.Errorf("streamtype %q sends nothing, since it has no mqtt_topic", st.Name)}
	case c.Data != nil && *c.Data != "" && !st.Sends():
		return nil, &exitError{exitUsage, fmt.Errorf("streamtype %q sends nothing: its http_method is %s", st.Name, cmp.Or(st.HTTP.Method, "GET"))}
	case c.Data != nil:
		return c.text(p, "--data", *c.Data)
	case st.Protocol.IsHTTP() && st.Sends():
		return c.text(p, "--data", "@-")
	}
	return nil, nil
}

// text returns the text that a flag gives, or names a file of; never nil.
func (c *runCmd) text(p *program, flag, value string) ([]byte, error) {
	file, ok := strings.CutPrefix(value, "@")
	if !ok {
		return []byte(value), nil
	}
	if file == "-" {
		if c.stdin != "" || c.File == "-" || slices.Contains(c.Overlay, "-") {
			return nil, &exitError{exitUsage, fmt.Errorf("standard input is %s already: give %s a file or a text", cmp.Or(c.stdin, "a policy"), flag)}
		}
		c.stdin = flag
		data, err := io.ReadAll(p.stdin)
		return append([]byte{}, data...), err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fileError(file, err)
	}
	return append([]byte{}, data...), nil
}

// messages returns what is sent, by the streamtype that sends it; nil is nothing.
func (c *runCmd) messages(p *program, ctx *runtime.Context, st *policy.StreamType, data []byte) (map[string][]byte, error) {
	chain, err := ctx.Policy().Chain(st)
	if err != nil {
		return nil, fmt.Errorf("streamtype %q: %w", st.Name, err)
	}
	var names []string
	for _, other := range chain[1:] {
		names = append(names, other.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Part)) {
		if name == st.Name {
			return nil, &exitError{exitUsage, fmt.Errorf("--part is for the others that share the request: give what %q sends with --data", name)}
		}
		if !slices.Contains(names, name) {
			return nil, unknown(fmt.Sprintf("streamtype %q shares no request with", st.Name), name, names)
		}
	}
	if data == nil {
		return nil, nil
	}
	messages := map[string][]byte{st.Name: data}
	for _, name := range names {
		text, ok := c.Part[name]
		if !ok {
			return nil, &exitError{exitUsage, fmt.Errorf("streamtype %q shares its request with %q: say what that sends with --part %s=TEXT", st.Name, name, name)}
		}
		if messages[name], err = c.text(p, "--part", text); err != nil {
			return nil, err
		}
	}
	return messages, nil
}

// credentials returns those of the flags and of the environment.
func (c *runCmd) credentials(p *program) (runtime.Credentials, error) {
	memory := new(credentials.Memory)
	for _, name := range slices.Sorted(maps.Keys(c.Credential)) {
		b, index, ok := policy.ParseBlob(name)
		if !ok {
			return nil, unknown("there is no credential", name, blobNames())
		}
		text, err := c.text(p, "--credential", c.Credential[name])
		if err != nil {
			return nil, err
		}
		memory.SetBlob(b, index, strings.TrimRight(string(text), "\r\n"))
	}
	chain := credentials.Chain{memory}
	if c.Credentials != "" {
		if info, err := os.Stat(c.Credentials); err != nil {
			return nil, fileError(c.Credentials, err)
		} else if !info.IsDir() {
			return nil, &exitError{exitUsage, fmt.Errorf("--credentials: %s is not a folder", c.Credentials)}
		}
		files := &credentials.Files{Dir: c.Credentials}
		if !c.JSON {
			for _, name := range files.Exposed() {
				fmt.Fprintf(p.stderr, "sspolicy: warning: others may read the secret in %s\n", harmless(name))
			}
		}
		chain = append(chain, files)
	}
	return append(chain, &credentials.Env{Prefix: "SSPOLICY_"}), nil
}

// keep writes what the next token is to be asked for with, where the last one
// has come from, since that is worthless now.
func (c *runCmd) keep(p *program, request string) {
	name := policy.BlobAuth.Name(1)
	files := &credentials.Files{Dir: c.Credentials}
	err := errors.New("it was not in a file of --credentials")
	if c.Credential[name] == "" {
		if _, err = files.Blob(context.Background(), policy.BlobAuth, 1); err == nil {
			err = files.SetBlob(policy.BlobAuth, 1, request)
		}
	}
	if err != nil && !c.JSON {
		fmt.Fprintf(p.stderr, "sspolicy: warning: the token server has replaced the refresh token in %s, and the new one is lost: %v\n", name, err)
	}
}

// blobNames returns the names of all credentials that are texts.
func blobNames() (names []string) {
	for b := policy.Blob(0); b.Name(0) != ""; b++ {
		for index := 0; b.Name(index) != ""; index++ {
			names = append(names, b.Name(index))
		}
	}
	return names
}

// An execution is the handlers of the one stream that is run. They are never
// called two at a time.
type execution struct {
	events
	set       map[string]string
	messages  map[string][]byte // what to send, by streamtype; nil is nothing
	sent      map[string]int    // how much of it, by the attempt at hand
	all       bool              // that was all
	count     int               // of messages to receive; 0 is as many as there are
	after     bool              // count those alone that come after all is sent
	received  int
	lost      error // why the last attempt failed, since there was a connection
	connected bool
	stdout    io.Writer
	done      chan error // gets how it ended, once
}

// trustHint says which certificates are trusted if the peer's is not.
func trustHint(err error, st *policy.StreamType) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		return err
	}
	if st.TrustStore == nil {
		return fmt.Errorf("%w (there is no tls_trust_store: those of the system are trusted)", err)
	}
	return fmt.Errorf("%w (tls_trust_store is %q: what is in there is trusted, and nothing else)", err, st.TrustStore.Name)
}

// pending returns what has kept the stream from its end, or what it waits for.
func (e *execution) pending(st *policy.StreamType) error {
	switch {
	case e.lost != nil:
		return fmt.Errorf("the last attempt failed: %w", e.lost)
	case !e.connected:
		return errors.New("the peer has not answered")
	case e.count > 0:
		return fmt.Errorf("%d of %d messages have come", e.received, e.count)
	case st.Protocol == policy.ProtocolRaw:
		return errors.New("the peer has not closed (--count ends before that)")
	case st.Protocol == policy.ProtocolMQTT:
		return errors.New("the peer has not acknowledged the message")
	}
	return errors.New("the answer is not complete")
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
				e.finish(&exitError{exitUsage, err})
				return runtime.DestroyMe
			}
		}
		if err := e.begin(s); err != nil {
			e.finish(err)
			return runtime.DestroyMe
		}
	case runtime.StateConnecting:
		e.sent, e.all = make(map[string]int), false
	case runtime.StateConnected:
		e.connected, e.lost = true, nil
	case runtime.StateQoSAckRemote:
		// Over HTTP it is the end of all. Over mqtt it is the end of what was
		// sent, and there may be something to wait for.
		if e.count == 0 || s.StreamType().Protocol.IsHTTP() {
			return e.finish(nil)
		}
	case runtime.StateQoSNackRemote:
		err := errors.New("the peer did not accept it (QOS_NACK_REMOTE)")
		if code := s.Status(); code != 0 {
			err = fmt.Errorf("%w: status %d", err, code)
		}
		return e.finish(err)
	case runtime.StateUnreachable:
		e.connected, e.lost = false, s.Err()
		if err := s.Err(); errors.Is(err, runtime.ErrNoCredentials) {
			return e.finish(fmt.Errorf("%w: give them with --credential, --credentials or in the environment", err))
		}
	case runtime.StateAllRetriesFailed:
		err := errors.New("ALL_RETRIES_FAILED")
		if s.Err() != nil {
			err = fmt.Errorf("ALL_RETRIES_FAILED: %w", s.Err())
		}
		return e.finish(err)
	case runtime.StateDisconnected:
		if (s.Err() == nil || errors.Is(s.Err(), io.EOF)) && s.StreamType().Protocol == policy.ProtocolRaw && e.count == 0 && (e.messages == nil || e.all) {
			return e.finish(nil)
		}
		err := errors.New("disconnected before the end of the answer")
		if s.Err() != nil {
			err = fmt.Errorf("%w: %w", err, s.Err())
		}
		return e.finish(err)
	case runtime.StateTimeout:
		return e.finish(errors.New("TIMEOUT: the policy's timeout_ms is over"))
	}
	return runtime.OK
}

// begin starts the stream.
func (e *execution) begin(s *runtime.Stream) error {
	if s.StreamType().Protocol.IsHTTP() {
		s.StartTimeout(0) // as Fetch does
	}
	if e.messages == nil {
		if s.StreamType().Protocol.IsHTTP() {
			return s.RequestTx()
		}
		return s.Connect()
	}
	return s.RequestTxLen(e.length())
}

// length returns how many bytes there are to send.
func (e *execution) length() (n uint64) {
	for _, m := range e.messages {
		n += uint64(len(m))
	}
	return n
}

// cause returns why a connection or an attempt ended, if a state says that it
// did.
func cause(s *runtime.Stream, state runtime.State) string {
	switch state {
	case runtime.StateUnreachable, runtime.StateDisconnected, policy.StateAuthFailed:
		if err := s.Err(); err != nil && !errors.Is(err, runtime.ErrClosed) { // by run itself
			return strings.ReplaceAll(err.Error(), "sspolicy: ", "") // as complain does
		}
	}
	return ""
}

func (e *execution) rx(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
	if e.count > 0 && e.received == e.count {
		return runtime.OK // more than is wanted
	}
	n := len(buf)
	v := event{Event: "rx", Length: &n, Flags: flagNames(flags)}
	if flags&runtime.FlagPerfJSON != 0 { // is no payload
		v.Perf = append(json.RawMessage{}, buf...)
		e.emit(v)
		return runtime.OK
	}
	e.emit(v)
	if _, err := e.stdout.Write(buf); err != nil {
		e.finish(err)
		return runtime.DestroyMe
	}
	// raw has no messages: each piece is one.
	end := flags&runtime.FlagEOM != 0 || s.StreamType().Protocol == policy.ProtocolRaw
	if end && (!e.after || e.all || e.messages == nil) {
		if e.received++; e.received == e.count {
			return e.finish(nil)
		}
	}
	return runtime.OK
}

func (e *execution) tx(s *runtime.Stream, ordinal uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
	if e.messages == nil || e.all {
		return 0, 0, runtime.TxDontSend
	}
	st := s.Rideshare()
	message, sent := e.messages[st.Name], e.sent[st.Name]
	var flags runtime.Flags
	if sent == 0 {
		flags |= runtime.FlagSOM
	}
	n := copy(buf, message[sent:])
	if e.sent[st.Name] += n; e.sent[st.Name] == len(message) {
		e.all = st.Rideshare == ""
		flags |= runtime.FlagEOM
	}
	e.emit(event{Event: "tx", Ordinal: &ordinal, Length: &n, Flags: flagNames(flags)})
	if e.all && e.count == 0 && st.Protocol == policy.ProtocolRaw {
		// Many a server answers when it has all. This is after what is returned.
		if err := raw.Of(s).CloseWrite(); err != nil {
			e.finish(err)
		}
	}
	if flags&runtime.FlagEOM == 0 {
		// The rest of a message: over HTTP it is asked for all the same.
		if err := s.RequestTx(); err != nil {
			e.finish(err)
		}
	}
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
	Event   string          `json:"event"`
	Stream  string          `json:"stream"`
	State   string          `json:"state,omitempty"`
	Ordinal *uint32         `json:"ordinal,omitempty"`
	Length  *int            `json:"length,omitempty"`
	Flags   []string        `json:"flags,omitzero"`
	Perf    json.RawMessage `json:"perf,omitempty"`
	Error   string          `json:"error,omitempty"`
	T       seconds         `json:"t"`
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
	if v.Perf != nil {
		what += " " + string(v.Perf)
	}
	if v.Error != "" {
		what += ": " + v.Error
	}
	fmt.Fprintf(e.w, "%8s  %s  %s\n", v.T, v.Stream, what)
}
