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

// StreamType is the streamtype whose streams send and receive the messages of an
// SMD. No policy has it. A stream of it is connected when NewStream returns. What
// it receives, and what its Tx is to send, is a message in one piece: the class and
// the time in microseconds since 1970, each as 8 bytes in big-endian order, and
// then the payload. The time of a message that Tx sends is ignored, and so is a
// piece of less than 16 bytes.
const StreamType = "_lws_smd"

// headerSize is the size of the class and the time before a payload.
const headerSize = 16

// Protocols returns the carrier of StreamType.
func (d *SMD) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolSMD} }

// StreamTypes returns what a policy would say about StreamType.
func (d *SMD) StreamTypes() []*policy.StreamType {
	return []*policy.StreamType{{Name: StreamType, Protocol: policy.ProtocolSMD, NailedUp: true, Opportunistic: true}}
}

// Prepare returns the connector of StreamType.
func (d *SMD) Prepare(*transport.Setup) (transport.Connector, error) { return connector{d}, nil }

// PolicyChanged announces a new policy to ClassSystemState, in the words of lws
// 5.0.0 (lib/secure-streams/policy-common.c).
func (d *SMD) PolicyChanged() {
	_ = d.Send(ClassSystemState, fmt.Appendf(nil, `{"policy":"updated","ts":%d}`, time.Now().Unix()))
}

// WithClasses sets which messages a stream of StreamType receives. Without it
// there are none.
func WithClasses(mask Class) transport.Option {
	return transport.Option{Protocol: policy.ProtocolSMD, Data: func() any { return &subscription{mask: mask} }}
}

// A subscription is what the transport keeps with a stream.
type subscription struct {
	mask     Class
	listener *Listener // of the connection
	link     transport.Link
}

// A connector executes StreamType.
type connector struct{ d *SMD }

// Open connects the stream before NewStream returns.
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

// transmit sends what a stream has sent.
func (c connector) transmit(frame []byte) {
	if len(frame) == 0 {
		return
	}
	if len(frame) < headerSize {
		c.d.warn("sspolicy: smd: dropped a message without a complete header", "bytes", len(frame))
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

// Close does nothing: what a stream holds is closed with it.
func (connector) Close() error { return nil }
