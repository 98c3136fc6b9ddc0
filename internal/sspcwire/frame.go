package sspcwire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Direction is the direction of the frames of a link.
type Direction uint8

// Directions.
const (
	ToProxy Direction = iota
	FromProxy
)

// String returns "to proxy" or "from proxy".
func (d Direction) String() string {
	if d == FromProxy {
		return "from proxy"
	}
	return "to proxy"
}

// A Type is the first byte of a frame.
type Type byte

// Types of frames.
const (
	// From the proxy.
	TypeRx           Type = 0x55 // payload for the client
	TypeCreateResult Type = 0x56 // the answer to STREAMTYPE
	TypeConnState    Type = 0x57 // a state of the onward stream
	TypeRxCredit     Type = 0x58 // the client may send more
	TypeRxMetadata   Type = 0x59 // metadata from the peer
	TypePerf         Type = 0x5b // performance figures, as JSON
	TypeReport       Type = 0x5f // of this module, for clients that have sent a hello

	// From the client.
	TypeStreamType Type = 0xaa // opens the link
	TypeConnect    Type = 0xab // connect the onward stream
	TypeTx         Type = 0xad // payload for the peer
	TypeTxMetadata Type = 0xae // metadata for the request
	TypeTxCredit   Type = 0xaf // the peer may send more
	TypeTimeout    Type = 0xb0 // start or cancel the timer of the stream
	TypeLengthHint Type = 0xb1 // the length of the payload that follows
)

var typeNames = map[Type]string{
	TypeRx: "RX_PAYLOAD", TypeCreateResult: "CREATE_RESULT", TypeConnState: "CONNSTATE",
	TypeRxCredit: "TXCR_UPDATE", TypeRxMetadata: "METADATA", TypePerf: "PERF", TypeReport: "REPORT",
	TypeStreamType: "STREAMTYPE", TypeConnect: "ONWARD_CONNECT", TypeTx: "TX_PAYLOAD",
	TypeTxMetadata: "METADATA", TypeTxCredit: "TXCR_UPDATE", TypeTimeout: "TIMEOUT_UPDATE",
	TypeLengthHint: "PAYLOAD_LENGTH_HINT",
}

// String returns the name of the type in lws, or its number.
func (t Type) String() string {
	if s := typeNames[t]; s != "" {
		return s
	}
	return fmt.Sprintf("type %#02x", byte(t))
}

// Limits of the protocol and of lws's parsers.
const (
	Version = 1 // the only version of the protocol

	MaxStreamType    = 31  // bytes in the name of a streamtype
	MaxMetadataName  = 30  // bytes in the name of a metadata item
	MaxRideshare     = 31  // bytes in the rideshare name of a payload frame
	MaxRideshares    = 3   // names in CREATE_RESULT
	maxRideshareList = 127 // bytes in the list of CREATE_RESULT

	header        = 3
	payloadHeader = 16

	// MaxFrame is the size of the largest frame.
	MaxFrame = header + 0xffff
	// MaxPayload is the maximum payload of a frame, in bytes.
	MaxPayload = 0xffff - payloadHeader
	// PayloadOverhead is the size of a payload frame without payload.
	PayloadOverhead = header + payloadHeader
	// MaxLWSPayload is the longest payload that lws delivers to its program in one piece.
	// It splits longer ones, and sets the flags of the whole on every piece.
	MaxLWSPayload = 1380
	// MaxOwnPayload is the maximum payload of a frame between ends of this module, in
	// bytes.
	MaxOwnPayload = 16 << 10
	// OwnBatch is the maximum number of bytes that this module reads or writes at a time.
	OwnBatch = 4 * (PayloadOverhead + MaxOwnPayload)
	// MaxReport is the maximum size of the body of a REPORT, in bytes.
	MaxReport = 1024
)

// A Rule is a rule that a frame breaks. Rules are targets of errors.Is for an [Error].
type Rule string

// Error returns the text of the rule.
func (r Rule) Error() string { return string(r) }

// Rules.
const (
	ErrUnknownType Rule = "unknown frame type"
	ErrUnexpected  Rule = "frame is not allowed in this state of the link"
	ErrLength      Rule = "wrong length"
	ErrVersion     Rule = "unsupported protocol version"
	ErrName        Rule = "empty name, or name too long"
	ErrValue       Rule = "empty value, or value too long"
	ErrState       Rule = "state out of range"
)

// An Error reports a frame that breaks a rule of the protocol. The link must be closed.
type Error struct {
	Type Type
	Rule Rule
}

func (e *Error) Error() string { return "sspolicy: sspc: " + e.Type.String() + ": " + string(e.Rule) }

// Unwrap returns the rule.
func (e *Error) Unwrap() error { return e.Rule }

// ErrTruncated is returned when a link ends within a frame.
var ErrTruncated = errors.New("sspolicy: sspc: link ended within a frame")

// A Frame is a frame with a valid type and length. Body aliases the memory that it was read
// from.
type Frame struct {
	Type Type
	Body []byte
}

// A shape is what a receiver checks before the body of a frame has arrived.
type shape struct {
	known    bool
	min, max uint16 // length of the body
	// early marks frames that are allowed before STREAMTYPE or CREATE_RESULT.
	early bool
}

// shapes describes the frames of each direction.
var shapes = [2][256]shape{
	ToProxy: {
		TypeStreamType: {known: true, min: 10, max: 9 + MaxStreamType, early: true},
		TypeConnect:    {known: true, max: 0xffff},
		TypeTx:         {known: true, min: payloadHeader, max: 0xffff},
		TypeTxMetadata: {known: true, min: 2, max: 0xffff},
		// The proxy of lws parses and ignores these before STREAMTYPE, and PERF always.
		TypeTxCredit:   {known: true, min: 4, max: 4, early: true},
		TypeTimeout:    {known: true, min: 4, max: 4, early: true},
		TypeLengthHint: {known: true, min: 4, max: 4, early: true},
		TypePerf:       {known: true, max: 0xffff, early: true},
	},
	FromProxy: {
		TypeCreateResult: {known: true, min: 1, max: 5 + maxRideshareList, early: true},
		TypeRx:           {known: true, min: payloadHeader, max: 0xffff},
		TypeConnState:    {known: true, min: 5, max: 8},
		TypeRxMetadata:   {known: true, min: 2, max: 0xffff, early: true},
		TypeRxCredit:     {known: true, min: 4, max: 4, early: true},
		// The client of lws accepts this one as credit too.
		TypeTxCredit: {known: true, min: 4, max: 4, early: true},
		TypePerf:     {known: true, min: 1, max: 0xffff, early: true},
		TypeReport:   {known: true, min: 1, max: MaxReport, early: true},
	},
}

// A Decoder splits bytes into the frames of one direction.
type Decoder struct {
	direction Direction
	opened    bool // STREAMTYPE or CREATE_RESULT has been decoded
}

// NewDecoder returns a Decoder for the frames of a new link.
func NewDecoder(d Direction) Decoder { return Decoder{direction: d} }

// opens reports whether a frame of type t opens its direction.
func opens(t Type) bool { return t == TypeStreamType || t == TypeCreateResult }

// Next returns the first frame of b and its size n. n is 0 if the frame is incomplete. The
// error is an *Error; Next may return it before the frame is complete.
func (d *Decoder) Next(b []byte) (f Frame, n int, err error) {
	n, err = d.size(b)
	if err != nil || n > len(b) {
		return Frame{}, 0, err
	}
	f = Frame{Type(b[0]), b[header:n:n]}
	d.opened = d.opened || opens(f.Type)
	return f, n, nil
}

// size returns the size of the first frame of b, or the size of a header if b is shorter.
func (d *Decoder) size(b []byte) (int, error) {
	if len(b) == 0 {
		return header, nil
	}
	t := Type(b[0])
	s := &shapes[d.direction][t]
	if !s.known {
		return 0, &Error{t, ErrUnknownType}
	}
	if d.opened && opens(t) || !d.opened && !s.early {
		return 0, &Error{t, ErrUnexpected}
	}
	if len(b) < header || t == TypeConnect {
		return header, nil // lws ignores the length of a frame without a body
	}
	l := binary.BigEndian.Uint16(b[1:])
	if l < s.min || l > s.max {
		return 0, &Error{t, ErrLength}
	}
	return header + int(l), nil
}
