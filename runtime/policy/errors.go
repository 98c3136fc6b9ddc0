package policy

import "errors"

// Errors to compare with [errors.Is]. A returned error mostly wraps one of them
// and adds details.
var (
	// ErrUnsupported is returned when the policy requires what this version
	// does not execute.
	ErrUnsupported = errors.New("not supported by this version")
	// ErrUnknownStreamType is returned when the policy has no streamtype of
	// that name.
	ErrUnknownStreamType = errors.New("unknown streamtype")
	// ErrUnknownMetadata is returned when the streamtype declares no metadata
	// of that name.
	ErrUnknownMetadata = errors.New("unknown metadata")
	// ErrMetadataValue is returned when a value must not stand where the policy
	// puts it, such as a line break in a header or a slash in a host name.
	ErrMetadataValue = errors.New("metadata value not allowed")
	// ErrTemplate is returned when a text with ${metadata} is malformed.
	ErrTemplate = errors.New("malformed template")
	// ErrEndpoint is returned when an endpoint cannot be connected to, either
	// as written or after metadata has been inserted.
	ErrEndpoint = errors.New("bad endpoint")
)
