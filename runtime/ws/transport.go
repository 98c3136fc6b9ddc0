// Package ws is the transport for streamtypes whose protocol is ws: WebSocket
// (RFC 6455) over TCP, TLS and unix sockets. It is built on
// github.com/coder/websocket.
//
// Each stream has its own connection. A message that Tx returns as one piece is
// sent as one frame, otherwise in fragments. Rx gets a message in pieces, the first
// with FlagSOM and the last with FlagEOM; messages are never held as a whole and
// may have any length. While Rx does not return, the peer has to wait.
//
// With the option Server, a server streamtype of ws, or of h1 or h2 with
// ws_subprotocol, accepts WebSockets.
//
// The package answers PING and CLOSE frames. After the peer has closed the
// connection, the Err method of the stream returns a *CloseError.
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

// Transport is a [transport.Transport] for ws. It may be given to any number of
// contexts.
type Transport struct {
	deflate   websocket.CompressionMode
	origins   []string
	anyOrigin bool

	// nil: none, see Server
	listen   func(*Transport, *transport.ServerSetup) (transport.Listener, error)
	upgrader func(*Transport, *transport.ServerSetup) (httpserver.Handler, error)
}

// An Option is a setting of a Transport.
type Option func(*Transport)

// WithDeflate offers compression to the server (permessage-deflate, RFC 7692), of
// each message by itself. While a stream sends a message, it uses 1.2 MB. Policies
// have no key for compression, so it is off without this option.
func WithDeflate() Option {
	return func(t *Transport) { t.deflate = websocket.CompressionNoContextTakeover }
}

// WithOrigins lets pages of other hosts connect to a server. A pattern is that of
// [path.Match] for the host of the page with its port, if it has one, or with
// "://" for scheme and host. "*" accepts all. Without this option, a page can connect
// only to the host that it came from, and programs that send no Origin to any.
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

// Prepare returns the connector of a streamtype. An error wraps ErrUnsupported or
// names the key that is not valid.
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
