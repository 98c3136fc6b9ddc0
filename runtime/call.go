package runtime

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// WithBody sends b. The slice must not be changed until Fetch has returned, or
// the Conn of Open has ended.
func WithBody(b []byte) CallOption {
	return callOption(func(c *call) { c.payload = payload{body: b, length: int64(len(b))} })
}

// WithBodyReader sends what r provides, length bytes of it; a length below 0 means
// that it is unknown. If part of it has been read when the policy wants another
// attempt, r must be an [io.Seeker] that can seek, as a pipe cannot; otherwise
// there is no other attempt.
//
// A goroutine of the call reads r. A Read that blocks delays neither the response
// nor a cancellation, but is not interrupted by them.
func WithBodyReader(r io.Reader, length int64) CallOption {
	return callOption(func(c *call) { c.payload = payload{reader: r, length: length} })
}

// WithPart sends b as the message of a streamtype that shares the request: the
// stream's own, as WithBody does, or one that follows by rideshare. A streamtype
// without a part has an empty message.
func WithPart(streamtype string, b []byte) CallOption {
	return withPart(streamtype, payload{body: b, length: int64(len(b))})
}

// WithPartReader is WithPart with what r provides, as WithBodyReader sends it.
// For another attempt every reader that has been read must be an [io.Seeker].
func WithPartReader(streamtype string, r io.Reader, length int64) CallOption {
	return withPart(streamtype, payload{reader: r, length: length})
}

func withPart(streamtype string, p payload) CallOption {
	return callOption(func(c *call) { c.parts = append(c.parts, part{streamtype, p}) })
}

// WithLimit sets the most bytes that the response to a Fetch, or a message from a
// Conn, may have, instead of DefaultLimit. Less than 0 means no limit.
func WithLimit(n int) CallOption { return callOption(func(c *call) { c.limit = n }) }

// DefaultLimit is the most bytes that the response to a Fetch, or a message from a
// Conn, may have.
const DefaultLimit = 16 << 20

// A callOption sets something of a call.
type callOption func(*call)

func (callOption) CallOption() {}

// A call holds the settings of a Fetch or Open.
type call struct {
	options []StreamOption
	few     [4]StreamOption // the array of options, mostly
	payload
	parts []part
	limit int
}

// A part is the payload of one of the streamtypes of a request.
type part struct {
	streamtype string
	payload
}

// A payload is what is to be sent as a message.
type payload struct {
	body   []byte
	reader io.Reader
	length int64 // less than 0 means unknown
	read   bool  // the reader has been read from
	start  int64 // where the reader stood, if it can seek
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

func (p *payload) given() bool { return len(p.body) > 0 || p.reader != nil && p.length != 0 }

// hasBody reports whether the call was given a body.
func (c *call) hasBody() bool {
	return c.given() || slices.ContainsFunc(c.parts, func(p part) bool { return p.given() })
}

// readers returns what to read for the message of each streamtype of the request;
// nil if there is nothing to read.
func (c *call) readers(chain []*policy.StreamType) ([]payload, error) {
	if len(c.parts) == 0 && c.reader == nil {
		return nil, nil
	}
	all := make([]payload, len(chain))
	all[0] = c.payload
	for _, p := range c.parts {
		i := slices.IndexFunc(chain, func(st *policy.StreamType) bool { return st.Name == p.streamtype })
		if i < 0 {
			return nil, fmt.Errorf("a part for %w %q, which has no share in the request", ErrUnknownStreamType, p.streamtype)
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
