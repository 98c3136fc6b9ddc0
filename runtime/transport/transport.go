// Package transport defines the contract between streams and the packages that make
// their connections.
//
// # Writing a transport
//
// A [Transport] implements one or more protocols. Prepare receives the [Setup] of a
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
// The package example is a complete transport. Run reports events and asks for
// payload; the stream alone decides which state follows, and when to retry.
//
// # Services
//
// A Setup, and the [Env] in it, provide what each transport would otherwise have to
// implement: they dial through proxies, configure TLS from the policy's trust
// stores, get credentials and watch idle connections.
//
// States, flags and results are those of package policy.
package transport

import (
	"context"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Transport implements one or more protocols. It may serve several contexts, and
// must be safe for concurrent use.
//
// A Transport may also be a [StreamTyper] or a [PolicyObserver].
type Transport interface {
	// Protocols returns the protocols of the transport. The result must not change.
	Protocols() []policy.Protocol

	// Prepare returns the connector of a streamtype, whose Carrier is one of
	// Protocols. It is called for the first stream of the streamtype in a context,
	// and again for the next one after the Close of the connector. It must not
	// block or call the context.
	//
	// Prepare returns an error for a streamtype that it cannot execute, which wraps
	// ErrUnsupported or ErrNoCredentials if that is the reason. Package runtime has
	// checked the requirements that all protocols share.
	Prepare(*Setup) (Connector, error)
}

// A Connector makes the connections of one streamtype in one context. Methods are
// called concurrently, except Close.
//
// A Connector may also be an [Opener], an [Admitter] or a [Prompter].
type Connector interface {
	// Run makes one attempt to connect, and serves the connection until it ends. It
	// must return soon after a method of l returns an error or ctx is done.
	//
	// If Run returns before l.Connected, the peer is unreachable and the error is
	// the reason. After that, an error means that the connection was lost, and nil
	// that it has served its purpose.
	//
	// ctx is done when the stream ends the attempt or the connection. It carries an
	// httptrace.ClientTrace if the program has one, or if the policy requires
	// performance figures; see [Trace].
	//
	// If Run takes longer than 5 s to return, the stream continues without it.
	//
	// Goroutines of the transport that have called Tx, Ready or Notify may call l
	// until they end, even after Run has returned; events then fail. Otherwise l is
	// reused after Run has returned, and must not be called.
	Run(ctx context.Context, l Link) error

	// Close releases what the connector keeps between connections. It is called
	// once, when the streamtype has had no stream for 30 s, or when the context is
	// closed or has another policy. All calls of Run have returned by then, except
	// abandoned ones. The error is logged.
	Close() error
}

// An Opener is a [Connector] that connects a stream before NewStream returns.
type Opener interface {
	Connector

	// Open does the part of Run up to the return of l.Connected. If it returns nil,
	// Run follows with the same l; otherwise its error is that of the attempt. Open
	// is called only for an attempt that begins in NewStream. For other attempts
	// Run is called alone, so it must connect a link that Open has not connected.
	Open(l Link) error
}

// A Prompter is a [Connector] whose Run may be able to return at once when its
// context is done, whatever the peer does and whatever foreign code Run calls.
// Fetch then makes the attempt on the goroutine of its caller, which is faster.
type Prompter interface {
	Connector

	// Prompt reports whether Run does so. The result must not change.
	Prompt() bool
}

// An Admitter is a [Connector] that decides about each new stream.
type Admitter interface {
	Connector

	// Admit is called before the first state of a stream that was made without an
	// Option of this transport. It returns the Option of the stream, or the error
	// for NewStream to return; the stream then receives no state. It may call the
	// context.
	Admit() (Option, error)
}

// A StreamTyper is a [Transport] with streamtypes of its own, which no policy
// defines.
type StreamTyper interface {
	Transport

	// StreamTypes is called once for each context.
	StreamTypes() []*policy.StreamType
}

// A PolicyObserver is a [Transport] that is notified of a new policy.
type PolicyObserver interface {
	Transport

	// PolicyChanged is called after the policy of a context has been replaced.
	PolicyChanged()
}

// A Link is the stream as Run sees it: one attempt to connect, and the resulting
// connection. Methods are safe for concurrent use.
//
// State, Connected, Ack, Done, Call, Rx, RxReply, TryRx, RxEnd, RxClosed, Tx and
// FailTx deliver an event: they call the program back on the calling goroutine, and
// return after the callback. Events of a stream are serialized, so these methods
// must not be called from a callback. An error means that the attempt or connection
// is over, and that Run must return.
//
// The other methods do not block.
type Link interface {
	// Where to connect, and what to send.

	// Target returns the address to connect to. It must not be modified. Attempts
	// with equal targets may share a pointer.
	Target() *policy.Target

	// URL returns the policy's http_url with the metadata from before CONNECTING
	// inserted. The target's Path replaces it if not empty.
	URL() string

	// Metadata returns the value that the program has set for an item, by its index
	// in the streamtype, and whether it has set one.
	Metadata(item int) (value string, set bool)

	// Expand returns a text with the metadata of the program inserted.
	Expand(*policy.Template) string

	// DirectHeaders returns the names and values of the headers that the program
	// has set and the policy does not declare. There are none unless the policy
	// sets direct_proto_str.
	DirectHeaders() []Field

	// OnEnd sets the function that is called, on a goroutine of its own, when the
	// stream ends the attempt or connection. It is called at once if the stream has
	// ended it already. f must make blocked calls of the transport return. OnEnd(nil)
	// removes the function. OnEnd reports whether it replaces a function that has not
	// been called.
	//
	// It takes the place of [context.AfterFunc] with the context of Run. A context
	// holds 500 bytes more once its Done was called or another one derived from it.
	OnEnd(f func()) bool

	// Data returns the value that the transport keeps with the stream across its
	// connections: the data of an Option, or the result of make in the first call.
	// make must not call the link.
	Data(newData func() any) any

	// Answers of the peer.

	// Answer adds to the answer of the peer.
	Answer(Answer)

	// Receive sets an item, by its index in the streamtype, to the value from the
	// peer, for the program to read. It does not change the result of Metadata.
	Receive(item int, value string)

	// State delivers a state of the policy's http_resp_map.
	State(policy.State) error

	// Connected reports that the peer is ready for payload, and delivers CONNECTED.
	// A connection that lasts for Retry.Steady, or serves its purpose, ends the
	// series of failures; the next failure starts a new one.
	Connected() error

	// Ack reports whether the peer accepted one of many messages, and delivers
	// QOS_ACK_REMOTE or QOS_NACK_REMOTE. If good is set, it stops the timer of
	// StartTimeout, as lws does for mqtt.
	Ack(good bool) error

	// Done is like Ack for the only message of a connection. The connection has
	// then served its purpose, whatever Run returns.
	Done(good bool) error

	// Call calls f like a State callback, and applies its result.
	Call(f func() policy.Result) error

	// Payload from the peer.

	// Rx delivers payload. buf may be reused when Rx returns. Rx blocks while the
	// program has paused the stream.
	Rx(buf []byte, flags policy.Flags) error

	// RxReply is like Rx, for a transport that can send on the receiving goroutine,
	// which is faster. wantsTx reports whether the program requests a Tx. Ready and
	// Notify do not signal requests made during the callback.
	RxReply(buf []byte, flags policy.Flags) (wantsTx bool, err error)

	// TryRx is like Rx, but while the program has paused the stream it returns
	// false instead of blocking. Resumed then signals when to try again. It is for
	// a transport that has other work meanwhile.
	TryRx(buf []byte, flags policy.Flags) (delivered bool, err error)

	// Resumed returns a channel that receives a value when the program ends a
	// pause. It is the same channel for all calls.
	Resumed() <-chan struct{}

	// RxEnd delivers the end of the only message of a connection, as an empty piece
	// with FlagEOM. Of its results, only DestroyMe has an effect.
	RxEnd() error

	// RxClosed reports that the peer sends no more, and that the connection is
	// about to end. It blocks as long as the program wants to send.
	RxClosed() error

	// Delivered returns the number of bytes of payload of this connection that have
	// been passed to Rx callbacks, including a running one.
	Delivered() int64

	// Credit returns the credit of the peer, or nil if there is no limit.
	Credit() *Credit

	// Payload from the program. The program requests each Tx. A transport that can
	// send waits for a request by one of WantsTx, Ready and Notify.

	// Outgoing returns the length of the next message in bytes, with 0 for unknown.
	// ok reports whether the stream has a Tx callback at all.
	Outgoing() (length uint64, ok bool)

	// Tx returns a piece of payload of at most len(buf) bytes, and clears the
	// request. An empty piece means that there is no payload until the next
	// request. Calling Tx implies that the previous pieces have been passed to the
	// network. Over protocols whose peer acknowledges messages, the piece that
	// completes an announced length has FlagEOM, and each message is answered by
	// Ack.
	Tx(buf []byte) (Piece, error)

	// WantsTx reports whether there is a request.
	WantsTx() bool

	// Ready returns a channel that receives a value when there is a request. It is
	// the same channel for all calls.
	Ready() <-chan struct{}

	// Notify sets the function that is called at each request, and at once if there
	// is one. f is called with locks held: it must not block or call the link.
	Notify(f func())

	// ServeTx sets the function that sends the payload that the program requests to
	// send. Goroutines of the program that can wait for a write call it, in place
	// of a signal by Ready or Notify: it must send until WantsTx returns false, or
	// leave that to a goroutine that is sending.
	ServeTx(send func())

	// Lend lets goroutines of the program that wait for payload call step in place
	// of the caller. step reads once from the peer, and delivers at most one piece.
	// Lend returns nil when the caller must read by itself again, which is at once
	// if the program does not wait for payload. Otherwise it returns the error of
	// step, or of the link.
	Lend(step func() error) error

	// Recall makes a Lend return soon.
	Recall()

	// FailTx reports that no more can be sent, while payload from the peer may
	// still arrive. It calls the program's TxFailed.
	FailTx(error)
}

// A Field is the name and value of a header.
type Field struct{ Name, Value string }

// An Answer is a peer's answer to an attempt. Zero fields have no effect.
type Answer struct {
	Status     int           // HTTP status
	RetryAfter time.Duration // the next attempt waits at least this long
	Redirected bool          // the peer redirects; see http_fail_redirect
	Final      bool          // no retry follows this attempt

	// Header returns the value of a header, or "". Case does not matter. With
	// direct_proto_str the program can read all headers until the next attempt.
	// Header must be safe for concurrent use.
	Header func(name string) string
}

// A Piece is a piece of payload to send.
type Piece struct {
	N      int          // bytes in the buffer
	Flags  policy.Flags // FlagEOM ends the last message of a request, FlagEnd the sending direction
	Length uint64       // size in bytes of the message that begins, over protocols with many messages; 0 means unknown
	Next   bool         // ends the message of one streamtype; the next one that shares the request follows
}

// Empty reports whether there is nothing to send.
func (p Piece) Empty() bool { return p.N == 0 && p.Flags == 0 && !p.Next }
