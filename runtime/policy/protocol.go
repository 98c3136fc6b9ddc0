package policy

import "strconv"

// A Protocol is what a stream speaks to its peer.
type Protocol uint8

// The protocols that a policy can name. The numbers are sspolicy's own: those
// of lws differ between releases.
const (
	ProtocolH1 Protocol = iota
	ProtocolH2
	ProtocolH3
	ProtocolWS
	ProtocolMQTT // MQTT 3.1.1
	ProtocolRaw

	// The carriers of streams that use no network; see StreamType.Carrier. No
	// policy can name them.

	ProtocolFile // an endpoint that begins with file://
	ProtocolSink // local_sink
	ProtocolSMD  // the built-in streamtype _lws_smd

	numProtocols
)

// A protocol is a row of the table of protocols.
type protocol struct {
	name     string // in a policy, or in messages
	constant string // the name of its constant
	dir      string // the folder in runtime/ of the transport that speaks it
	http     bool   // one request and one response
	messages bool   // any number of messages on a connection
	port     uint16 // the default port; 0 means none
	tlsPort  uint16 // the default port with TLS
}

// protocols is the only list of protocols.
var protocols = [numProtocols]protocol{
	ProtocolH1:   {"h1", "ProtocolH1", "http", true, false, 80, 443},
	ProtocolH2:   {"h2", "ProtocolH2", "http", true, false, 80, 443},
	ProtocolH3:   {"h3", "ProtocolH3", "h3", true, false, 80, 443},
	ProtocolWS:   {"ws", "ProtocolWS", "ws", false, true, 80, 443},
	ProtocolMQTT: {"mqtt", "ProtocolMQTT", "mqtt", false, true, 1883, 8883},
	ProtocolRaw:  {"raw", "ProtocolRaw", "raw", false, false, 0, 0},
	ProtocolFile: {"file", "ProtocolFile", "file", false, false, 0, 0},
	ProtocolSink: {"local_sink", "ProtocolSink", "sink", false, true, 0, 0},
	ProtocolSMD:  {"_lws_smd", "ProtocolSMD", "smd", false, true, 0, 0},
}

// NumProtocols is the number of protocols; each is less than it.
const NumProtocols = int(numProtocols)

// row returns the row of p, or one that is empty.
func (p Protocol) row() protocol {
	if int(p) < len(protocols) {
		return protocols[p]
	}
	return protocol{name: "protocol(" + strconv.Itoa(int(p)) + ")"}
}

// String returns the protocol's name in a policy.
func (p Protocol) String() string { return p.row().name }

// Constant returns the name of the Go constant of p, such as "ProtocolH1".
func (p Protocol) Constant() string { return p.row().constant }

// Dir returns the folder in runtime/ of the transport that speaks p, such as
// "http"; it is empty if p is unknown.
func (p Protocol) Dir() string { return p.row().dir }

// IsHTTP reports whether p is h1, h2 or h3: a connection of a stream is one
// request and its response.
func (p Protocol) IsHTTP() bool { return p.row().http }

// HasMessages reports whether a connection carries any number of messages.
func (p Protocol) HasMessages() bool { return p.row().messages }

// DefaultPort returns the port of an endpoint that has none; 0 means that the
// protocol has no default.
func (p Protocol) DefaultPort(tls bool) uint16 {
	if tls {
		return p.row().tlsPort
	}
	return p.row().port
}

// Named reports whether a policy can name p.
func (p Protocol) Named() bool { return p <= ProtocolRaw }

// ParseProtocol returns the protocol with this name in a policy. The match is
// exact, as in lws.
func ParseProtocol(name string) (Protocol, bool) {
	for p := Protocol(0); p.Named(); p++ {
		if p.String() == name {
			return p, true
		}
	}
	return 0, false
}
