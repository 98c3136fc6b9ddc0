package policy

import (
	"errors"
	"fmt"
)

// Errors to compare with [errors.Is]. A returned error usually wraps one of them
// with details.
var (
	// ErrUnsupported is returned when the policy requires something that this
	// version does not execute.
	ErrUnsupported = errors.New("not supported by this version")
	// ErrUnknownStreamType is returned when the policy has no streamtype of
	// that name.
	ErrUnknownStreamType = errors.New("unknown streamtype")
	// ErrUnknownMetadata is returned when the streamtype declares no metadata
	// of that name.
	ErrUnknownMetadata = errors.New("unknown metadata")
	// ErrMetadataValue is returned when a value is not allowed where the policy
	// puts it, such as a line break in a header or a slash in a host name.
	ErrMetadataValue = errors.New("metadata value not allowed")
	// ErrTemplate is returned when a text with ${metadata} is malformed.
	ErrTemplate = errors.New("malformed template")
	// ErrEndpoint is returned when an endpoint cannot be connected to, either
	// as written or after metadata has been inserted.
	ErrEndpoint = errors.New("bad endpoint")
)

// An EndpointError says what is wrong with an endpoint or proxy. It wraps
// ErrEndpoint.
type EndpointError struct {
	Text string // as the policy has it; empty for a proxy, which may hold a password
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
