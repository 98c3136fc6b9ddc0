package policy

import (
	"errors"
	"fmt"
)

// Errors for use with [errors.Is]. Most returned errors wrap one of them and add
// details.
var (
	// ErrUnsupported is returned when the policy requires a feature that this
	// version does not support.
	ErrUnsupported = errors.New("not supported by this version")
	// ErrUnknownStreamType is returned when the policy has no streamtype of
	// that name.
	ErrUnknownStreamType = errors.New("unknown streamtype")
	// ErrUnknownMetadata is returned when the streamtype declares no metadata
	// of that name.
	ErrUnknownMetadata = errors.New("unknown metadata")
	// ErrMetadataValue is returned when a value is invalid where the policy uses
	// it, such as a line break in a header or a slash in a host name.
	ErrMetadataValue = errors.New("metadata value not allowed")
	// ErrTemplate is returned when a text with ${metadata} is malformed.
	ErrTemplate = errors.New("malformed template")
	// ErrEndpoint is returned when an endpoint is invalid, as written or after
	// metadata has been inserted.
	ErrEndpoint = errors.New("bad endpoint")
)

// An EndpointError describes an invalid endpoint or proxy. It wraps [ErrEndpoint].
type EndpointError struct {
	Text string // from the policy; "" for a proxy, which may contain a password
	Why  string
}

func (e *EndpointError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("%v: %s", ErrEndpoint, e.Why)
	}
	return fmt.Sprintf("%v: %q: %s", ErrEndpoint, e.Text, e.Why)
}

// Unwrap returns ErrEndpoint.
func (e *EndpointError) Unwrap() error { return ErrEndpoint }
