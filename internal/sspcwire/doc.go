// Package sspcwire encodes and decodes version 1 of the serialization protocol between a
// Secure Streams proxy of libwebsockets (lws) and its clients, as in lws 5.0.0.
//
// A link is a byte stream that carries one stream. Each frame is a type, the length of the
// rest in 16 bits, and a body; integers are big-endian. A client opens a link with
// STREAMTYPE, and the proxy answers with CREATE_RESULT.
//
// A [Reader] reads the frames of one direction and rejects those that the receiver of lws
// rejects: an unknown type, a type that is not allowed in the state of the link, a wrong
// length. Methods of [Frame] decode the body, and functions Append... encode a frame. The
// proxy and the client are responsible for links, timers and the order of states.
package sspcwire
