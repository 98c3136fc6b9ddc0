package transport

import (
	"context"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Driver fulfils the streams of a context in place of a policy and transports: by a
// proxy that has them. Package sspc has one. A Driver may serve several contexts.
// Methods are called concurrently.
type Driver interface {
	// Drive returns what fulfils the streams of a streamtype. It is called for the
	// first stream of the streamtype in a context, and for the next one after the
	// Close of the Remote. It must not block or call the context. Setup.Stream is
	// what the program's policy says about the streamtype. If that says nothing it
	// has only a name, and its protocol is policy.ProtocolProxied.
	Drive(*Setup) (Remote, error)
}

// A Remote fulfils the streams of one streamtype in one context by links to a proxy,
// one for each stream at a time. Methods are called concurrently, except Close.
type Remote interface {
	// Run makes a link and serves the stream over it until the link ends. The error
	// is why it ended, never nil. The stream calls Run again after LinkRetry. Run
	// must return soon after a method of l returns an error, or ctx is done.
	Run(ctx context.Context, l RemoteLink) error

	// CheckMetadata returns nil if the proxy can be sent an item of metadata. Else
	// the error wraps ErrUnknownMetadata or ErrMetadataValue of package policy.
	CheckMetadata(name, value string) error

	// Close is like that of a Connector.
	Close() error
}

// LinkRetry is the wait between two links of a stream, as in lws.
const LinkRetry = time.Second

// A RemoteLink is what Run sees of its stream. Methods may be called from any
// goroutine.
//
// Report, Rx, Perf and Tx call the program back, and return after the callback. They
// must not be called from a callback. An error means that the link is over, and that
// Run must return.
type RemoteLink interface {
	// Data returns what the Remote keeps with the stream over all of its links: what
	// the first call of make returned. make must not call the link.
	Data(make func() any) any

	// Credit returns the credit that the peer has on each connection, and whether
	// the program has set one.
	Credit() (bytes uint32, set bool)

	// Notify sets the function that is called when there are new Requests, and at
	// once if there are some. Locks are held: f must not block or call the link.
	Notify(f func())

	// ServeTx is that of Link.
	ServeTx(send func())
	// Lend is that of Link.
	Lend(step func() error) error

	// Requests returns what the program has requested since the last call. The first
	// call on a link returns all that is in force.
	Requests() Requests

	// WantsTx reports whether the program has requested a Tx.
	WantsTx() bool

	// Tx is that of Link.
	Tx(buf []byte) (Piece, error)

	// SetRideshares sets the names of the streamtypes that share a request, in order.
	SetRideshares(names []string)

	// Describe sets what Stream.StreamType returns, if the program's policy says nothing
	// about the streamtype.
	Describe(*policy.StreamType)

	// SetStatus sets the HTTP status of the response.
	SetStatus(int)

	// Receive sets a metadata item to what the peer sent.
	Receive(name, value string)

	// Report delivers a state of the proxy's stream. err is why the connection or the
	// attempt ended, for DISCONNECTED and UNREACHABLE. A state that must not follow
	// the present one is not delivered, and is an error.
	Report(state policy.State, arg uint32, err error) error

	// Rx is that of Link.
	Rx(buf []byte, flags policy.Flags) error

	// Perf delivers performance figures.
	Perf(figures []byte) error
}

// Requests are what a program has requested from a stream.
type Requests struct {
	Metadata []Field // newest first, one for each name
	Connect  bool    // by Connect
	Send     bool    // RequestTx has been called

	// Length is what RequestTxLen has announced, if Announced.
	Length    uint64
	Announced bool

	// Timeout is that of StartTimeout, if TimeoutChanged: 0 means the policy's
	// timeout_ms, and less than 0 CancelTimeout.
	Timeout        time.Duration
	TimeoutChanged bool

	Credit uint64 // bytes, of AddPeerTxCredit
}

// Empty reports whether nothing has been requested.
func (r *Requests) Empty() bool {
	return len(r.Metadata) == 0 && !r.Connect && !r.Send && !r.Announced && !r.TimeoutChanged && r.Credit == 0
}
