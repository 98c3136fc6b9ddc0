package request

import (
	"fmt"
	"net/http"
	"net/url"
)

// A StatusError says that an attempt failed because of the status that the
// server answered with.
type StatusError struct{ Code int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("sspolicy: the server answered %d %s", e.Code, http.StatusText(e.Code))
}

// A RedirectError says that an attempt failed because the server answered with
// a redirect that is not followed.
type RedirectError struct {
	Code     int
	Location string // as the server sent it; Error leaves out its query and user
	Reason   string
}

func (e *RedirectError) Error() string {
	to := ""
	if u, err := url.Parse(e.Location); err == nil && u.Opaque == "" {
		u = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
		to = fmt.Sprintf(" to %q", u.String())
	}
	return fmt.Sprintf("sspolicy: redirect (%d)%s not followed: %s", e.Code, to, e.Reason)
}

// A HeaderError says that metadata can not be sent as the header that the
// policy maps it to. It does not tell the value, which may be a secret.
type HeaderError struct {
	Header string
	Reason string
}

func (e *HeaderError) Error() string {
	return fmt.Sprintf("sspolicy: header %s can not be sent: %s", e.Header, e.Reason)
}
