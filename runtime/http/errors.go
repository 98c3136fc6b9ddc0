package http

import (
	"errors"
	"fmt"
	"io"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

var (
	errNoH2     = errors.New("sspolicy: the server does not speak h2")
	errResets   = errors.New("sspolicy: the server refuses the request each time it is sent")
	errNoAnswer = fmt.Errorf("sspolicy: the server closed the connection before it answered: %w", io.ErrUnexpectedEOF)
	errSilent   = fmt.Errorf("sspolicy: h2 connection closed: %w", transport.ErrNoValidity)
)

// A StatusError reports an attempt that failed because of the status of the
// response: 429 or 503.
type StatusError = request.StatusError

// A RedirectError reports an attempt that failed because of a redirect that is not
// followed. Code is the status, Location is as sent by the server, and Reason is a
// description. Error omits the query and user of the Location.
type RedirectError = request.RedirectError

// A HeaderError reports metadata that cannot be sent in the Header that the policy
// maps it to. It does not contain the value, which may be secret.
type HeaderError = request.HeaderError
