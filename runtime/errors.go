package runtime

import (
	"errors"
	"fmt"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Errors for use with [errors.Is]. Most returned errors wrap one of them and add
// details.
var (
	// ErrClosed is returned when the stream, or its context, has been destroyed.
	ErrClosed = transport.ErrClosed
	// ErrPolicyChanged is returned when the stream has been destroyed because a new
	// policy defines its streamtype differently, or not at all; see
	// [Context.SetPolicy].
	ErrPolicyChanged = errors.New("the policy has changed")
	// ErrUnknownStreamType is returned when the policy has no streamtype of
	// that name.
	ErrUnknownStreamType = policy.ErrUnknownStreamType
	// ErrNoTransport is returned when no transport in Options.Transports executes
	// the protocol of the streamtype.
	ErrNoTransport = errors.New("no transport")
	// ErrUnsupported is returned when the policy requires a feature that this
	// version does not support.
	ErrUnsupported = policy.ErrUnsupported
	// ErrNoCredentials is returned when the policy requires a certificate, token or
	// serial number that Options.Credentials does not provide.
	ErrNoCredentials = transport.ErrNoCredentials
	// ErrBadCredentials is returned when a source of credentials returns an
	// unusable value, such as a token with a line break.
	ErrBadCredentials = transport.ErrBadCredentials
	// ErrUnknownMetadata is returned when the streamtype declares no metadata of
	// that name.
	ErrUnknownMetadata = policy.ErrUnknownMetadata
	// ErrMetadataValue is returned when a value is invalid where the policy uses
	// it, such as a line break in a header or a slash in a host name.
	ErrMetadataValue = policy.ErrMetadataValue
	// ErrTemplate is returned when a text with ${metadata} is malformed.
	ErrTemplate = policy.ErrTemplate
	// ErrEndpoint is returned when the endpoint is invalid, as written or after
	// metadata has been inserted.
	ErrEndpoint = policy.ErrEndpoint
	// ErrRefused is returned when a callback returns DestroyMe before NewStream has
	// returned.
	ErrRefused = errors.New("stream refused by its own handlers")
	// ErrTimeout is returned when the peer does not answer within
	// Options.ConnectTimeout, or the policy's timeout_ms has passed.
	ErrTimeout = transport.ErrTimeout
	// ErrLink is returned when the link to the proxy of Options.Proxy is down, or
	// was lost. It wraps the cause.
	ErrLink = transport.ErrLink
	// ErrNoValidity is returned when a connection was closed because nothing had
	// proved its validity for the policy's svalidhup.
	ErrNoValidity = transport.ErrNoValidity
	// ErrNoTransaction is returned when there is no request to answer, or its
	// answer is already being sent.
	ErrNoTransaction = errors.New("no request that can still be answered")
	// ErrAllRetriesFailed is returned when the peer could not be reached and the
	// policy has no more retries. It wraps the cause of the last failure.
	ErrAllRetriesFailed = errors.New("all retries failed")
	// ErrNack is returned when the peer was reached but did not accept; see
	// [NackError].
	ErrNack = errors.New("the peer did not accept")
	// ErrTooLong is returned when a response or message exceeds the limit of
	// WithLimit.
	ErrTooLong = errors.New("longer than the limit")
	// ErrBodySpent is returned when another attempt would have to resend a body
	// that cannot be read a second time. It wraps the cause of the failure.
	ErrBodySpent = errors.New("the body cannot be sent a second time")
	// ErrNoBody is returned when there is a body to send but the policy's
	// http_method has none, or there is no mqtt_topic to send it to.
	ErrNoBody = errors.New("the streamtype sends nothing: its http_method has no body, or it has no mqtt_topic")
	// ErrDisconnected is returned by [Stream.Err] when a connection or attempt
	// ended because a callback returned DisconnectMe.
	ErrDisconnected = transport.ErrDisconnected
)

// An UnacknowledgedError reports messages that were sent but not acknowledged by
// the peer. They may have arrived.
type UnacknowledgedError struct {
	// Missing is the number of messages that the peer rejected, or did not
	// acknowledge in time or before the connection was lost. Over protocols without
	// acknowledgements it is 1.
	Missing int

	// Acknowledged is the number of messages that the peer acknowledged before the
	// first missing one, since the previous Flush that returned without a context
	// error.
	Acknowledged int

	// Err is the reason for the first missing message: ErrNack, the reason for the
	// end of the connection, or the error of the context.
	Err error
}

func (e *UnacknowledgedError) Error() string {
	if e.Missing == 1 {
		return fmt.Sprintf("1 message was not acknowledged: %v", e.Err)
	}
	return fmt.Sprintf("%d messages were not acknowledged: %v", e.Missing, e.Err)
}

func (e *UnacknowledgedError) Unwrap() error { return e.Err }
