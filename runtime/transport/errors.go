package transport

import (
	"errors"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// Errors to compare with [errors.Is]. Package runtime has them as well.
var (
	// ErrUnsupported is returned when the policy requires what this version
	// does not execute.
	ErrUnsupported = policy.ErrUnsupported
	// ErrEndpoint is returned when an endpoint cannot be connected to.
	ErrEndpoint = policy.ErrEndpoint
	// ErrClosed is returned when the stream or its context has been destroyed.
	ErrClosed = errors.New("stream or context is closed")
	// ErrTimeout is returned when the peer did not answer within the limit of an
	// attempt.
	ErrTimeout = errors.New("no answer in time")
	// ErrDisconnected is returned when a callback answered DisconnectMe.
	ErrDisconnected = errors.New("disconnected by the stream's own handlers")
	// ErrNoValidity is returned when nothing has proved for the time of the
	// policy's svalidhup that a connection works in both directions.
	ErrNoValidity = errors.New("no sign of life from the peer")
	// ErrNoCredentials is returned when the policy requires a certificate, token
	// or serial number that the context has no source for, or the source lacks.
	ErrNoCredentials = errors.New("no credentials")
	// ErrBadCredentials is returned when a source of credentials has returned
	// something unusable, such as a token with a line break, or a certificate
	// with the key of another.
	ErrBadCredentials = errors.New("unusable credentials")
)
