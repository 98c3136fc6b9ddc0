// Package mqtt is the transport for streamtypes whose protocol is mqtt: a client
// of MQTT 3.1.1 over TCP, TLS and unix sockets.
//
// Streams of a context share one connection if they have the same host and port,
// proxy, trust, client certificate, client id, user name, keep alive, clean start
// and will. Each stream has one goroutine, the one of Run. A connection has two: one
// reads, and one writes the answers to what was read.
//
// This package has its own code for packets (packet.go). The existing libraries
// (paho.mqtt.golang 1.5, mqtt-go 0.19) hold whole payloads in memory, have one user
// for a connection, call handlers under locks that block the connection, and repeat
// messages only on the next connection. They leave no way to pass payload in pieces,
// to share connections, or to repeat and give up messages after the times of lws.
//
// Files: hub.go finds or makes the connection of a stream; conn.go, read.go,
// writer.go and liveness.go are the connection; session.go, subscribe.go and
// shadow.go hold the state that outlives packets; stream.go, receive.go and send.go
// are a stream.
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

// Options are the settings of a transport.
type Options struct {
	// ResendAfter is how long a message may stay without an acknowledgement before it
	// is sent again. It is given up after four times as long. 0 means 3 s, as in lws.
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
