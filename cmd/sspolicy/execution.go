package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
)

// An execution holds the handlers of the executed stream. They are never called
// concurrently.
type execution struct {
	*events
	st       *policy.StreamType
	set      map[string]string
	messages map[string][]byte // payload to send, by streamtype; nil for none
	stdout   io.Writer
	count    int        // messages to receive; 0 for no limit
	after    bool       // count only messages that arrive after everything is sent
	done     chan error // receives the result, once

	received  int
	lost      error // reason why the last attempt or connection ended, if no other followed
	connected bool

	// About the current attempt.
	sent     map[string]int // bytes sent, by streamtype
	complete bool           // everything has been sent
	end      *time.Timer    // see linger; nil before its call
	answered bool           // a message was received
	within   bool           // a message has begun and not ended
	repeat   bool           // another request follows
}

func newExecution(st *policy.StreamType, c *runCmd, messages map[string][]byte, out *events, stdout io.Writer) *execution {
	e := &execution{events: out, st: st, set: c.Set, messages: messages, stdout: stdout, count: c.Count, done: make(chan error, 1)}
	if e.count == 0 && !st.NailedUp && (st.Protocol == policy.ProtocolWS || st.Protocol == policy.ProtocolMQTT && messages == nil) {
		e.count, e.after = 1, true
	}
	return e
}

func (e *execution) handlers() runtime.Handlers {
	h := runtime.Handlers{State: e.state, Rx: e.rx, Tx: e.tx}
	if e.length() == 0 && e.st.Protocol.IsHTTP() {
		h.Tx = nil // the body is empty
	}
	return h
}

// pending returns the reason why the run is not complete. It is nil for a connected
// nailed_up stream without messages to wait for.
func (e *execution) pending() error {
	switch {
	case e.lost != nil:
		return fmt.Errorf("the last attempt failed: %w", e.lost)
	case !e.connected:
		return errors.New("the peer has not answered")
	case e.count > 0:
		return fmt.Errorf("received %d of %d messages", e.received, e.count)
	case e.st.NailedUp:
		return nil
	case e.st.Protocol == policy.ProtocolRaw:
		return errors.New("the peer has not closed (--count ends before that)")
	case e.st.Protocol == policy.ProtocolMQTT:
		return errors.New("the peer has not acknowledged the message")
	}
	return errors.New("the answer is not complete")
}

// finish ends the run with a result, unless it has one.
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
		if err := e.start(s); err != nil {
			e.finish(err)
			return runtime.DestroyMe
		}
	case runtime.StateConnecting:
		e.sent, e.complete, e.answered, e.within = make(map[string]int), false, false, false
	case runtime.StateConnected:
		e.connected, e.lost = true, nil
		if e.st.NailedUp && e.messages != nil && !e.st.Protocol.IsHTTP() { // also on a later connection
			if err := s.RequestTxLen(e.length()); err != nil {
				return e.finish(err)
			}
		}
	case runtime.StateQoSAckRemote:
		return e.acknowledged()
	case runtime.StateQoSNackRemote:
		err := errors.New("the peer refused (QOS_NACK_REMOTE)")
		if code := s.Status(); code != 0 {
			err = fmt.Errorf("%w: status %d", err, code)
		}
		return e.finish(err)
	case runtime.StateUpstreamLinkRetry:
		e.connected, e.lost = false, s.Err()
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
		return e.disconnected(s)
	case runtime.StateTimeout:
		return e.finish(errors.New("TIMEOUT: the policy's timeout_ms has passed"))
	}
	return runtime.OK
}

// acknowledged handles the acknowledgement of the peer. Over HTTP it completes the
// exchange; over mqtt it completes a message, and others may follow.
func (e *execution) acknowledged() runtime.Result {
	if e.st.Protocol.IsHTTP() && !e.answered {
		e.received++ // an empty answer
	}
	switch {
	case e.count > 0 && e.received < e.count:
		e.repeat = e.st.Protocol.IsHTTP() || e.unknown()
		return runtime.OK
	case e.st.NailedUp && !e.st.Protocol.IsHTTP():
		return runtime.OK
	}
	return e.finish(nil)
}

// disconnected handles the end of a connection.
func (e *execution) disconnected(s *runtime.Stream) runtime.Result {
	if errors.Is(s.Err(), runtime.ErrClosed) {
		return runtime.OK // at the end of the run
	}
	e.connected = false
	if e.repeat {
		e.repeat = false
		if err := e.start(s); err != nil {
			return e.finish(err)
		}
		return runtime.OK
	}
	clean := s.Err() == nil || errors.Is(s.Err(), io.EOF)
	if clean && (e.st.Protocol == policy.ProtocolRaw || e.unknown()) && e.count == 0 && !e.reconnects() && (e.messages == nil || e.complete) {
		return e.finish(nil)
	}
	err := errors.New("disconnected before the end of the answer")
	if s.Err() != nil {
		err = fmt.Errorf("%w: %w", err, s.Err())
	}
	if e.reconnects() {
		e.lost = err
		return runtime.OK
	}
	return e.finish(err)
}

// reconnects reports whether the run continues after a connection ends.
func (e *execution) reconnects() bool { return e.st.NailedUp && !e.st.Opportunistic }

// start starts a request or a connection.
func (e *execution) start(s *runtime.Stream) error {
	if e.st.Protocol.IsHTTP() || e.unknown() {
		s.StartTimeout(0) // like Fetch
	}
	if e.messages == nil {
		if e.st.Protocol.IsHTTP() {
			return s.RequestTx()
		}
		return s.Connect()
	}
	return s.RequestTxLen(e.length())
}

// length returns the number of bytes to send.
func (e *execution) length() (n uint64) {
	for _, m := range e.messages {
		n += uint64(len(m))
	}
	return n
}

// cause returns the reason why a connection or an attempt ended, or "".
func cause(s *runtime.Stream, state runtime.State) string {
	switch state {
	case runtime.StateUnreachable, runtime.StateDisconnected, policy.StateAuthFailed, runtime.StateUpstreamLinkRetry:
		if err := s.Err(); err != nil && !errors.Is(err, runtime.ErrClosed) { // closed by run itself
			return plain(err)
		}
	}
	return ""
}

func (e *execution) rx(_ *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
	if e.count > 0 && e.received == e.count {
		return runtime.OK // beyond count
	}
	n := len(buf)
	v := event{Event: "rx", Length: &n, Flags: flagNames(flags)}
	if flags&runtime.FlagPerfJSON != 0 { // not payload
		if json.Valid(buf) { // a proxy of lws 5.0.0 sends the first 5 bytes
			v.Perf = slices.Clone(json.RawMessage(buf))
		}
		e.emit(v)
		return runtime.OK
	}
	e.emit(v)
	if _, err := e.stdout.Write(buf); err != nil {
		e.finish(err)
		return runtime.DestroyMe
	}
	// raw has no messages: each piece counts.
	end := flags&runtime.FlagEOM != 0 || e.st.Protocol == policy.ProtocolRaw || e.unknown() && !e.within && flags == 0
	e.within = (e.within || flags&runtime.FlagSOM != 0) && flags&runtime.FlagEOM == 0
	if end && (!e.after || e.complete || e.messages == nil) {
		e.answered = true
		if e.received++; e.received == e.count {
			return e.finish(nil)
		}
		if e.unknown() && e.count == 0 {
			e.linger()
		}
	}
	return runtime.OK
}

// unknown reports whether only the proxy knows the protocol.
func (e *execution) unknown() bool { return e.st.Protocol == policy.ProtocolProxied }

// linger ends the run after the end of a message, unless more arrives. Over HTTP
// the verdict comes first.
func (e *execution) linger() {
	if e.end == nil {
		e.end = time.AfterFunc(time.Second, func() { e.finish(nil) })
	}
	e.end.Reset(time.Second)
}

func (e *execution) tx(s *runtime.Stream, ordinal uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
	if e.messages == nil || e.complete {
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
		chain := s.Rideshares()
		e.complete = chain[len(chain)-1].Name == st.Name
		flags |= runtime.FlagEOM
	}
	e.emit(event{Event: "tx", Ordinal: &ordinal, Length: &n, Flags: flagNames(flags)})
	if e.complete && e.count == 0 && st.Protocol == policy.ProtocolRaw && !e.st.NailedUp {
		// Many servers answer after the end of the request, which is sent after
		// this piece.
		if err := raw.Of(s).CloseWrite(); err != nil {
			e.finish(err)
		}
	}
	if flags&runtime.FlagEOM == 0 {
		// The rest of the message; over HTTP this is unnecessary but harmless.
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

// plain returns the text of an error without the prefix "sspolicy: " of package
// runtime.
func plain(err error) string { return strings.ReplaceAll(explainTLS(err), "sspolicy: ", "") }
