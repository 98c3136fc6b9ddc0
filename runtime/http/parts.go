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

// errBoundary is why a multipart response can not be taken apart.
var errBoundary = errors.New("sspolicy: a multipart response without a boundary of 1 to 70 characters")

// boundaryOf returns the boundary between the parts of a response, or "" if it
// is not multipart.
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

// errOutside is why a multipart response is given up that has more outside of its
// parts, where nobody looks, than any has reason to.
var errOutside = fmt.Errorf("sspolicy: a multipart response with more than %d bytes before or after its parts", maxOutside)

const maxOutside = 64 << 10

// takeApart reads a multipart body (RFC 2046 section 5.1.1), and hands out the
// group of messages that its parts are: a start, the pieces of each part, with
// the headers that it has, and an end. mime/multipart would read the headers
// before it gives a part out, and would not give them as they were.
//
// A line that begins with the delimiter but goes on otherwise is a part of a
// part. The body is to end with the last delimiter, and what may come after it.
func takeApart(body io.Reader, boundary string, rx func([]byte, policy.Flags) error) error {
	if err := rx(nil, policy.FlagRelatedStart); err != nil {
		return err
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	var (
		delimiter = []byte("\r\n--" + boundary)
		in        []byte       // what has been read and not been handed out
		inside    bool         // of a part, and not of what comes before the first
		begins    = true       // in stands at the beginning of a line, whose end has been passed
		first     policy.Flags // for the next piece
		before    int          // how many bytes there were before the first part
	)
	give := func(p []byte, flags policy.Flags) error {
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
			if err := give(in[:at], policy.FlagEOM); err != nil {
				return err
			}
			in, inside, begins, first = in[after:], true, true, policy.FlagSOM
			continue
		case last:
			var err error
			if inside {
				err = give(in[:at], policy.FlagEOM|policy.FlagRelatedEnd)
			} else if err = give(in[:at], 0); err == nil { // there are no parts at all
				err = rx(nil, policy.FlagRelatedEnd)
			}
			if err == nil {
				err = discardEnd(body, int64(len(in)-after))
			}
			return err
		}
		if at > 0 {
			if err := give(in[:at], 0); err != nil {
				return err
			}
			begins = false
		}
		in = buf[:copy(buf[:], in[at:])] // less than a delimiter with its padding
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

// discardEnd reads what comes after the last delimiter, of which n bytes have
// been read already.
func discardEnd(body io.Reader, n int64) error {
	k, err := io.Copy(io.Discard, io.LimitReader(body, maxOutside+1))
	if err == nil && n+k > maxOutside {
		err = errOutside
	}
	return err
}

// What find has found.
type found uint8

const (
	none    found = iota // at is how much is no part of a delimiter
	partial              // the beginning of a delimiter at at
	next                 // a delimiter from at to after
	last                 // the last delimiter from at to after
)

// maxPadding is how many spaces and tabs may stand between a delimiter and the
// end of its line.
const maxPadding = 1 << 10

// find looks for a delimiter. At the beginning of a line the line break that
// belongs to it may be missing.
func find(in, delimiter []byte, begins bool) (at, after int, kind found) {
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
	// The end may be the beginning of a delimiter, with the only CR in it.
	if i := bytes.LastIndexByte(in[at:], '\r'); i >= 0 && bytes.HasPrefix(delimiter, in[at+i:]) {
		return at + i, 0, partial
	}
	return len(in), 0, none
}

// match reports what of a delimiter in begins with, and how long it is.
func match(in, delimiter []byte) (after int, kind found) {
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
