package transport

import (
	"context"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Driver executes the streams of a context in place of transports, usually
// through a proxy. Package sspc implements it. A Driver may serve several contexts,
// and must be safe for concurrent use.
type Driver interface {
	// Drive returns the Remote for the streams of a streamtype. It is called for
	// the first stream of the streamtype in a context, and again for the next one
	// after the Close of the Remote. It must not block or call the context.
	// Setup.Stream is the definition in the program's policy. If there is none it
	// has only a name, and its protocol is policy.ProtocolProxied.
	Drive(*Setup) (Remote, error)
}

// A Remote executes the streams of one streamtype in one context. Each stream has
// one link to the proxy at a time. Methods are called concurrently, except Close.
type Remote interface {
	// Run makes a link and serves the stream over it until the link ends. It
	// returns why the link ended, never nil. The stream calls Run again after
	// LinkRetry. Run must return soon after a method of l returns an error or ctx
	// is done.
	Run(ctx context.Context, l RemoteLink) error

	// CheckMetadata returns nil if an item of metadata can be sent to the proxy.
	// Otherwise the error wraps ErrUnknownMetadata or ErrMetadataValue of package
	// policy.
	CheckMetadata(name, value string) error

	// Close is like [Connector.Close].
	Close() error
}

// LinkRetry is the wait between two links of a stream, as in lws.
const LinkRetry = time.Second

// A RemoteLink is the stream as Run sees it. Methods are safe for concurrent use.
//
// Report, Rx, Perf and Tx call the program back, and return after the callback.
// They must not be called from a callback. An error means that the link is over,
// and that Run must return.
type RemoteLink interface {
	// Data returns the value that the Remote keeps with the stream across its
	// links. The first call stores the result of make. make must not call the link.
	Data(newData func() any) any

	// Credit returns the credit of the peer at the start of each connection, and
	// whether the program has set one.
	Credit() (n uint32, set bool)

	// Notify sets the function that is called when there are new Requests, and at
	// once if there are some. f is called with locks held: it must not block or
	// call the link.
	Notify(f func())

	// ServeTx is like [Link].ServeTx.
	ServeTx(send func())
	// Lend is like [Link].Lend.
	Lend(step func() error) error

	// Requests returns the program's requests since the last call. The first call
	// on a link returns all requests in force.
	Requests() Requests

	// WantsTx reports whether the program has requested a Tx.
	WantsTx() bool

	// Tx is like [Link].Tx.
	Tx(buf []byte) (Piece, error)

	// SetRideshares sets the names of the streamtypes that share a request, in order.
	SetRideshares(names []string)

	// Describe sets the result of Stream.StreamType, if the program's policy does
	// not define the streamtype.
	Describe(*policy.StreamType)

	// SetStatus sets the HTTP status of the response.
	SetStatus(int)

	// Receive sets a metadata item to the value from the peer.
	Receive(name, value string)

	// Report delivers a state of the proxy's stream. err is the reason for the end
	// of the connection or attempt, for DISCONNECTED and UNREACHABLE. If the state
	// must not follow the current one, Report does not deliver it and returns an
	// error.
	Report(state policy.State, arg uint32, err error) error

	// Rx is like [Link].Rx.
	Rx(buf []byte, flags policy.Flags) error

	// Perf delivers performance figures.
	Perf(figures []byte) error
}

// Requests holds the requests of a program to a stream.
type Requests struct {
	Metadata []Field // newest first, one for each name
	Connect  bool    // by Connect
	Send     bool    // RequestTx has been called

	// Length is the length from RequestTxLen, if Announced is set.
	Length    uint64
	Announced bool

	// Timeout is the duration of StartTimeout, if TimeoutChanged is set. 0 means
	// the policy's timeout_ms; a negative value means CancelTimeout.
	Timeout        time.Duration
	TimeoutChanged bool

	Credit uint64 // bytes added by AddPeerTxCredit
}

// Empty reports whether there is no request.
func (r *Requests) Empty() bool {
	return len(r.Metadata) == 0 && !r.Connect && !r.Send && !r.Announced && !r.TimeoutChanged && r.Credit == 0
}
