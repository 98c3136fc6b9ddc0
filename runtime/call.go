package runtime

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// A CallOption is a setting of [Context.Fetch] and [Context.Open].
type CallOption interface{ apply(*call) }

// A MetadataOption sets metadata of a new stream, before anything else happens
// to it. It is made by WithMetadata, or by the type that a generated file has
// for a streamtype.
type MetadataOption struct {
	pairs     []string // name, value, name, value
	skipEmpty bool
}

// WithMetadata sets the metadata item of that name.
func WithMetadata(name, value string) MetadataOption {
	return MetadataOption{pairs: []string{name, value}}
}

// WithFields sets metadata items given as name, value, name, value. A value
// that is empty is not set. It is for generated files.
func WithFields(pairs ...string) MetadataOption {
	return MetadataOption{pairs: pairs, skipEmpty: true}
}

// WithBody sends b. The slice must not be changed until Fetch has returned, or
// the Conn of Open has ended.
func WithBody(b []byte) CallOption { return bodyOption{b} }

// WithBodyReader sends what r has to give, length bytes of it; a length below 0
// means that it is not known. If a part of it has been read when the policy
// wants another attempt, r has to be an [io.Seeker]; else there is none.
//
// r is read by a goroutine of its own. A Read that blocks keeps neither the
// answer nor a cancellation from being noticed, but is not interrupted by it.
func WithBodyReader(r io.Reader, length int64) CallOption { return readerOption{r, length} }

// WithLimit sets how many bytes the answer to a Fetch, or a message from a
// Conn, may have instead of DefaultLimit. Less than 0 means any number.
func WithLimit(n int) CallOption { return limitOption(n) }

// DefaultLimit is how many bytes the answer to a Fetch, or a message from a
// Conn, may have.
const DefaultLimit = 16 << 20

type (
	bodyOption   struct{ body []byte }
	readerOption struct {
		r      io.Reader
		length int64
	}
	limitOption int
)

func (o MetadataOption) apply(c *call) { c.options = append(c.options, o) }
func (o bodyOption) apply(c *call)     { c.body, c.reader, c.length = o.body, nil, int64(len(o.body)) }
func (o readerOption) apply(c *call)   { c.body, c.reader, c.length = nil, o.r, o.length }
func (o limitOption) apply(c *call)    { c.limit = int(o) }

// A call is the settings of a Fetch or Open.
type call struct {
	options []StreamOption
	body    []byte
	reader  io.Reader
	length  int64 // of the body; less than 0 if it is not known
	limit   int
}

// hasBody reports whether the body has been given.
func (c *call) hasBody() bool { return len(c.body) > 0 || c.reader != nil && c.length != 0 }

// SetAll sets the metadata that a generated type, or WithMetadata, holds. It
// stops at the first that is refused; the errors are those of SetMetadata.
func (s *Stream) SetAll(o MetadataOption) error {
	if len(o.pairs)%2 != 0 {
		return fmt.Errorf("sspolicy: set metadata of streamtype %q: a name without a value", s.StreamType().Name)
	}
	for i := 0; i < len(o.pairs); i += 2 {
		if o.skipEmpty && o.pairs[i+1] == "" {
			continue
		}
		if err := s.SetMetadata(o.pairs[i], o.pairs[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// sends reports whether streams of this type send payload.
func (st *StreamType) sends() bool {
	if st.Protocol > ProtocolH3 {
		return true
	}
	switch st.HTTP.Method {
	case "POST", "PUT", "PATCH":
		return true
	}
	return slices.ContainsFunc(st.Metadata, func(m Metadata) bool {
		return strings.EqualFold(strings.TrimSuffix(m.Header, ":"), "content-length")
	})
}

// txLength returns what RequestTxLen is to say of the body.
func (c *call) txLength() uint64 {
	if !c.hasBody() {
		return 0
	}
	return uint64(max(c.length, 0))
}
