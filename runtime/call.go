package runtime

import (
	"bytes"
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
// wants another attempt, r has to be an [io.Seeker] that can seek, as a pipe can
// not; else there is none.
//
// r is read by a goroutine of its own. A Read that blocks keeps neither the
// answer nor a cancellation from being noticed, but is not interrupted by it.
func WithBodyReader(r io.Reader, length int64) CallOption { return readerOption{r, length} }

// WithPart sends b as the message of a streamtype that shares the request: the
// stream's own, as WithBody does, or one that follows by rideshare. What there
// is no part for has an empty message.
func WithPart(streamtype string, b []byte) CallOption {
	return partOption{streamtype, payload{body: b, length: int64(len(b))}}
}

// WithPartReader is WithPart with what r has to give, as WithBodyReader sends
// it. If another attempt is wanted, all that has been read from has to be an
// [io.Seeker].
func WithPartReader(streamtype string, r io.Reader, length int64) CallOption {
	return partOption{streamtype, payload{reader: r, length: length}}
}

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
	partOption struct {
		streamtype string
		payload
	}
	limitOption int
)

func (o MetadataOption) apply(c *call) { c.options = append(c.options, o) }
func (o bodyOption) apply(c *call)     { c.payload = payload{body: o.body, length: int64(len(o.body))} }
func (o readerOption) apply(c *call)   { c.payload = payload{reader: o.r, length: o.length} }
func (o partOption) apply(c *call)     { c.parts = append(c.parts, o) }
func (o limitOption) apply(c *call)    { c.limit = int(o) }

// A call is the settings of a Fetch or Open.
type call struct {
	options []StreamOption
	payload
	parts []partOption
	limit int
}

// A payload is what is to be sent as a message.
type payload struct {
	body   []byte
	reader io.Reader
	length int64 // less than 0 if it is not known
	used   bool  // the reader has been read from
	start  int64 // where the reader stood, if it can seek
}

func (p *payload) given() bool { return len(p.body) > 0 || p.reader != nil && p.length != 0 }

// hasBody reports whether the body has been given.
func (c *call) hasBody() bool {
	return c.given() || slices.ContainsFunc(c.parts, func(p partOption) bool { return p.given() })
}

// readers returns what is to be read for the message of each streamtype of the
// request; nil if there is nothing to be read.
func (c *call) readers(chain []*StreamType) ([]payload, error) {
	if len(c.parts) == 0 && c.reader == nil {
		return nil, nil
	}
	all := make([]payload, len(chain))
	all[0] = c.payload
	for _, p := range c.parts {
		i := slices.IndexFunc(chain, func(st *StreamType) bool { return st.Name == p.streamtype })
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
	switch {
	case st.LocalSink:
		return true
	case st.Protocol == ProtocolMQTT:
		return st.MQTT.Topic != ""
	case st.Protocol > ProtocolH3:
		return true
	}
	switch st.HTTP.Method {
	case "POST", "PUT", "PATCH":
		return true
	}
	if st.HTTP.Multipart || st.HTTP.MultipartName != "" {
		return true
	}
	return slices.ContainsFunc(st.Metadata, func(m Metadata) bool {
		return strings.EqualFold(strings.TrimSuffix(m.Header, ":"), "content-length")
	})
}

// txLength returns what RequestTxLen is to say of the body: 0 if that is not
// known.
func (x *exchange) txLength() (n uint64) {
	if x.parts == nil {
		return uint64(len(x.call.body))
	}
	for i := range x.parts { // no copies: pump writes the rest of each
		if x.parts[i].length < 0 {
			return 0
		}
		n += uint64(x.parts[i].length)
	}
	return n
}
