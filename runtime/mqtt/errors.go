package mqtt

import (
	"errors"
	"fmt"
)

// Errors for use with [errors.Is]. Most errors of [runtime.Stream.Err] wrap one of
// them and add details.
var (
	// ErrProtocol is returned when the server has violated MQTT 3.1.1. The
	// connection has been closed.
	ErrProtocol = errors.New("the server violates MQTT 3.1.1")
	// ErrTopic is returned when a topic or filter of the policy is invalid after
	// its metadata has been inserted. A message to an invalid mqtt_topic results in
	// QOS_NACK_REMOTE; if part of it has not been passed yet, the stream is also
	// disconnected.
	ErrTopic = errors.New("bad topic")
	// ErrSubscribe is returned when the server has refused the subscription.
	ErrSubscribe = errors.New("the server refused the subscription")
	// ErrBirth is returned when the birth message was not acknowledged.
	ErrBirth = errors.New("the birth message was not acknowledged")
	// ErrDisagree is returned when another stream is connected with the same client
	// id but another user name, mqtt_keep_alive, mqtt_clean_start or mqtt_will_...
	// than this one.
	ErrDisagree = errors.New("another stream is connected with the same client id but other settings")
	// ErrTooMany is returned when the connection of the client id carries its
	// maximum of 256 streams.
	ErrTooMany = errors.New("too many streams on the connection of the client id")
	// ErrSlow is returned when a callback of the stream, or a pause in the middle
	// of its message, has blocked other streams of the connection for too long.
	ErrSlow = errors.New("the stream blocked others on its connection")
	// ErrLength is returned when a message without RequestTxLen exceeds 1 MiB, or
	// one with RequestTxLen has another length.
	ErrLength = errors.New("a message of more than 1 MiB needs its exact length by RequestTxLen")
	// ErrClientID is returned when the client id of the credentials is unusable.
	ErrClientID = errors.New("unusable client id")
)

// A RefusedError reports a CONNACK that refuses the connection.
type RefusedError struct {
	Code byte // 1 to 5, see MQTT 3.1.1 section 3.2.2.3
}

var refusals = [...]string{
	1: "unacceptable protocol version",
	2: "client id rejected",
	3: "server unavailable",
	4: "bad user name or password",
	5: "not authorized",
}

func (e *RefusedError) Error() string {
	why := ""
	if int(e.Code) < len(refusals) {
		why = ": " + refusals[e.Code]
	}
	return fmt.Sprintf("the server refused the connection with code %d%s", e.Code, why)
}
