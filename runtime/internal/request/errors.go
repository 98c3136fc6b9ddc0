package request

import (
	"fmt"
	"net/http"
	"net/url"
)

// A StatusError reports an attempt that failed because of the status of the
// response.
type StatusError struct{ Code int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("sspolicy: the server answered %d %s", e.Code, http.StatusText(e.Code))
}

// A RedirectError reports an attempt that failed because of a redirect that is not
// followed.
type RedirectError struct {
	Code     int
	Location string // as the server sent it; Error omits its query and user
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

// A HeaderError reports metadata that cannot be sent as the header that the policy
// maps it to. It does not contain the value, which may be a secret.
type HeaderError struct {
	Header string
	Reason string
}

func (e *HeaderError) Error() string {
	return fmt.Sprintf("sspolicy: header %s cannot be sent: %s", e.Header, e.Reason)
}
