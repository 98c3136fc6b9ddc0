package http

import (
	"errors"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
)

// errNoH2 is why a server that does not agree on HTTP/2 is unreachable.
var errNoH2 = errors.New("sspolicy: the server does not speak h2")

// errRepeated is why a server is unreachable that resets each request it gets.
var errRepeated = errors.New("sspolicy: the server resets the request before it answers")

// A StatusError says that an attempt failed because the server answered with
// a status, its Code, that asks to try again: 429 or 503.
type StatusError = request.StatusError

// A RedirectError says that an attempt failed because the server answered with
// a redirect that is not followed. Code is the status, Location is as the
// server sent it, Reason is for people. Error leaves out query and user.
type RedirectError = request.RedirectError

// A HeaderError says that metadata can not be sent as the Header that the
// policy maps it to. It does not tell the value, which may be a secret.
type HeaderError = request.HeaderError
