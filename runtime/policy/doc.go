// Package policy is the compiled form of a Secure Streams policy, and the
// vocabulary that streams and transports share.
//
// The tables are plain data: codegen.Compile fills them in, and generated Go
// files spell them out. [Policy] and [StreamType] come first. Around the tables
// stand the facts that follow from them alone: the [Protocol] table, the
// [Template] of a text with ${metadata}, the [Target] of an endpoint, the
// arithmetic of a [Retry]. A [State], [Flags] and [Result] have the names and
// numbers of libwebsockets 5.0.0 (include/libwebsockets/lws-secure-streams.h).
//
// Programs rarely need this package: package runtime has the names they use.
package policy
