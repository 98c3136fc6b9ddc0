// Package sspcmux multiplexes byte streams over one, such as a serial line. It implements
// the mux transport of libwebsockets (lws) 5.0.0.
//
// Each end of a line has a [Session], which is up when both ends have answered a ping. Then
// the client opens channels, and the server accepts them. A channel is a [net.Conn] for a
// link of package sspcwire.
//
// The wire is a sequence of commands: a byte, usually a channel number, and the data of the
// command. It has no checksum. An end that receives an unknown command, or no answer to a
// ping, is out of sync. It drops all channels, reports that to the peer with
// RESET_TRANSPORT, and skips bytes until it recognizes a ping or an answer.
//
// lws keeps a channel until the line is down, whichever end closes it, and does not answer
// CHANNEL_CLOSE. So the number of a channel is not reused before the peer has released it,
// and a client resets the line when no other channel is left.
//
// Ends of this package recognize each other by the second time of PONG. Between them,
// channels have flow control, by a command that lws does not have.
package sspcmux
