// Package policy defines the compiled form of a Secure Streams policy, and the
// vocabulary that streams and transports share.
//
// A [Policy] is a tree of plain tables, of which [StreamType] is the most important.
// codegen.Compile fills them in, and generated Go files spell them out. What
// follows from the tables alone is here too: the properties of a [Protocol], a
// [Template] with ${metadata}, the [Target] of an [Endpoint], the delays of a
// [Retry].
//
// The names and numbers of [State], [Flags] and [Result] are those of libwebsockets
// (lws) 5.0.0 (include/libwebsockets/lws-secure-streams.h).
//
// Programs rarely import this package: package runtime has the names they need. A
// table must not be modified while a context uses it, and then may be read by any
// number of goroutines.
package policy
