package ws

import (
	"errors"
	"fmt"
	"io"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
)

// A CloseError reports that the peer has closed the connection. errors.Is(err,
// io.EOF) is true if the peer closed it normally: with the code 1000, 1001 or none.
type CloseError struct {
	Code   int    // RFC 6455 section 7.4; 1005 if the peer sent none
	Reason string // as sent by the peer: up to 123 arbitrary bytes
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("sspolicy: the peer closed with %d", e.Code)
	}
	return fmt.Sprintf("sspolicy: the peer closed with %d: %q", e.Code, e.Reason)
}

// Is reports whether target is io.EOF and the peer closed normally.
func (e *CloseError) Is(target error) bool {
	switch websocket.StatusCode(e.Code) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusNoStatusRcvd:
		return target == io.EOF
	}
	return false
}

// A StatusError reports an attempt that failed because the status of the response
// to the handshake was not 101.
type StatusError = request.StatusError

// A RedirectError reports an attempt that failed because of a redirect that is not
// followed. Code is the status, Location is as sent by the server, and Reason is a
// description. Error omits the query and user of the Location.
type RedirectError = request.RedirectError

// A HeaderError reports metadata that cannot be sent in the Header that the policy
// maps it to. It does not contain the value, which may be secret.
type HeaderError = request.HeaderError

// Errors for wrong flags of a Tx callback, which end the connection.
var (
	errNoSOM = errors.New("sspolicy: ws: the Tx callback began a message without FlagSOM")
	errSOM   = errors.New("sspolicy: ws: the Tx callback returned FlagSOM inside a message")
)

var (
	errHeaderTooLong = errors.New("sspolicy: ws: the headers of the handshake's response are too long")
	errInformational = errors.New("sspolicy: ws: too many informational responses to the handshake")
)

// errGone is returned by wire.Read at the end of the connection. In some places the
// library treats io.EOF and io.ErrUnexpectedEOF as the end of a message: after the
// header of a frame, and in a compressed message.
var errGone = errors.New("the connection has ended")

// readError converts an error of the library to the reason why the connection
// ended.
func readError(err error) error {
	if ce, ok := errors.AsType[websocket.CloseError](err); ok {
		return &CloseError{int(ce.Code), ce.Reason}
	}
	if v, ok := errors.AsType[*ProtocolError](err); ok {
		return v
	}
	if errors.Is(err, errGone) {
		return fmt.Errorf("sspolicy: ws: the connection ended without a close frame: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("sspolicy: ws: %w", err)
}
