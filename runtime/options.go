package runtime

import (
	"context"
	"fmt"
	"io"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A CallOption is an option of [Context.Fetch] and [Context.Open].
type CallOption interface{ CallOption() }

// A StreamOption is an option of [Context.NewStream]. Most are CallOptions too. The
// transport packages define more.
type StreamOption interface{ StreamOption() }

// A MetadataOption sets metadata of a new stream before its first state.
// [WithMetadata], or the type that a generated file has for a streamtype, makes it.
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

// CallOption marks o as a [CallOption].
func (MetadataOption) CallOption() {}

// StreamOption marks o as a [StreamOption].
func (MetadataOption) StreamOption() {}

// WithMetadata sets the metadata item of that name.
func WithMetadata(name, value string) MetadataOption {
	return MetadataOption{pairs: []string{name, value}}
}

// WithFields sets metadata items from pairs of name and value. It ignores empty
// values. It is for generated files.
func WithFields(pairs ...string) MetadataOption {
	return MetadataOption{pairs: pairs, skipEmpty: true}
}

// settings holds the options of this package other than metadata.
type settings struct {
	credit       *transport.Credit
	hooksContext context.Context
}

// A streamOption is an option of a new stream.
type streamOption func(*settings)

func (streamOption) StreamOption() {}

// WithPeerTxCredit makes the flow control of a stream manual over h2 and h3. On
// each connection at most n bytes of payload, at least 1, are delivered until
// AddPeerTxCredit allows more; the text between the parts of a multipart response
// needs no credit. The peer may send up to 4 KiB (h2) or 4 MiB (h3) ahead of its
// credit. Other protocols ignore it, as in lws, which calls it
// manual_initial_tx_credit.
func WithPeerTxCredit(n uint32) StreamOption {
	return streamOption(func(s *settings) { s.credit = transport.NewCredit(uint64(max(n, 1))) })
}

// WithContext sets the context that [Hooks] receive. Fetch and Open set their own.
//
// The attempts of a client call the hooks of its [httptrace.ClientTrace], if it has
// one: for name lookups, connections, TLS handshakes and more, between the states
// CONNECTING and CONNECTED; see [transport.Trace].
func WithContext(ctx context.Context) StreamOption {
	return streamOption(func(s *settings) { s.hooksContext = ctx })
}
