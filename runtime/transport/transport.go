// Package transport is the contract between streams and the packages that make
// their connections.
//
// # Writing a transport
//
// A [Transport] speaks one or more protocols. Prepare gets the [Setup] of a
// streamtype and returns its [Connector]. For each attempt to connect, the stream
// calls the connector's Run with a [Link]:
//
//	func (c *connector) Run(ctx context.Context, l transport.Link) error {
//		conn, err := c.setup.Dial(ctx, l.Target())
//		if err != nil {
//			return err // the peer is unreachable
//		}
//		defer conn.Close()
//		defer context.AfterFunc(ctx, func() { conn.Close() })()
//		if err := l.Connected(); err != nil {
//			return err
//		}
//		... // l.Rx what arrives; when l.Ready signals, send what l.Tx returns
//	}
//
// The package example is a whole transport. Run reports what happens and asks for
// payload; the stream alone decides which state follows, and when to try again.
//
// # Services
//
// A Setup, and the [Env] in it, do what each transport would have to write
// otherwise: dial through proxies, configure TLS by the policy's trust stores, get
// credentials, watch idle connections.
//
// States, flags and results are those of package policy.
package transport

import (
	"context"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Transport speaks one or more protocols. It may serve several contexts. Methods
// are called concurrently.
//
// A Transport may also be a [StreamTyper] or a [PolicyObserver].
type Transport interface {
	// Protocols returns the protocols that the transport speaks, always the same.
	Protocols() []policy.Protocol

	// Prepare returns the connector of a streamtype, whose Carrier is one of
	// Protocols. It is called for the first stream of the streamtype in a context,
	// and for the next one after the Close of the connector. It must not block or
	// call the context.
	//
	// Prepare returns an error for a streamtype that it cannot execute, which
	// wraps ErrUnsupported or ErrNoCredentials if that is the reason. Package
	// runtime has checked what all protocols have in common.
	Prepare(*Setup) (Connector, error)
}

// A Connector makes the connections of one streamtype in one context. Methods are
// called concurrently, except Close.
//
// A Connector may also be an [Opener], an [Admitter] or a [Prompter].
type Connector interface {
	// Run makes one attempt to connect, and serves the connection until it ends.
	// It must return soon after a method of l returns an error, or ctx is done.
	//
	// A return before l.Connected means that the peer is unreachable, and the
	// error is the reason. After it, an error means that the connection is lost,
	// and nil that it has served its purpose.
	//
	// ctx is done when the stream ends the attempt or the connection. It carries
	// an httptrace.ClientTrace if the program has one, or the policy requires
	// performance figures; see Trace.
	//
	// A stream whose Run takes longer than 5 s to return goes on without it.
	//
	// Goroutines of the transport that have called Tx, Ready or Notify may call l
	// until they end, even if Run has returned: events fail then. Otherwise l is
	// reused as soon as Run has returned, and must not be called.
	Run(ctx context.Context, l Link) error

	// Close closes what the connector has kept between connections. It is called
	// once, when the streamtype has had no stream for 30 s, or the context is
	// closed or has another policy. All calls of Run have returned by then, except
	// those that their streams went on without. The error is logged.
	Close() error
}

// An Opener is a Connector that connects a stream before NewStream returns.
type Opener interface {
	Connector

	// Open does the part of Run up to the return of l.Connected. If it returns
	// nil, Run follows with the same l; an error is that of the attempt. Open is
	// called for an attempt that begins in NewStream. Run alone makes any other,
	// so it must connect a link that Open has not.
	Open(l Link) error
}

// A Prompter is a Connector whose Run may be able to return at once when its context is
// done, whatever the peer does and whatever code of others Run calls. Fetch then makes
// the attempt on the goroutine of its caller, which is faster.
type Prompter interface {
	Connector

	// Prompt reports whether Run does so, always the same.
	Prompt() bool
}

// An Admitter is a Connector that decides about each new stream.
type Admitter interface {
	Connector

	// Admit is called before the first state of a stream that was made without
	// an Option of this transport. It returns the Option of the stream, or the
	// error that NewStream returns; the stream then gets no state. It may call
	// the context.
	Admit() (Option, error)
}

// A StreamTyper is a Transport that has streamtypes of its own, which no policy
// defines.
type StreamTyper interface {
	Transport

	// StreamTypes is called once for each context.
	StreamTypes() []*policy.StreamType
}

// A PolicyObserver is a Transport that is notified of a new policy.
type PolicyObserver interface {
	Transport

	// PolicyChanged is called after the policy of a context has been replaced.
	PolicyChanged()
}

// A Link is what Run sees of its stream: one attempt to connect, and the connection
// that results. Methods may be called from any goroutine.
//
// State, Connected, Ack, Done, Call, Rx, RxReply, TryRx, RxEnd, Tx and FailTx deliver an
// event: they call the program back on the calling goroutine, and return after the
// callback. Events of a stream wait for each other, so these methods must not be
// called from a callback. An error means that the attempt or connection is over, and
// that Run must return.
//
// The other methods do not block.
type Link interface {
	// Where to connect, and what to send.

	// Target returns where to connect to. It must not be modified. Attempts with
	// equal targets may get the same pointer.
	Target() *policy.Target

	// URL returns the policy's http_url, with metadata inserted as it was before
	// CONNECTING. The target's Path replaces it if it is not empty.
	URL() string

	// Metadata returns the value that the program has set for an item, given by
	// its index in the streamtype, and whether it has set one.
	Metadata(item int) (value string, set bool)

	// Expand returns a text with the metadata inserted that the program has set.
	Expand(*policy.Template) string

	// DirectHeaders returns the names and values of the headers that the program
	// has set and the policy does not declare. There are none unless the policy
	// says direct_proto_str.
	DirectHeaders() []Field

	// Data returns what the transport keeps with the stream over all of its
	// connections: the data of an Option, or what the first call of make returned.
	// make must not call the link.
	Data(make func() any) any

	// What the peer answers.

	// Answer adds to the answer of the peer.
	Answer(Answer)

	// Receive sets an item, given by its index in the streamtype, to what the peer
	// sent, for the program to read. It does not change what Metadata returns.
	Receive(item int, value string)

	// State delivers a state that the policy's http_resp_map names.
	State(policy.State) error

	// Connected reports that the peer is ready for payload, and delivers
	// CONNECTED. A connection that lasts for Retry.Steady, or serves its purpose,
	// ends the series of failures: the next one is the first of a new series.
	Connected() error

	// Ack reports whether the peer accepted one of many messages, and delivers
	// QOS_ACK_REMOTE or QOS_NACK_REMOTE. If good, it stops the timer of
	// StartTimeout, as lws does for mqtt.
	Ack(good bool) error

	// Done is Ack for the only message of a connection. The connection has then
	// served its purpose, whatever error Run returns.
	Done(good bool) error

	// Call calls f as if it were a State callback, and obeys its result.
	Call(f func() policy.Result) error

	// Payload from the peer.

	// Rx delivers payload. buf may be reused when Rx returns. It blocks while the
	// program has paused the stream.
	Rx(buf []byte, flags policy.Flags) error

	// RxReply is Rx for a transport that can send on the receiving goroutine,
	// which is faster: wantsTx reports whether the program requests a Tx. Requests
	// made during the callback are not signalled by Ready or Notify.
	RxReply(buf []byte, flags policy.Flags) (wantsTx bool, err error)

	// TryRx is Rx, except that it does not wait while the program has paused the
	// stream: it then delivers nothing and reports false. Resumed signals when to
	// try again. It is for a transport that has other work meanwhile.
	TryRx(buf []byte, flags policy.Flags) (delivered bool, err error)

	// Resumed returns a channel that receives a value when the program ends a
	// pause. It is the same channel for all calls.
	Resumed() <-chan struct{}

	// RxEnd delivers the end of the only message of a connection, as an empty
	// piece with FlagEOM. Only DestroyMe has an effect.
	RxEnd() error

	// RxClosed reports that the peer sends no more, and that the connection is about
	// to end. It blocks as long as the program wants to send.
	RxClosed() error

	// Delivered returns how many bytes of payload of this connection Rx callbacks
	// have got, including a running one.
	Delivered() int64

	// Credit returns the credit of the peer, or nil if there is no limit.
	Credit() *Credit

	// Payload from the program. The program requests each Tx. A transport that
	// can send waits for a request by one of WantsTx, Ready and Notify.

	// Outgoing returns the length of the next message in bytes, where 0 means
	// unknown, and whether the stream has a Tx callback at all.
	Outgoing() (length uint64, ok bool)

	// Tx gets a piece of payload, at most len(buf) bytes, and takes back the
	// request. An empty piece means that there is none before the next request. A
	// call means that the pieces before have been handed to the network. Over
	// protocols whose peer acknowledges messages, the piece that completes an
	// announced length has FlagEOM, and each message is answered by Ack.
	Tx(buf []byte) (Piece, error)

	// WantsTx reports whether there is a request.
	WantsTx() bool

	// Ready returns a channel that receives a value when there is a request. It is
	// the same channel for all calls.
	Ready() <-chan struct{}

	// Notify sets the function that is called at each request, and at once if there
	// is one already. Locks are held: f must not block or call the link.
	Notify(f func())

	// ServeTx sets the function that sends what the program requests. It is called by
	// goroutines of the program that can wait for a write, without a signal by Ready or
	// Notify: it must send until WantsTx reports no request, or leave that to a
	// goroutine that is sending.
	ServeTx(send func())

	// Lend lets goroutines of the program that wait for payload call step in place of
	// the caller. step reads once from the peer, and delivers at most one piece. Lend
	// returns nil when the caller is to read by itself again, at once if the program
	// does not wait for payload; otherwise the error of step, or of the link.
	Lend(step func() error) error

	// Recall makes a Lend return soon.
	Recall()

	// FailTx reports that nothing more can be sent, while payload from the peer
	// may still arrive. It calls the program's TxFailed.
	FailTx(error)
}

// A Field is the name and value of a header.
type Field struct{ Name, Value string }

// An Answer is what a peer answered to an attempt. Zero fields change nothing.
type Answer struct {
	Status     int           // HTTP status
	RetryAfter time.Duration // the next attempt waits at least this long
	Redirected bool          // the peer redirects, which matters to http_fail_redirect
	Final      bool          // no retry follows this attempt

	// Header returns the value of a header by its name in any case, or "". With
	// direct_proto_str the program can read all headers until the next attempt.
	// It must be callable from any goroutine.
	Header func(name string) string
}

// A Piece is a piece of payload to send.
type Piece struct {
	N      int          // bytes in the buffer
	Flags  policy.Flags // FlagEOM ends the last message of a request, FlagEnd the sending direction
	Length uint64       // bytes of the message that begins, over protocols with many messages; 0 means unknown
	Next   bool         // ends the message of one streamtype; the next one that shares the request follows
}

// Empty reports whether there is nothing to send.
func (p Piece) Empty() bool { return p.N == 0 && p.Flags == 0 && !p.Next }
