package runtime

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// WithBody sends b. The caller must not change b until Fetch has returned, or the
// Conn of Open has ended.
func WithBody(b []byte) CallOption {
	return callOption(func(c *call) { c.payload = payload{body: b, length: int64(len(b))} })
}

// WithBodyReader sends length bytes from r; a negative length means that it is
// unknown. If the policy makes another attempt after part of r has been read, r
// must be an [io.Seeker] that can seek, unlike a pipe; otherwise the attempt is not
// made.
//
// A goroutine of the call reads r. A blocked Read does not delay the response or a
// cancellation, but it is not interrupted either.
func WithBodyReader(r io.Reader, length int64) CallOption {
	return callOption(func(c *call) { c.payload = payload{reader: r, length: length} })
}

// WithPart sends b as the message of one of the streamtypes that share the request
// (rideshare): the stream's own, like WithBody, or another. The message of a
// streamtype without a part is empty.
func WithPart(streamtype string, b []byte) CallOption {
	return withPart(streamtype, payload{body: b, length: int64(len(b))})
}

// WithPartReader is like [WithPart] but reads the message from r, as
// [WithBodyReader] does. For another attempt, every reader that has been read must
// be an [io.Seeker].
func WithPartReader(streamtype string, r io.Reader, length int64) CallOption {
	return withPart(streamtype, payload{reader: r, length: length})
}

func withPart(streamtype string, p payload) CallOption {
	return callOption(func(c *call) { c.parts = append(c.parts, part{streamtype, p}) })
}

// WithLimit sets the maximum size in bytes of the response to a Fetch, or of a
// message from a Conn, in place of [DefaultLimit]. A negative n means no limit.
func WithLimit(n int) CallOption { return callOption(func(c *call) { c.limit = n }) }

// DefaultLimit is the default maximum size in bytes of the response to a Fetch, or
// of a message from a Conn.
const DefaultLimit = 16 << 20

// A callOption is an option of a call.
type callOption func(*call)

func (callOption) CallOption() {}

// A call holds the settings of a Fetch or Open.
type call struct {
	options []StreamOption
	few     [4]StreamOption // backs options if they are few, as usual
	payload
	parts []part
	limit int
}

// A part is the payload of one of the streamtypes that share a request.
type part struct {
	streamtype string
	payload
}

// A payload is the content of a message.
type payload struct {
	body   []byte
	reader io.Reader
	length int64 // negative means unknown
	read   bool  // the reader has been read from
	start  int64 // initial offset of the reader, if it can seek
}

// set applies the options of a call.
func (c *call) set(options []CallOption) error {
	c.limit = DefaultLimit
	c.options = c.few[:0]
	for _, o := range options {
		switch o := o.(type) {
		case callOption:
			o(c)
		case StreamOption:
			c.options = append(c.options, o)
		default:
			return fmt.Errorf("%w: an option of type %T", ErrUnsupported, o)
		}
	}
	return nil
}

func (p *payload) present() bool { return len(p.body) > 0 || p.reader != nil && p.length != 0 }

// hasBody reports whether the call has a body.
func (c *call) hasBody() bool {
	return c.present() || slices.ContainsFunc(c.parts, func(p part) bool { return p.present() })
}

// readers returns the payload for each streamtype of the request, or nil if the
// call has none.
func (c *call) readers(chain []*policy.StreamType) ([]payload, error) {
	if len(c.parts) == 0 && c.reader == nil {
		return nil, nil
	}
	all := make([]payload, len(chain))
	all[0] = c.payload
	for _, p := range c.parts {
		i := slices.IndexFunc(chain, func(st *policy.StreamType) bool { return st.Name == p.streamtype })
		if i < 0 {
			return nil, fmt.Errorf("a part for %w %q, which does not share the request", ErrUnknownStreamType, p.streamtype)
		}
		all[i] = p.payload
	}
	if !c.hasBody() {
		return nil, nil
	}
	for i := range all {
		if p := &all[i]; p.reader == nil {
			p.reader = bytes.NewReader(p.body)
		}
	}
	return all, nil
}
