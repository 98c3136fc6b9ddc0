package smd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// StreamType is the name of the streamtype whose streams send and receive the
// messages of an SMD. Contexts with an SMD have it in addition to those of the
// policy. Its streams are connected when NewStream returns.
//
// Each piece of payload is a message: a header of 16 bytes, followed by the payload
// of the message. The header is the class, and the time of Send in microseconds
// since 1970, both as 8 bytes in big-endian order. In a piece from Tx the time is
// ignored; a piece without a complete header is dropped.
const StreamType = "_lws_smd"

// headerSize is the size of the header before a payload, in bytes.
const headerSize = 16

// Protocols returns policy.ProtocolSMD.
func (d *SMD) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolSMD} }

// StreamTypes implements transport.StreamTyper: it returns StreamType.
func (d *SMD) StreamTypes() []*policy.StreamType {
	return []*policy.StreamType{{Name: StreamType, Protocol: policy.ProtocolSMD, NailedUp: true, Opportunistic: true}}
}

// Prepare implements transport.Transport.
func (d *SMD) Prepare(*transport.Setup) (transport.Connector, error) { return connector{d}, nil }

// PolicyChanged implements transport.PolicyObserver: it sends the message of lws 5.0.0
// for a new policy (lib/secure-streams/policy-common.c), of ClassSystemState.
func (d *SMD) PolicyChanged() {
	_ = d.Send(ClassSystemState, fmt.Appendf(nil, `{"policy":"updated","ts":%d}`, time.Now().Unix()))
}

// WithClasses sets the classes of messages that a stream of StreamType receives. By
// default it receives none.
func WithClasses(mask Class) transport.Option {
	return transport.Option{Protocol: policy.ProtocolSMD, Data: func() any { return &subscription{mask: mask} }}
}

// A subscription is the data that the transport keeps with a stream.
type subscription struct {
	mask     Class
	listener *Listener      // of the connection
	link     transport.Link // that Open has connected
}

// A connector executes StreamType.
type connector struct{ d *SMD }

// Open implements transport.Opener.
func (c connector) Open(l transport.Link) error {
	s := subscriptionOf(l)
	s.listener = c.d.add(&Listener{smd: c.d, mask: s.mask, wake: make(chan struct{}, 1)})
	err := l.Connected()
	if err != nil {
		s.listener.Close()
		return err
	}
	s.link = l
	return nil
}

// subscriptionOf returns the subscription of a stream.
func subscriptionOf(l transport.Link) *subscription {
	return l.Data(func() any { return new(subscription) }).(*subscription)
}

// Run passes messages to and from the stream.
func (c connector) Run(ctx context.Context, l transport.Link) error {
	s := subscriptionOf(l)
	if s.link != l {
		if err := c.Open(l); err != nil {
			return err
		}
	}
	listener, ready := s.listener, l.Ready()
	defer func() {
		s.link = nil
		listener.Close()
	}()
	buf := make([]byte, headerSize+MaxPayload)
	for {
		if m, ok := listener.next(); ok {
			binary.BigEndian.PutUint64(buf, uint64(m.Class))
			binary.BigEndian.PutUint64(buf[8:], uint64(m.Time.UnixMicro()))
			n := copy(buf[headerSize:], m.Payload)
			if err := l.Rx(buf[:headerSize+n], policy.FlagSOM|policy.FlagEOM); err != nil {
				return err
			}
			select {
			case <-ready:
			default:
				continue
			}
		} else {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-listener.wake:
				continue
			case <-ready:
			}
		}
		piece, err := l.Tx(buf)
		if err != nil {
			return err
		}
		c.transmit(buf[:piece.N])
	}
}

// transmit sends a message that Tx returned.
func (c connector) transmit(frame []byte) {
	if len(frame) == 0 {
		return
	}
	if len(frame) < headerSize {
		c.d.warn("sspolicy: smd: dropped a message without a whole header", "bytes", len(frame))
		return
	}
	class := binary.BigEndian.Uint64(frame)
	if class > math.MaxUint32 {
		c.d.warn("sspolicy: smd: dropped a message of an unknown class", "class", class)
		return
	}
	if err := c.d.Send(Class(class), frame[headerSize:]); err != nil && !errors.Is(err, ErrNoListener) {
		c.d.warn("sspolicy: smd: dropped a message", "err", err)
	}
}

// Close does nothing: a connector holds no resources.
func (connector) Close() error { return nil }
