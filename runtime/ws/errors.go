package ws

import (
	"errors"
	"fmt"
	"io"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
)

// A CloseError says that the peer has closed the connection. It is io.EOF, for
// [errors.Is], if the peer has done so in good order: with the code 1000, 1001
// or none.
type CloseError struct {
	Code   int    // RFC 6455 section 7.4; 1005 if the peer sent none
	Reason string // as the peer sent it: any bytes, 123 at most
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("sspolicy: the peer closed with %d", e.Code)
	}
	return fmt.Sprintf("sspolicy: the peer closed with %d: %q", e.Code, e.Reason)
}

// Is reports whether target is io.EOF and the peer closed in good order.
func (e *CloseError) Is(target error) bool {
	switch websocket.StatusCode(e.Code) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusNoStatusRcvd:
		return target == io.EOF
	}
	return false
}

// A StatusError says that an attempt failed because the server answered the
// handshake with a status, its Code, other than 101.
type StatusError = request.StatusError

// A RedirectError says that an attempt failed because the server answered with
// a redirect that is not followed. Code is the status, Location is as the
// server sent it, Reason is for people. Error leaves out query and user.
type RedirectError = request.RedirectError

// A HeaderError says that metadata can not be sent as the Header that the
// policy maps it to. It does not tell the value, which may be a secret.
type HeaderError = request.HeaderError

// What the flags of a Tx callback can be wrong about. They end the connection.
var (
	errNoSOM = errors.New("sspolicy: ws: the Tx callback began a message without FlagSOM")
	errSOM   = errors.New("sspolicy: ws: the Tx callback returned FlagSOM inside of a message")
)

var (
	errHeaderTooLong = errors.New("sspolicy: ws: the headers of the handshake's response are too long")
	errInformational = errors.New("sspolicy: ws: too many informational responses to the handshake")
)

// errGone is what wire.Read returns for the end of the connection. It is neither
// io.EOF nor io.ErrUnexpectedEOF, which the library takes for the end of a
// message, behind the header of a frame or within a compressed one.
var errGone = errors.New("the connection has ended")

// readError returns why a connection has ended, of what the library says.
func readError(err error) error {
	if ce, ok := errors.AsType[websocket.CloseError](err); ok {
		return &CloseError{int(ce.Code), ce.Reason}
	}
	if errors.Is(err, errGone) {
		return fmt.Errorf("sspolicy: ws: the peer is gone without a close frame: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("sspolicy: ws: %w", err)
}
