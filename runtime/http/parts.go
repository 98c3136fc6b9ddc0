package http

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// errBoundary is returned when a multipart response has no valid boundary.
var errBoundary = errors.New("sspolicy: a multipart response without a boundary of 1 to 70 characters")

// boundaryOf returns the boundary of a Content-Type, or "" if it is not multipart.
func boundaryOf(contentType string) (string, error) {
	const prefix = "multipart/"
	if len(contentType) < len(prefix) || !strings.EqualFold(contentType[:len(prefix)], prefix) {
		return "", nil
	}
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errBoundary, err)
	}
	if b := params["boundary"]; len(b) >= 1 && len(b) <= 70 {
		return b, nil
	}
	return "", errBoundary
}

// errOutside is returned when a multipart response has too much text outside its
// parts, which is ignored.
var errOutside = fmt.Errorf("sspolicy: a multipart response with more than %d bytes before or after its parts", maxOutside)

const maxOutside = 64 << 10

// split reads a multipart body (RFC 2046 section 5.1.1), and delivers its parts as
// a group of messages: a start, the pieces of each part including its headers, and
// an end. mime/multipart is not used because it parses the headers of a part.
//
// A line that begins with the delimiter and continues is a line of the part. The
// body ends with the last delimiter and an optional epilogue.
func split(body io.Reader, boundary string, rx func([]byte, policy.Flags) error) error {
	if err := rx(nil, policy.FlagRelatedStart); err != nil {
		return err
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	var (
		delimiter = []byte("\r\n--" + boundary)
		in        []byte       // read but not delivered
		inside    bool         // in a part, not in the preamble
		begins    = true       // in begins a line
		first     policy.Flags // of the next piece
		before    int          // bytes of the preamble
	)
	deliver := func(p []byte, flags policy.Flags) error {
		if !inside {
			if before += len(p); before > maxOutside {
				return errOutside
			}
			return nil
		}
		flags |= first
		first = 0
		return rx(p, flags)
	}
	for {
		at, after, kind := find(in, delimiter, begins)
		switch kind {
		case next:
			if err := deliver(in[:at], policy.FlagEOM); err != nil {
				return err
			}
			in, inside, begins, first = in[after:], true, true, policy.FlagSOM
			continue
		case last:
			var err error
			if inside {
				err = deliver(in[:at], policy.FlagEOM|policy.FlagRelatedEnd)
			} else if err = deliver(in[:at], 0); err == nil { // without parts
				err = rx(nil, policy.FlagRelatedEnd)
			}
			if err == nil {
				err = discardEnd(body, int64(len(in)-after))
			}
			return err
		}
		if at > 0 {
			if err := deliver(in[:at], 0); err != nil {
				return err
			}
			begins = false
		}
		in = buf[:copy(buf[:], in[at:])] // shorter than a delimiter with padding
		n, err := body.Read(buf[len(in):])
		in = buf[:len(in)+n]
		if n == 0 && err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if n == 0 && err != nil {
			return err
		}
	}
}

// discardEnd reads the epilogue, n bytes of which have been read already.
func discardEnd(body io.Reader, n int64) error {
	k, err := io.Copy(io.Discard, io.LimitReader(body, maxOutside+1))
	if err == nil && n+k > maxOutside {
		err = errOutside
	}
	return err
}

// A matchKind is the result of find.
type matchKind uint8

const (
	none    matchKind = iota // no delimiter before at
	partial                  // a delimiter may begin at at
	next                     // a delimiter from at to after
	last                     // the last delimiter from at to after
)

// maxPadding is how many spaces and tabs may follow a delimiter.
const maxPadding = 1 << 10

// find searches for a delimiter. If in begins a line, the line break of a delimiter
// there may be missing.
func find(in, delimiter []byte, begins bool) (at, after int, kind matchKind) {
	if begins {
		if after, kind = match(in, delimiter[2:]); kind != none {
			return 0, after, kind
		}
	}
	for {
		i := bytes.Index(in[at:], delimiter)
		if i < 0 {
			break
		}
		at += i
		if after, kind = match(in[at:], delimiter); kind != none {
			return at, at + after, kind
		}
		at += len(delimiter)
	}
	// A delimiter that begins at the end contains its only CR.
	if i := bytes.LastIndexByte(in[at:], '\r'); i >= 0 && bytes.HasPrefix(delimiter, in[at+i:]) {
		return at + i, 0, partial
	}
	return len(in), 0, none
}

// match reports whether in begins with a delimiter, and returns its length.
func match(in, delimiter []byte) (after int, kind matchKind) {
	if !bytes.HasPrefix(in, delimiter) {
		if bytes.HasPrefix(delimiter, in) {
			return 0, partial
		}
		return 0, none
	}
	rest := in[len(delimiter):]
	if bytes.HasPrefix(rest, []byte("--")) {
		return len(delimiter) + 2, last
	}
	padding := len(rest) - len(bytes.TrimLeft(rest, " \t"))
	switch end := rest[padding:]; {
	case padding > maxPadding:
		return 0, none
	case len(end) >= 2 && end[0] == '\r' && end[1] == '\n':
		return len(delimiter) + padding + 2, next
	case len(end) == 0, len(end) == 1 && (end[0] == '\r' || end[0] == '-' && padding == 0):
		return 0, partial
	}
	return 0, none
}
