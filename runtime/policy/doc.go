// Package policy defines the compiled form of a Secure Streams policy, and the
// vocabulary of streams and transports.
//
// A [Policy] is a tree of plain tables, of which [StreamType] is the most
// important. codegen.Compile fills them in, and generated Go files spell them out.
// The package also derives what depends on the tables alone: the properties of a
// [Protocol], a [Template] with ${metadata}, the [Target] of an [Endpoint], the
// delays of a [Retry].
//
// The names and numbers of [State], [Flags] and [Result] are those of libwebsockets
// (lws) 5.0.0 (include/libwebsockets/lws-secure-streams.h).
//
// Programs rarely import this package, since package runtime has the names they
// need. Tables must not be modified while a context uses them; they are then safe
// for concurrent use.
package policy
