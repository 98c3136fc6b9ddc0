package mqtt

import (
	"errors"
	"fmt"
)

// Errors of [runtime.Stream.Err], to compare with [errors.Is]. What is returned
// mostly wraps one of them and says more.
var (
	// ErrProtocol: the server sent what MQTT 3.1.1 does not allow. The
	// connection was closed.
	ErrProtocol = errors.New("the server does not keep to MQTT 3.1.1")
	// ErrTopic: a topic or filter of the policy, with its metadata put in, is
	// none. A message for mqtt_topic is a NAK then; if its rest was still to
	// come, the stream is disconnected as well.
	ErrTopic = errors.New("bad topic")
	// ErrSubscribe: the server did not take the subscription.
	ErrSubscribe = errors.New("the server refused the subscription")
	// ErrBirth: nobody acknowledged the birth message.
	ErrBirth = errors.New("the birth message was not acknowledged")
	// ErrDisagree: another stream has the connection of the client id, and
	// the two do not agree on the settings of a connection: user name,
	// mqtt_keep_alive, mqtt_clean_start and mqtt_will_....
	ErrDisagree = errors.New("another stream is connected by the same client id with other settings")
	// ErrTooMany: a connection carries no more streams.
	ErrTooMany = errors.New("too many streams on the connection of the client id")
	// ErrSlow: other streams on the connection had to wait for a callback of
	// this one, or for the rest of its message, for too long.
	ErrSlow = errors.New("the stream kept others on its connection waiting")
	// ErrLength: a message without RequestTxLen is longer than 1 MiB, or one
	// with it is shorter than that said.
	ErrLength = errors.New("RequestTxLen has to say how long a message of more than 1 MiB is")
	// ErrClientID: the client id of the credentials can not be used.
	ErrClientID = errors.New("unusable client id")
)

// A RefusedError is the answer of a server that does not want the connection.
type RefusedError struct {
	Code byte // 1 to 5, of section 3.2.2.3
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
