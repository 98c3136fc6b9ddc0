package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// serveFlags are the flags of run for a server streamtype.
type serveFlags struct {
	Echo    bool   `group:"Servers" xor:"answer" help:"Answer each request, message or piece with its payload."`
	Respond string `group:"Servers" xor:"answer" placeholder:"TEXT" help:"Answer each request, message or piece with TEXT; @FILE for the content of a file."`
	Dir     string `group:"Servers" xor:"answer" placeholder:"FOLDER" help:"Answer requests with the files of a folder. The streamtype needs metadata \"path\"."`
	Mime    string `group:"Servers" placeholder:"TYPE" help:"The media type of answers. The streamtype needs metadata for content-type."`
}

// used returns the name of a flag that is set, or "".
func (f *serveFlags) used() string {
	switch {
	case f.Echo:
		return "--echo"
	case f.Respond != "":
		return "--respond"
	case f.Dir != "":
		return "--dir"
	case f.Mime != "":
		return "--mime"
	}
	return ""
}

// drainGrace is how long clients may take to finish after the end of the run.
const drainGrace = 5 * time.Second

// checkServe checks the flags against the role of the streamtype.
func (c *runCmd) checkServe(st *policy.StreamType) error {
	if !st.Server {
		if name := c.serveFlags.used(); name != "" {
			return usage("%s is for servers, and streamtype %q is a client", name, st.Name)
		}
		return nil
	}
	switch {
	case c.Data != nil:
		return usage("--data is for clients, and streamtype %q is a server: use --respond", st.Name)
	case len(c.Part) > 0:
		return usage("--part is for clients, and streamtype %q is a server", st.Name)
	case c.Dir != "" && !st.Protocol.IsHTTP():
		return usage("--dir is for h1 and h2, and the protocol of streamtype %q is %v", st.Name, st.Protocol)
	case c.Dir != "" && !slices.Contains(metadataNames(st), "path"):
		return usage("--dir: streamtype %q has no metadata \"path\", so the path of a request is not known", st.Name)
	case c.Mime != "" && mimeItem(st) == "":
		return usage("--mime: streamtype %q has no metadata for the header content-type", st.Name)
	}
	return nil
}

// mimeItem returns the metadata item that is mapped to the media type, or "".
func mimeItem(st *policy.StreamType) string {
	for _, m := range st.Metadata {
		if strings.EqualFold(strings.TrimSuffix(m.Header, ":"), "content-type") {
			return m.Name
		}
	}
	return ""
}

// A serverRun is the execution of a server streamtype.
type serverRun struct {
	*events
	c    *runCmd
	st   *policy.StreamType
	name string   // of the file of --respond, or ""
	text []byte   // content of --respond; nil without it
	root *os.Root // of --dir, or nil

	out     sync.Mutex // locked during a write to stdout
	stdout  io.Writer
	clients atomic.Int64
	served  atomic.Int64 // number of requests, messages or pieces answered
	done    chan error   // receives the result, once
}

// serve executes a server streamtype until --count, --timeout or an interrupt.
func (c *runCmd) serve(p *program, ctx *runtime.Context, st *policy.StreamType, out *events) error {
	n := &serverRun{events: out, c: c, st: st, stdout: p.stdout, done: make(chan error, 1)}
	if c.Respond != "" {
		text, err := c.text(p, "--respond", c.Respond)
		if err != nil {
			return err
		}
		n.text = text
		if file, ok := strings.CutPrefix(c.Respond, "@"); ok && file != "-" {
			n.name = filepath.Base(file)
		}
	}
	if c.Dir != "" {
		root, err := os.OpenRoot(c.Dir)
		if err != nil {
			return fmt.Errorf("--dir: %w", err)
		}
		defer root.Close()
		n.root = root
	}
	s, err := ctx.NewStream(st.Name, runtime.Handlers{State: n.state}, runtime.WithClients(n.accept))
	if err != nil {
		select {
		case err = <-n.done: // reason why CREATING failed
		default:
		}
		return err
	}
	n.emit(event{Event: "listening", Addr: s.Addr().String()})
	interrupt, stop := interrupted()
	defer stop()
	var expired <-chan time.Time
	if c.Timeout != nil {
		expired = time.After(*c.Timeout)
	}
	select {
	case err = <-n.done:
	case <-expired:
		if got := n.served.Load(); c.Count > 0 {
			err = &exitError{exitStream, fmt.Errorf("stream %q: answered %d of %d after %v", st.Name, got, c.Count, *c.Timeout)}
		}
	case <-interrupt.Done():
	}
	limit, cancel := context.WithTimeout(context.Background(), drainGrace)
	defer cancel()
	_ = s.Shutdown(limit) // slower clients are closed
	end(ctx, timeoutGrace)
	return err
}

// state handles the states of the listener.
func (n *serverRun) state(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
	n.emit(event{Event: "state", State: state.String(), Ordinal: &arg})
	switch state {
	case runtime.StateCreating:
		for name, value := range n.c.Set {
			if err := s.SetMetadata(name, value); err != nil {
				n.finish(&exitError{exitUsage, err})
				return runtime.DestroyMe
			}
		}
		if n.c.Mime != "" {
			if err := s.SetMetadata(mimeItem(n.st), n.c.Mime); err != nil {
				n.finish(&exitError{exitUsage, err})
				return runtime.DestroyMe
			}
		}
	case runtime.StateDestroying:
		if err := s.Err(); err != nil && !errors.Is(err, runtime.ErrClosed) {
			n.finish(&exitError{exitStream, fmt.Errorf("stream %q: %w", n.st.Name, err)})
		}
	}
	return runtime.OK
}

// finish ends the run with a result, unless it has one.
func (n *serverRun) finish(err error) {
	select {
	case n.done <- err:
	default:
	}
}

// count counts an answer.
func (n *serverRun) count() {
	if n.served.Add(1) == int64(n.c.Count) {
		n.finish(nil)
	}
}

// accept returns the handlers of a client.
func (n *serverRun) accept(*runtime.Stream) runtime.Handlers {
	k := &client{serverRun: n, number: int(n.clients.Add(1))}
	return runtime.Handlers{State: k.state, Rx: k.rx, Tx: k.tx}
}

// A client is an accepted stream. Its handlers are never called concurrently.
type client struct {
	*serverRun
	number   int
	http     bool   // in a transaction
	received []byte // for --echo: the message or body so far
	answer   []byte // that is being sent
	sent     int
	answered bool // the answer has been passed on, and the next Tx writes it
}

func (k *client) emit(v event) {
	v.Client = k.number
	k.events.emit(v)
}

func (k *client) state(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
	e := event{Event: "state", State: state.String(), Ordinal: &arg, Error: cause(s, state)}
	if state == runtime.StateServerTxn { // empty if the policy has no such metadata
		e.Method, _ = s.Metadata("method")
		e.Path, _ = s.Metadata("path")
	}
	k.emit(e)
	switch state {
	case runtime.StateServerTxn:
		k.http, k.received = true, nil
		if err := k.respond(s); err != nil {
			k.emit(event{Event: "log", Error: plain(err)})
			return runtime.DisconnectMe
		}
		k.count()
	case runtime.StateServerUpgrade:
		k.http = false
	}
	return runtime.OK
}

// respond answers a request; with --echo the body follows in rx.
func (k *client) respond(s *runtime.Stream) error {
	switch {
	case k.root != nil:
		return k.file(s)
	case k.text != nil:
		return k.content(s, k.name, time.Time{}, bytes.NewReader(k.text))
	}
	return k.ack(s, 200)
}

// ack answers with a status.
func (k *client) ack(s *runtime.Stream, status int) error {
	err := s.Ack(status)
	if err == nil {
		k.emit(event{Event: "answer", Status: status})
	}
	return err
}

// content answers with a body.
func (k *client) content(s *runtime.Stream, name string, modified time.Time, body io.ReadSeeker) error {
	err := s.Respond(name, modified, body)
	if err == nil {
		k.emit(event{Event: "answer", Status: 200})
	}
	return err
}

// file answers with a file of --dir.
func (k *client) file(s *runtime.Stream) error {
	if method, err := s.Metadata("method"); err == nil && method != "" && method != "GET" && method != "HEAD" {
		return k.ack(s, 405)
	}
	name, err := s.Metadata("path")
	if err != nil {
		return err
	}
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		name = "."
	}
	f, info, err := k.open(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return k.ack(s, 403)
	case err != nil: // also a path that leaves the folder
		return k.ack(s, 404)
	}
	return k.content(s, info.Name(), info.ModTime(), f)
}

// open opens a regular file, or the index.html of a folder.
func (k *client) open(name string) (*os.File, fs.FileInfo, error) {
	if info, err := k.root.Stat(name); err == nil && info.IsDir() {
		name = path.Join(name, "index.html")
	}
	f, err := readfile.OpenIn(k.root, name)
	if errors.Is(err, readfile.ErrNotRegular) {
		return nil, nil, fs.ErrPermission
	} else if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
	}
	return f, info, err
}

func (k *client) rx(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
	size := len(buf)
	k.emit(event{Event: "rx", Length: &size, Flags: flagNames(flags)})
	k.out.Lock()
	_, err := k.stdout.Write(buf)
	k.out.Unlock()
	if err != nil {
		k.finish(err)
		return runtime.DestroyMe
	}
	if k.c.Echo {
		k.received = append(k.received, buf...)
	}
	end := flags&runtime.FlagEOM != 0 || k.st.Protocol == policy.ProtocolRaw
	if !end {
		return runtime.OK
	}
	received := k.received
	k.received = nil
	switch {
	case k.http:
		if k.c.Echo {
			if err := s.Respond("", time.Time{}, bytes.NewReader(received)); err != nil {
				return runtime.DisconnectMe
			}
		}
		return runtime.OK
	case k.c.Echo:
		if k.answer = received; k.answer == nil {
			k.answer = []byte{} // for an empty message
		}
	case k.text != nil:
		k.answer = k.text
	default:
		k.count()
		return runtime.OK
	}
	k.sent = 0
	s.PauseRx() // until the answer is sent, so that answers do not accumulate
	if err := s.RequestTx(); err != nil {
		return runtime.DisconnectMe
	}
	return runtime.OK
}

func (k *client) tx(s *runtime.Stream, ordinal uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
	if k.answered {
		k.answered = false
		s.ResumeRx()
		k.count()
	}
	if k.answer == nil {
		return 0, 0, runtime.TxDontSend
	}
	var flags runtime.Flags
	if k.sent == 0 {
		flags |= runtime.FlagSOM
	}
	size := copy(buf, k.answer[k.sent:])
	if k.sent += size; k.sent == len(k.answer) {
		flags |= runtime.FlagEOM
		k.answer, k.answered = nil, true
	}
	if err := s.RequestTx(); err != nil {
		return 0, 0, runtime.DisconnectMe
	}
	k.emit(event{Event: "tx", Ordinal: &ordinal, Length: &size, Flags: flagNames(flags)})
	return size, flags, runtime.OK
}
