package runtime

import "errors"

// Errors to compare with [errors.Is]. What is returned mostly wraps one of
// them and says more.
var (
	// ErrClosed: the stream, or its context, has been destroyed.
	ErrClosed = errors.New("stream or context is closed")
	// ErrPolicyChanged: the policy has been replaced, and the new one says
	// something else of the streamtype, or has it no more; so the stream has
	// been destroyed, see [Context.SetPolicy].
	ErrPolicyChanged = errors.New("the policy has changed")
	// ErrUnknownStreamType: the policy has no streamtype of that name.
	ErrUnknownStreamType = errors.New("unknown streamtype")
	// ErrNoTransport: Options.Transports holds nothing that speaks the
	// protocol of the streamtype.
	ErrNoTransport = errors.New("no transport")
	// ErrUnsupported: the policy asks for what this version does not execute.
	ErrUnsupported = errors.New("not supported by this version")
	// ErrNoCredentials: the policy asks for a certificate, token or serial
	// number that the context has no source for, or the source does not have.
	ErrNoCredentials = errors.New("no credentials")
	// ErrBadCredentials: the source of credentials has returned what can not
	// be used, such as a token with a line break, or a certificate with
	// another's key.
	ErrBadCredentials = errors.New("unusable credentials")
	// ErrUnknownMetadata: the streamtype declares no metadata of that name.
	ErrUnknownMetadata = errors.New("unknown metadata")
	// ErrMetadataValue: the value must not stand where the policy puts it, as
	// a line break in a header, or a slash in a host name.
	ErrMetadataValue = errors.New("metadata value not allowed")
	// ErrTemplate: a text with ${metadata} in it is malformed.
	ErrTemplate = errors.New("malformed template")
	// ErrEndpoint: the endpoint, as written or with its metadata put in, is
	// not something to connect to.
	ErrEndpoint = errors.New("bad endpoint")
	// ErrRefused: a callback answered DestroyMe before NewStream returned.
	ErrRefused = errors.New("stream refused by its own handlers")
	// ErrTimeout: the peer did not answer within Options.ConnectTimeout. It is
	// the cause of an attempt's failure, see [Stream.Err].
	ErrTimeout = errors.New("no answer in time")
	// ErrAllRetriesFailed: the peer could not be reached, and the policy has no
	// more retries. The cause of the last failure is wrapped along with it.
	ErrAllRetriesFailed = errors.New("all retries failed")
	// ErrNack: the peer was reached and did not accept; see NackError.
	ErrNack = errors.New("the peer did not accept")
	// ErrTooLong: an answer or message is longer than WithLimit allows.
	ErrTooLong = errors.New("longer than the limit")
	// ErrBodySpent: another attempt would have to send the body again, and that
	// can not be had a second time. The cause of the failure is wrapped along
	// with it.
	ErrBodySpent = errors.New("the body can not be sent a second time")
	// ErrNoBody: there is a body to send, but the policy's http_method has none,
	// or it has no mqtt_topic to send it to.
	ErrNoBody = errors.New("the streamtype sends nothing: its http_method has no body, or it has no mqtt_topic")
	// ErrNoSink: the streamtype is a local_sink, and there is no Sink for it.
	ErrNoSink = errors.New("no sink for the streamtype")
	// ErrSinkRefused: the sink does not let the stream join.
	ErrSinkRefused = errors.New("refused by the sink")
	// ErrSinkExists: there is a sink for the streamtype already.
	ErrSinkExists = errors.New("the streamtype has a sink")
	// ErrDisconnected: a callback answered DisconnectMe. It is the cause of
	// the end of a connection or attempt, see [Stream.Err].
	ErrDisconnected = errors.New("disconnected by the stream's own handlers")
)
