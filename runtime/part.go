package runtime

import (
	"bufio"
	"bytes"
	"fmt"
	"net/textproto"
)

// maxParts is the maximum number of parts of the response to a Fetch.
const maxParts = 10_000

// maxPartHeader is the maximum size in bytes of the headers of a part for
// SplitPart, which allocates twenty times as much.
const maxPartHeader = 64 << 10

// SplitPart splits a part of a multipart response (RFC 2046 section 5.1), as
// Messages and [Response] return it, into its headers and its body. The headers may
// be missing; it returns ErrTooLong if they exceed 64 KiB. body shares memory with
// part.
func SplitPart(part []byte) (header textproto.MIMEHeader, body []byte, err error) {
	const end = "\r\n\r\n"
	head := part
	switch i := bytes.Index(part, []byte(end)); {
	case len(part) == 0:
		return textproto.MIMEHeader{}, nil, nil
	case bytes.HasPrefix(part, []byte("\r\n")):
		return textproto.MIMEHeader{}, part[2:], nil
	case i >= 0:
		head, body = part[:i+len(end)], part[i+len(end):]
	default: // headers alone
		head = append(head[:len(head):len(head)], end...)
	}
	if len(head) > maxPartHeader {
		return nil, nil, fmt.Errorf("sspolicy: the headers of a part are %w: %d bytes", ErrTooLong, maxPartHeader)
	}
	header, err = textproto.NewReader(bufio.NewReader(bytes.NewReader(head))).ReadMIMEHeader()
	if err != nil {
		return nil, nil, fmt.Errorf("sspolicy: the headers of a part: %w", err)
	}
	return header, body, nil
}
