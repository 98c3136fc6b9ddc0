// Package mqtt is the transport for streamtypes whose protocol is mqtt: a client of
// MQTT 3.1.1 over TCP, TLS and unix sockets.
//
// Streams of a context share a connection if they have the same host and port,
// proxy, trust, client certificate, client id, user name, keep alive, clean start
// and will. Each stream has one goroutine, that of Run. A connection has two: one
// reads, and one writes the answers.
//
// This package has its own code for packets (packet.go). The existing libraries
// (paho.mqtt.golang 1.5, mqtt-go 0.19) hold whole payloads in memory, have one user
// per connection, call handlers under locks that block the connection, and repeat
// messages only on the next connection. With them it is not possible to pass
// payload in pieces, to share connections, or to repeat and give up messages at the
// times of lws.
//
// Files: hub.go finds or makes the connection of a stream; conn.go, read.go,
// writer.go and liveness.go implement the connection; session.go, subscribe.go and
// shadow.go hold the state that outlives packets; stream.go, receive.go and send.go
// implement a stream.
package mqtt

import (
	"cmp"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// alpn is the protocol that a TLS handshake offers, as in lws 5.0.0
// (lib/secure-streams/protocols/ss-mqtt.c). Servers without ALPN ignore it.
const alpn = "x-amzn-mqtt-ca"

// Options configure a [Transport]. The zero value is ready to use.
type Options struct {
	// ResendAfter is how long a message may be unacknowledged before it is resent.
	// It is given up after four times as long. 0 means 3 s, as in lws.
	ResendAfter time.Duration
}

// Transport is a [transport.Transport] for mqtt. Any number of contexts may use it.
type Transport struct {
	resendAfter time.Duration

	mu   sync.Mutex
	hubs map[hubKey]*hub
}

// New returns a transport.
func New() *Transport { return NewWith(Options{}) }

// NewWith returns a transport with options.
func NewWith(o Options) *Transport {
	return &Transport{resendAfter: cmp.Or(o.ResendAfter, resendAfter), hubs: make(map[hubKey]*hub)}
}

// Protocols returns mqtt.
func (t *Transport) Protocols() []policy.Protocol {
	return []policy.Protocol{policy.ProtocolMQTT}
}
