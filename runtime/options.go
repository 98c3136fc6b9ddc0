package runtime

import (
	"context"
	"fmt"
	"io"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A CallOption is a setting of [Context.Fetch] and [Context.Open].
type CallOption interface{ CallOption() }

// A StreamOption is a setting of a new stream: of [Context.NewStream]. Most are
// CallOptions too. The packages of transports have more of them.
type StreamOption interface{ StreamOption() }

// A MetadataOption sets metadata of a new stream before its first state. It is
// made by WithMetadata, or by the type that a generated file has for a streamtype.
type MetadataOption struct {
	pairs     []string // name, value, name, value
	skipEmpty bool
}

// Format prints the names of the metadata without the values, which may be secret.
func (o MetadataOption) Format(f fmt.State, _ rune) {
	io.WriteString(f, "metadata")
	for i := 0; i < len(o.pairs); i += 2 {
		fmt.Fprintf(f, " %q", o.pairs[i])
	}
}

// CallOption marks a CallOption.
func (MetadataOption) CallOption() {}

// StreamOption marks a StreamOption.
func (MetadataOption) StreamOption() {}

// WithMetadata sets the metadata item of that name.
func WithMetadata(name, value string) MetadataOption {
	return MetadataOption{pairs: []string{name, value}}
}

// WithFields sets metadata items given as name, value, name, value. An empty
// value is not set. It is for generated files.
func WithFields(pairs ...string) MetadataOption {
	return MetadataOption{pairs: pairs, skipEmpty: true}
}

// settings are the options of this package that are not metadata.
type settings struct {
	credit       *transport.Credit
	hooksContext context.Context
	listen       *listenSettings // of a new listener
}

// A streamOption sets something of a new stream.
type streamOption func(*settings)

func (streamOption) StreamOption() {}

// WithPeerTxCredit makes the flow control of a stream manual over h2 and h3: on
// each connection no more than n bytes of payload, at least 1, are delivered
// until AddPeerTxCredit allows more; the text between the parts of a multipart
// response needs no credit. The peer may send ahead of it, over h2 up to 4 KiB and
// over h3 up to 4 MiB. Other protocols ignore it, as in lws, which calls it
// manual_initial_tx_credit.
func WithPeerTxCredit(n uint32) StreamOption {
	return streamOption(func(s *settings) { s.credit = transport.NewCredit(uint64(max(n, 1))) })
}

// WithContext sets the context that [Hooks] get. Fetch and Open set their own.
//
// The attempts of a client call the hooks of its [httptrace.ClientTrace], if it has one:
// for the lookup of names, connections, handshakes of TLS and more, between the states
// CONNECTING and CONNECTED; see [transport.Trace].
func WithContext(ctx context.Context) StreamOption {
	return streamOption(func(s *settings) { s.hooksContext = ctx })
}
