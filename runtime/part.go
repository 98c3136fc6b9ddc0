package runtime

import (
	"bufio"
	"bytes"
	"fmt"
	"net/textproto"
)

// maxParts is the most parts that the response to a Fetch may have.
const maxParts = 10_000

// maxPartHeader is how many bytes the headers of a part may have for SplitPart,
// which makes twenty times as much of them.
const maxPartHeader = 64 << 10

// SplitPart splits a part of a multipart answer (RFC 2046 section 5.1), as
// Messages and [Response] have it, into its headers and its body. A part may have
// no headers at all, and 64 KiB of them at most (ErrTooLong). The body is not a copy.
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
