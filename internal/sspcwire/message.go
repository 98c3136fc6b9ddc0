package sspcwire

import (
	"encoding/binary"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A StreamType is the body of STREAMTYPE, which opens a link.
type StreamType struct {
	PID uint32
	// Credit is the initial credit of the peer in bytes, 0 for the default. For _lws_smd it
	// is the mask of classes.
	Credit uint32
	Name   string
}

// DefaultCredit is the credit of a client of lws that sets none.
const DefaultCredit = 500_000_000

// StreamType decodes the body of STREAMTYPE.
func (f Frame) StreamType() (StreamType, error) {
	if f.Body[0] != Version {
		return StreamType{}, &Error{f.Type, ErrVersion}
	}
	return StreamType{
		PID:    binary.BigEndian.Uint32(f.Body[1:]),
		Credit: binary.BigEndian.Uint32(f.Body[5:]),
		Name:   string(f.Body[9:]),
	}, nil
}

// AppendStreamType appends a STREAMTYPE to b.
func AppendStreamType(b []byte, s StreamType) ([]byte, error) {
	if s.Name == "" || len(s.Name) > MaxStreamType {
		return b, &Error{TypeStreamType, ErrName}
	}
	b = appendHeader(b, TypeStreamType, 9+len(s.Name))
	b = append(b, Version)
	b = binary.BigEndian.AppendUint32(b, s.PID)
	b = binary.BigEndian.AppendUint32(b, s.Credit)
	return append(b, s.Name...), nil
}

// hello is the body of a PERF from the client. Proxies of lws ignore PERF (observed in
// 4.3.10 and 5.0.0).
const hello = "sspolicy 1"

// AppendHello appends the frame that announces a client of this module to a proxy, before
// STREAMTYPE. Such a client accepts payload frames of any length, and REPORT.
func AppendHello(b []byte) []byte { return append(appendHeader(b, TypePerf, len(hello)), hello...) }

// IsHello reports whether the frame is one of AppendHello.
func (f Frame) IsHello() bool { return f.Type == TypePerf && string(f.Body) == hello }

// A CreateResult is the body of CREATE_RESULT, the answer to STREAMTYPE.
type CreateResult struct {
	// Failure is 0 if the stream exists.
	Failure uint8
	// Buffer is the policy's client_buflen, 0 for the default of the client.
	Buffer uint32
	// Rideshares are the streamtypes that share a request, beginning with the stream's own.
	Rideshares []string
}

// CreateResult decodes the body of CREATE_RESULT.
func (f Frame) CreateResult() (CreateResult, error) {
	r := CreateResult{Failure: f.Body[0]}
	if len(f.Body) < 5 {
		if r.Failure == 0 {
			return r, &Error{f.Type, ErrLength}
		}
		return r, nil
	}
	r.Buffer = binary.BigEndian.Uint32(f.Body[1:])
	// lws writes a comma before each name.
	for name := range strings.SplitSeq(string(f.Body[5:]), ",") {
		if name != "" {
			r.Rideshares = append(r.Rideshares, name)
		}
	}
	return r, nil
}

// AppendCreateResult appends a CREATE_RESULT to b, with as many rideshares as the client of
// lws accepts.
func AppendCreateResult(b []byte, r CreateResult) []byte {
	var list []byte
	for i, name := range r.Rideshares {
		if i == MaxRideshares || len(list)+1+len(name) > maxRideshareList {
			break
		}
		list = append(append(list, ','), name...)
	}
	b = appendHeader(b, TypeCreateResult, 5+len(list))
	b = append(b, r.Failure)
	b = binary.BigEndian.AppendUint32(b, r.Buffer)
	return append(b, list...)
}

// ConnState decodes the body of CONNSTATE: a state of the onward stream, and its argument.
func (f Frame) ConnState() (s policy.State, arg uint32, err error) {
	width := len(f.Body) - 4
	var n uint32
	for _, c := range f.Body[:width] {
		n = n<<8 | uint32(c)
	}
	s = policy.State(n)
	if s == 0 || uint32(s) != n {
		return 0, 0, &Error{f.Type, ErrState}
	}
	return s, binary.BigEndian.Uint32(f.Body[width:]), nil
}

// AppendConnState appends a CONNSTATE to b, in one of the two widths that lws writes.
func AppendConnState(b []byte, s policy.State, arg uint32) []byte {
	if s <= 0xff {
		b = append(appendHeader(b, TypeConnState, 5), byte(s))
	} else {
		b = binary.BigEndian.AppendUint32(appendHeader(b, TypeConnState, 8), uint32(s))
	}
	return binary.BigEndian.AppendUint32(b, arg)
}

// Credit decodes the body of TXCR_UPDATE: the number of further bytes that may be sent.
func (f Frame) Credit() int32 { return int32(binary.BigEndian.Uint32(f.Body)) }

// AppendCredit appends a TXCR_UPDATE to b.
func AppendCredit(b []byte, d Direction, n int32) []byte {
	return appendUint32(b, pick(d, TypeTxCredit, TypeRxCredit), uint32(n))
}

// TimeoutPolicy and TimeoutCancel are special values of TIMEOUT_UPDATE: the timeout_ms
// of the policy, and no timeout.
const (
	TimeoutPolicy = 0
	TimeoutCancel = 0xffffffff
)

// Timeout decodes the body of TIMEOUT_UPDATE, in milliseconds.
func (f Frame) Timeout() uint32 { return binary.BigEndian.Uint32(f.Body) }

// AppendTimeout appends a TIMEOUT_UPDATE to b.
func AppendTimeout(b []byte, ms uint32) []byte { return appendUint32(b, TypeTimeout, ms) }

// LengthHint decodes the body of PAYLOAD_LENGTH_HINT.
func (f Frame) LengthHint() uint32 { return binary.BigEndian.Uint32(f.Body) }

// AppendLengthHint appends a PAYLOAD_LENGTH_HINT to b.
func AppendLengthHint(b []byte, n uint32) []byte { return appendUint32(b, TypeLengthHint, n) }

// AppendConnect appends an ONWARD_CONNECT to b.
func AppendConnect(b []byte) []byte { return appendHeader(b, TypeConnect, 0) }

// Metadata decodes the body of METADATA. The value may be empty, although the receivers of
// lws close the link then. It aliases the frame.
func (f Frame) Metadata() (name string, value []byte, err error) {
	n := int(f.Body[0])
	if n == 0 || n > MaxMetadataName {
		return "", nil, &Error{f.Type, ErrName}
	}
	if 1+n > len(f.Body) {
		return "", nil, &Error{f.Type, ErrLength}
	}
	return string(f.Body[1 : 1+n]), f.Body[1+n:], nil
}

// AppendMetadata appends a METADATA to b. It refuses an empty value, at which lws
// closes the link.
func AppendMetadata(b []byte, d Direction, name, value string) ([]byte, error) {
	t := pick(d, TypeTxMetadata, TypeRxMetadata)
	if name == "" || len(name) > MaxMetadataName {
		return b, &Error{t, ErrName}
	}
	if value == "" || 1+len(name)+len(value) > 0xffff {
		return b, &Error{t, ErrValue}
	}
	b = append(appendHeader(b, t, 1+len(name)+len(value)), byte(len(name)))
	return append(append(b, name...), value...), nil
}

// AppendPerf appends a PERF to b.
func AppendPerf(b, json []byte) ([]byte, error) {
	if len(json) == 0 || len(json) > 0xffff {
		return b, &Error{TypePerf, ErrValue}
	}
	return append(appendHeader(b, TypePerf, len(json)), json...), nil
}

// payloadFlags are the payload flags with a bit in lws.
const payloadFlags = policy.FlagSOM | policy.FlagEOM | policy.FlagPoll | policy.FlagRelatedStart |
	policy.FlagRelatedEnd | policy.FlagRideshare | policy.FlagPerfJSON

// A Payload is the body of RX_PAYLOAD and TX_PAYLOAD.
type Payload struct {
	// Flags are those defined by lws. FlagRideshare is set if Rideshare is not empty.
	Flags policy.Flags
	// Waited is how long the sender has held the payload, in microseconds, and Time when it
	// sent it, by its own clock. lws sets them incorrectly and ignores them.
	Waited    uint32
	Time      uint64
	Rideshare string // the streamtype of the payload, or ""
	Data      []byte
}

// Payload decodes the body of RX_PAYLOAD or TX_PAYLOAD. Data aliases the frame.
func (f Frame) Payload() (Payload, error) {
	p := Payload{
		Flags:  policy.Flags(binary.BigEndian.Uint32(f.Body)) & payloadFlags,
		Waited: binary.BigEndian.Uint32(f.Body[4:]),
		Time:   binary.BigEndian.Uint64(f.Body[8:]),
		Data:   f.Body[payloadHeader:],
	}
	if p.Flags&policy.FlagRideshare == 0 {
		return p, nil
	}
	if len(p.Data) == 0 {
		return Payload{}, &Error{f.Type, ErrLength}
	}
	n := int(p.Data[0])
	switch {
	case n == 0 || n > MaxRideshare:
		return Payload{}, &Error{f.Type, ErrName}
	case 1+n > len(p.Data):
		return Payload{}, &Error{f.Type, ErrLength}
	}
	p.Rideshare, p.Data = string(p.Data[1:1+n]), p.Data[1+n:]
	return p, nil
}

// AppendPayload appends an RX_PAYLOAD or TX_PAYLOAD to b.
func AppendPayload(b []byte, d Direction, p Payload) ([]byte, error) {
	t, n := pick(d, TypeTx, TypeRx), payloadHeader+len(p.Data)
	p.Flags &= payloadFlags &^ policy.FlagRideshare
	if p.Rideshare != "" {
		p.Flags |= policy.FlagRideshare
		n += 1 + len(p.Rideshare)
	}
	switch {
	case len(p.Rideshare) > MaxRideshare:
		return b, &Error{t, ErrName}
	case n > 0xffff:
		return b, &Error{t, ErrLength}
	}
	b = appendHeader(b, t, n)
	b = binary.BigEndian.AppendUint32(b, uint32(p.Flags))
	b = binary.BigEndian.AppendUint32(b, p.Waited)
	b = binary.BigEndian.AppendUint64(b, p.Time)
	if p.Rideshare != "" {
		b = append(append(b, byte(len(p.Rideshare))), p.Rideshare...)
	}
	return append(b, p.Data...), nil
}

func pick(d Direction, toProxy, fromProxy Type) Type {
	if d == FromProxy {
		return fromProxy
	}
	return toProxy
}

func appendHeader(b []byte, t Type, n int) []byte {
	return append(b, byte(t), byte(n>>8), byte(n))
}

func appendUint32(b []byte, t Type, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(b, t, 4), n)
}
