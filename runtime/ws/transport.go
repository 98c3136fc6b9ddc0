// Package ws is the transport for streamtypes whose protocol is ws: WebSocket
// (RFC 6455) over TCP, TLS and unix sockets, by means of
// github.com/coder/websocket.
//
// A stream has a connection of its own. A message goes out as it comes from Tx:
// in one frame if it comes in one piece, else in fragments. What comes in is
// handed to Rx a piece at a time, FlagSOM on the first and FlagEOM on the last;
// no message is ever held as a whole, and there is no limit to its length. A
// program that does not return from Rx slows the peer down.
//
// PING, PONG and CLOSE frames are answered here. When the peer closes,
// [runtime.Stream.Err] is a *CloseError.
package ws

import (
	"fmt"
	"strings"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Transport is a [transport.Transport] for ws. It may be given to any number of
// contexts.
type Transport struct{ deflate websocket.CompressionMode }

// An Option is a setting of a Transport.
type Option func(*Transport)

// WithDeflate offers the server to compress messages (permessage-deflate, RFC
// 7692), each by itself. A stream that sends has need of some 1.2 MB for the
// time of a message. No policy says it, and so it is not done without this.
func WithDeflate() Option {
	return func(t *Transport) { t.deflate = websocket.CompressionNoContextTakeover }
}

// New returns a transport.
func New(o ...Option) *Transport {
	t := new(Transport)
	for _, f := range o {
		f(t)
	}
	return t
}

// Protocols returns ws.
func (t *Transport) Protocols() []policy.Protocol {
	return []policy.Protocol{policy.ProtocolWS}
}

// A connector makes the connections of one streamtype of one context.
type connector struct {
	t            *Transport
	setup        *transport.Setup
	st           *policy.StreamType // of setup
	headers      *request.Set
	subprotocols []string
	kind         websocket.MessageType
}

// Prepare refuses a streamtype that asks for what the package does not do, and
// else returns what executes it.
func (t *Transport) Prepare(setup *transport.Setup) (transport.Connector, error) {
	if err := request.Check(setup); err != nil {
		return nil, err
	}
	st := setup.Stream
	n := &connector{t: t, setup: setup, st: st, kind: websocket.MessageText}
	if st.HTTP.WSBinary {
		n.kind = websocket.MessageBinary
	}
	if s := st.HTTP.WSSubprotocol; s != "" {
		for name := range strings.SplitSeq(s, ",") {
			name = strings.Trim(name, " \t")
			if !policy.IsToken(name) {
				return nil, fmt.Errorf("%w: ws_subprotocol %q: it is to be a name that a header can have, or several with commas", transport.ErrUnsupported, s)
			}
			n.subprotocols = append(n.subprotocols, name)
		}
	}
	var err error
	n.headers, err = request.NewSet(setup, func(name string) bool {
		return strings.HasPrefix(name, "Sec-Websocket-") || name == "Content-Length"
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Close does nothing: a connection belongs to its stream.
func (n *connector) Close() error { return nil }
