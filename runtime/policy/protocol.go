package policy

import "strconv"

// A Protocol is the protocol between a stream and its peer.
type Protocol uint8

// The protocols. A policy can name those up to ProtocolRaw; the others are carriers
// of streams that use no network, see StreamType.Carrier. The numbers are
// sspolicy's own, since those of lws differ between releases.
const (
	ProtocolH1 Protocol = iota
	ProtocolH2
	ProtocolH3
	ProtocolWS
	ProtocolMQTT // MQTT 3.1.1
	ProtocolRaw
	ProtocolFile // an endpoint that begins with file://
	ProtocolSink // local_sink
	ProtocolSMD  // the built-in streamtype _lws_smd
	// ProtocolProxied is for streams that a proxy executes and whose protocol only
	// the proxy knows.
	ProtocolProxied

	numProtocols
)

// A protocol is a row of the table of protocols.
type protocol struct {
	name     string // in a policy, or in messages
	constant string // the name of its constant
	dir      string // folder in runtime/ of its transport
	http     bool   // one request and one response
	messages bool   // any number of messages on a connection
	acks     bool   // the peer acknowledges each message
	port     uint16 // the default port; 0 means none
	tlsPort  uint16 // the default port with TLS
}

// protocols is the table of protocols.
var protocols = [numProtocols]protocol{
	ProtocolH1:   {"h1", "ProtocolH1", "http", true, false, false, 80, 443},
	ProtocolH2:   {"h2", "ProtocolH2", "http", true, false, false, 80, 443},
	ProtocolH3:   {"h3", "ProtocolH3", "h3", true, false, false, 80, 443},
	ProtocolWS:   {"ws", "ProtocolWS", "ws", false, true, false, 80, 443},
	ProtocolMQTT: {"mqtt", "ProtocolMQTT", "mqtt", false, true, true, 1883, 8883},
	ProtocolRaw:  {"raw", "ProtocolRaw", "raw", false, false, false, 0, 0},
	ProtocolFile: {"file", "ProtocolFile", "file", false, false, false, 0, 0},
	ProtocolSink: {"local_sink", "ProtocolSink", "sink", false, true, false, 0, 0},
	ProtocolSMD:  {"_lws_smd", "ProtocolSMD", "smd", false, true, false, 0, 0},

	ProtocolProxied: {"proxied", "ProtocolProxied", "sspc", false, true, false, 0, 0},
}

// NumProtocols is the number of protocols, which are 0 to NumProtocols-1.
const NumProtocols = int(numProtocols)

// row returns the row of p. The row of an unknown protocol has only a name.
func (p Protocol) row() protocol {
	if int(p) < len(protocols) {
		return protocols[p]
	}
	return protocol{name: "protocol(" + strconv.Itoa(int(p)) + ")"}
}

// String returns the name of p in a policy, or in messages if no policy can name
// it.
func (p Protocol) String() string { return p.row().name }

// Constant returns the name of the Go constant of p, such as "ProtocolH1", or "" if p
// is unknown.
func (p Protocol) Constant() string { return p.row().constant }

// Dir returns the directory under runtime/ of the transport of p, such as "http",
// or "" if p is unknown.
func (p Protocol) Dir() string { return p.row().dir }

// IsHTTP reports whether p is h1, h2 or h3. A connection of a stream is then one
// request and its response. See also [StreamType.IsHTTP].
func (p Protocol) IsHTTP() bool { return p.row().http }

// HasMessages reports whether a connection carries any number of messages, each with
// a start and an end.
func (p Protocol) HasMessages() bool { return p.row().messages }

// Acknowledges reports whether the peer acknowledges each message.
func (p Protocol) Acknowledges() bool { return p.row().acks }

// DefaultPort returns the default port of p, with or without TLS, or 0 if it has
// none.
func (p Protocol) DefaultPort(secure bool) uint16 {
	if secure {
		return p.row().tlsPort
	}
	return p.row().port
}

// Named reports whether a policy can name p.
func (p Protocol) Named() bool { return p < ProtocolFile }

// ParseProtocol returns the protocol that has a name in a policy, and whether there
// is one. Case matters, as in lws.
func ParseProtocol(name string) (Protocol, bool) {
	for p := Protocol(0); p.Named(); p++ {
		if p.String() == name {
			return p, true
		}
	}
	return 0, false
}
