package sspcwire

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Reader reads the frames of one direction of a link. It holds at most one frame and the
// result of one Read.
type Reader struct {
	r          io.Reader
	d          Decoder
	size       int
	buf        []byte
	small      []byte       // buf, while a large one is in use
	large      *largeBuffer // the large buffer in use, or nil
	start, end int          // unread part of buf
}

// A largeBuffer is for frames that are longer than the read size of a Reader.
type largeBuffer [OwnBatch + 4096]byte

var largeBuffers = sync.Pool{New: func() any { return new(largeBuffer) }}

// NewReader returns a Reader of a new link that reads size bytes at a time. Frames may be
// longer.
func NewReader(r io.Reader, d Direction, size int) *Reader {
	return &Reader{r: r, d: NewDecoder(d), size: max(size, header)}
}

// SetSize makes the Reader read size bytes at a time.
func (r *Reader) SetSize(size int) { r.size = size }

// Next returns the next frame, which is valid until the following call. The error is io.EOF
// at the end of the link, ErrTruncated if the link ends within a frame, an *Error, or an
// error of the io.Reader.
func (r *Reader) Next() (Frame, error) {
	for {
		b := r.buf[r.start:r.end]
		f, n, err := r.d.Next(b)
		if n > 0 || err != nil {
			r.start += n
			return f, err
		}
		need, _ := r.d.size(b)
		r.reserve(max(need, r.size))
		n, err = r.r.Read(r.buf[r.end:])
		r.end += n
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) && r.end > r.start {
				err = ErrTruncated
			}
			return Frame{}, err
		}
	}
}

// Peek returns the type of the next frame, its flags if it is a payload frame, and
// whether the whole frame has been read.
func (r *Reader) Peek() (Type, policy.Flags, bool) {
	b := r.buf[r.start:r.end]
	if n, err := r.d.size(b); err != nil || n > len(b) {
		return 0, 0, false
	}
	t := Type(b[0])
	if t != TypeRx && t != TypeTx {
		return t, 0, true
	}
	return t, policy.Flags(binary.BigEndian.Uint32(b[header:])), true
}

// Buffered returns the number of bytes that have been read but not returned.
func (r *Reader) Buffered() int { return r.end - r.start }

// reserve moves the unread bytes to the beginning of a buffer of at least n bytes. A large
// buffer is released when the next frame does not need it.
func (r *Reader) reserve(n int) {
	b, large, small := r.buf, r.large, r.small
	switch {
	case n > r.size && n <= len(largeBuffer{}):
		if large == nil {
			large, small = largeBuffers.Get().(*largeBuffer), b
		}
		b = large[:]
	case len(b) == n:
	case len(small) == n:
		b, large, small = small, nil, nil
	default:
		b, large, small = make([]byte, n), nil, nil
	}
	r.end = copy(b, r.buf[r.start:r.end])
	r.start, r.buf = 0, b
	if r.large != nil && large == nil {
		largeBuffers.Put(r.large)
	}
	r.large, r.small = large, small
}
