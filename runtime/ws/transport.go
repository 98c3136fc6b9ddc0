// Package ws is the transport for streamtypes whose protocol is ws: WebSocket (RFC
// 6455) over TCP, TLS and unix sockets. It uses github.com/coder/websocket.
//
// Each stream has its own connection. A message that Tx returns as one piece is
// sent as one frame, otherwise in fragments. Rx receives a message in pieces, the
// first with FlagSOM and the last with FlagEOM; messages are never buffered as a
// whole and may have any length. The peer has to wait while Rx runs.
//
// With the option [Server], a server streamtype of ws, or of h1 or h2 with
// ws_subprotocol, accepts WebSockets.
//
// The package answers PING and CLOSE frames. After the peer has closed the
// connection, the Err method of the stream returns a *[CloseError].
package ws

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime/internal/httpserver"
	"github.com/secure-streams/sspolicy/runtime/internal/request"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Transport is a [transport.Transport] for ws. Any number of contexts may use it.
type Transport struct {
	deflate   websocket.CompressionMode
	origins   []string
	anyOrigin bool

	// nil: none, see Server
	listen   func(*Transport, *transport.ServerSetup) (transport.Listener, error)
	upgrader func(*Transport, *transport.ServerSetup) (httpserver.Handler, error)
}

// An Option is an option of a [Transport].
type Option func(*Transport)

// WithDeflate offers compression to the server (permessage-deflate, RFC 7692), of
// each message by itself. A stream uses 1.2 MB while it sends a message. Policies
// have no key for compression, so it is off by default.
func WithDeflate() Option {
	return func(t *Transport) { t.deflate = websocket.CompressionNoContextTakeover }
}

// WithOrigins lets pages of other hosts connect to a server. A pattern is one of
// [path.Match] for the host of the page, with its port if it has one, or for scheme
// and host if it contains "://". "*" accepts all. By default, a page can connect
// only to the host that it came from; programs that send no Origin can always
// connect.
func WithOrigins(patterns ...string) Option {
	return func(t *Transport) {
		t.origins = append(t.origins, patterns...)
		t.anyOrigin = t.anyOrigin || slices.Contains(patterns, "*")
	}
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
	server       *transport.ServerSetup // of a server, or nil
	st           *policy.StreamType     // of setup
	headers      *request.Set
	subprotocols []string
	kind         websocket.MessageType
}

// Prepare returns the connector of a streamtype. The error wraps ErrUnsupported or
// names an invalid key.
func (t *Transport) Prepare(setup *transport.Setup) (transport.Connector, error) {
	if err := request.Check(setup); err != nil {
		return nil, err
	}
	n, err := t.newConnector(setup)
	if err != nil {
		return nil, err
	}
	n.headers, err = request.NewSet(setup, func(name string) bool {
		return strings.HasPrefix(name, "Sec-Websocket-") || name == "Content-Length"
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// newConnector returns a connector without the headers of requests.
func (t *Transport) newConnector(setup *transport.Setup) (*connector, error) {
	st := setup.Stream
	n := &connector{t: t, setup: setup, st: st, kind: websocket.MessageText}
	if st.HTTP.WSBinary {
		n.kind = websocket.MessageBinary
	}
	if s := st.HTTP.WSSubprotocol; s != "" {
		for name := range strings.SplitSeq(s, ",") {
			name = strings.Trim(name, " \t")
			if !policy.IsToken(name) {
				return nil, fmt.Errorf("%w: ws_subprotocol %q: it must be a token, or several separated by commas", transport.ErrUnsupported, s)
			}
			n.subprotocols = append(n.subprotocols, name)
		}
	}
	return n, nil
}

// Close does nothing: a connection belongs to its stream.
func (n *connector) Close() error { return nil }
