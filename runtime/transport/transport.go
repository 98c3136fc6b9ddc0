// Package transport is the contract between streams and the packages that make
// their connections.
//
// A [Transport] speaks one or more protocols. For each streamtype of a context
// that it serves it prepares a [Connector], from a [Setup] that holds everything
// that stays the same. For each attempt to connect, the stream calls the
// connector's Run with a [Link], through which the transport reports what happens
// and asks for payload. When to try again, and which state follows which, is the
// stream's business alone.
//
// An [Env] and a Setup also hold what transports need and should not each write:
// dialing through proxies, TLS by the policy's trust stores, credentials, the
// watch over idle connections.
//
// Names of states, flags and results are in package policy.
package transport

import (
	"context"
	"iter"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Transport speaks one or more protocols. Its methods may be called from many
// goroutines, and one transport may serve several contexts.
type Transport interface {
	// Protocols returns what the transport speaks.
	Protocols() []policy.Protocol

	// Prepare returns the connector of a streamtype. It is called for the first
	// stream of the streamtype in a context, and for the first one after Close of
	// the connector. It refuses a streamtype that it cannot execute with an error
	// that wraps ErrUnsupported or ErrNoCredentials. What concerns every protocol
	// has been checked before.
	Prepare(*Setup) (Connector, error)
}

// A Connector makes the connections of one streamtype of one context.
type Connector interface {
	// Run makes one attempt to connect and carries the connection until its end.
	// It reports events by calling the methods of l, and returns when one of
	// them returns an error or ctx is done.
	//
	// A return before l.Connected means that the peer was unreachable. After
	// it, nil means that the connection has done what it was for, and an error
	// that it was lost.
	//
	// ctx carries an httptrace.ClientTrace if the policy wants performance
	// figures; see Trace.
	//
	// After Run has returned neither l nor ctx may be used. The exception are
	// calls to l after Tx, Ready or Notify has been called: they fail.
	Run(ctx context.Context, l Link) error

	// Close is called when no stream of the streamtype has existed for a while,
	// and when the context ends.
	Close() error
}

// An Opener is a Connector that connects a stream before NewStream returns.
type Opener interface {
	Connector

	// Open does what Run does until l.Connected has returned, and returns its
	// error. Run is called after it if there was none.
	Open(l Link) error
}

// An Admitter is a Connector that decides about each new stream.
type Admitter interface {
	Connector

	// Admit is called before the first state of a stream that was made without
	// an Option of this transport. It returns the data that stays with the stream,
	// or the error with which NewStream fails. After an error the stream has never
	// existed. A stream with data connects at once.
	Admit() (Option, error)
}

// A StreamTyper is a Transport that brings streamtypes of its own, which no
// policy has.
type StreamTyper interface {
	Transport
	StreamTypes() []*policy.StreamType
}

// A PolicyObserver is a Transport that is notified after the policy of a context
// has been replaced.
type PolicyObserver interface {
	Transport
	PolicyChanged()
}

// A Link is one attempt to connect, and the connection that results, as its
// transport sees it. The methods that report an event call the program back on
// the calling goroutine, and return when the program has; events wait for each
// other. An error means that the attempt is over and Run is to return. All
// methods may be called from any goroutine.
type Link interface {
	// Target returns where to connect. It must not be modified. Two attempts
	// with an equal target may get the same pointer, or not.
	Target() *policy.Target

	// URL returns the policy's http_url with the metadata as it was before
	// CONNECTING was delivered.
	URL() string

	// Metadata returns the value that the program has set for an item of the
	// streamtype, and whether it has set one.
	Metadata(item int) (value string, set bool)

	// Expand returns a text with the values inserted that the program has set.
	Expand(*policy.Template) string

	// DirectHeaders returns the headers that the program has set and the policy
	// does not declare. There are none unless the policy says direct_proto_str.
	DirectHeaders() iter.Seq2[string, string]

	// Data returns what the transport keeps with the stream over all of its
	// connections: the data of an Option, else what make returned once.
	Data(make func() any) any

	// Credit returns the credit of the peer, or nil if there is no limit.
	Credit() *Credit

	// Answer reports the peer's answer to the attempt. Later calls add to it.
	Answer(Answer)

	// Receive sets an item of the streamtype to what the peer sent, for the
	// program to read. It does not change what Metadata returns.
	Receive(item int, value string)

	// Connected reports that the connection is good. It delivers CONNECTED, and
	// ends the series of retries: the next failure is the first of a new one.
	Connected() error

	// State delivers a state of the policy's http_resp_map.
	State(policy.State) error

	// Ack reports whether the peer accepted a message of many. It stops the
	// timer of StartTimeout if it did, as lws does for mqtt.
	Ack(good bool) error

	// Done is Ack for the only message of a connection: whatever the program
	// answers, the connection has done what it was for.
	Done(good bool) error

	// Call calls f like a State callback of the stream, and obeys its result.
	Call(f func() policy.Result) error

	// Rx delivers payload; buf may be reused when it returns. It blocks while
	// the program has paused the stream.
	Rx(buf []byte, flags policy.Flags) error

	// RxReply is Rx for a transport that can send on the goroutine that
	// receives, which is faster: wantsTx reports whether the program wants to
	// send. Requests made during the callback are not signalled otherwise.
	RxReply(buf []byte, flags policy.Flags) (wantsTx bool, err error)

	// RxEnd delivers the end of the only message of a connection, as an empty
	// piece with FlagEOM.
	RxEnd() error

	// Delivered returns how many bytes of payload have been passed to Rx
	// callbacks, including the running one.
	Delivered() int64

	// Outgoing reports whether the stream has a Tx callback, and the length in
	// bytes of what it is going to send; 0 means that it is unknown.
	Outgoing() (length uint64, ok bool)

	// Tx asks the program for payload. An empty piece means that there is none
	// now: the transport asks again when Ready or Notify signals.
	Tx(buf []byte) (Piece, error)

	// WantsTx reports whether the program has requested a Tx since the last one.
	WantsTx() bool

	// Ready returns a channel that receives a value when WantsTx becomes true.
	Ready() <-chan struct{}

	// Notify makes f the function that is called whenever the program requests a
	// Tx. It is called with locks held by the requesting goroutine: it must not
	// block or call the link.
	Notify(f func())

	// FailTx reports that nothing more can be sent, while payload from the peer
	// may still arrive.
	FailTx(error)
}

// An Answer is what a peer answered to an attempt.
type Answer struct {
	Status     int           // the HTTP status; 0 leaves it
	RetryAfter time.Duration // the next attempt waits at least this long
	Redirected bool          // the peer redirects; see http_fail_redirect
	Final      bool          // no attempt follows by itself, however this one ends

	// Header returns a header of the answer, whatever its case, or "". With
	// direct_proto_str the program can read all of them until the next attempt.
	Header func(name string) string
}

// A Piece is a piece of payload to be sent.
type Piece struct {
	N      int          // bytes in the buffer
	Flags  policy.Flags // FlagEOM ends the last message of a request
	Length uint64       // of the message that begins, over protocols that carry many; 0 means unknown
	Next   bool         // the message of one streamtype has ended; the next one that shares the request follows
}

// Empty reports whether there is nothing to send now.
func (p Piece) Empty() bool { return p.N == 0 && p.Flags == 0 && !p.Next }
