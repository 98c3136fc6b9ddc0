// Package sspcwire encodes and decodes the serialization protocol of libwebsockets
// (lws) between a Secure Streams proxy and its clients, version 1, as lws 5.0.0
// speaks it.
//
// A link is a byte stream that carries one stream. Each frame is a type, the length
// of the rest in 16 bits, and a body; integers are big-endian. A client opens a link
// with STREAMTYPE, which the proxy answers with CREATE_RESULT.
//
// A [Reader] reads the frames of one direction and rejects those that the receiver of
// lws rejects: an unknown type, a type that must not come now, a wrong length. Methods
// of [Frame] decode the body, and functions Append... encode a frame. The package does
// no more: links, timers and order of states are up to the proxy and the client.
package sspcwire
