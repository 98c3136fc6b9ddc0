package transport

import (
	"errors"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// Errors for use with [errors.Is]. Package runtime has the same ones.
var (
	// ErrUnsupported is returned when the policy requires a feature that this
	// version does not support.
	ErrUnsupported = policy.ErrUnsupported
	// ErrEndpoint is returned when an endpoint is invalid.
	ErrEndpoint = policy.ErrEndpoint
	// ErrClosed is returned when the stream or its context is closed.
	ErrClosed = errors.New("stream or context is closed")
	// ErrTimeout is returned when the peer does not answer within ConnectTimeout.
	ErrTimeout = errors.New("no answer in time")
	// ErrLink is returned when the link to a proxy is down.
	ErrLink = errors.New("no link to the proxy")
	// ErrDisconnected is returned when a callback returns DisconnectMe.
	ErrDisconnected = errors.New("disconnected by the stream's own handlers")
	// ErrNoValidity is returned when, for the policy's svalidhup, nothing proved
	// that a connection works in both directions.
	ErrNoValidity = errors.New("no sign of life from the peer")
	// ErrNoCredentials is returned when the policy requires a certificate, token or
	// serial number that the context's credentials do not provide.
	ErrNoCredentials = errors.New("no credentials")
	// ErrBadCredentials is returned when a source of credentials returns an
	// unusable value, such as a token with a line break, or a certificate with the
	// key of another.
	ErrBadCredentials = errors.New("unusable credentials")
)
