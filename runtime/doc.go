// Package runtime executes compiled Secure Streams policies.
//
// A program names a streamtype and moves payload. The policy says the rest:
// where the peer is, what is spoken to it, whom to trust, when to try again.
//
//	c, err := runtime.NewContext(policy, runtime.Options{
//		Transports: []runtime.Transport{http.New()},
//	})
//	...
//	answer, err := c.Fetch(ctx, "get_weather", runtime.WithMetadata("city", "Paris"))
//
// There are three ways to move payload. [Context.Fetch] makes a request and
// returns the answer. [Context.Open] returns a [Conn], which is an
// [io.ReadWriteCloser], and has [Conn.Messages] to range over. And there is what
// both are made of, and the only way to do all that libwebsockets can:
// [Context.NewStream] with callbacks.
//
//	s, err := c.NewStream("get_weather", runtime.Handlers{
//		State: func(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result { ... },
//		Rx:    func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result { ... },
//	}, runtime.WithMetadata("city", "Paris"))
//	...
//	s.RequestTx()
//
// What there is beside that: another policy while streams live
// ([Context.SetPolicy], [Context.Overlay]), credentials ([Credentials]), streams
// that end in the program ([Context.NewSink]), messages between its parts
// ([Context.SMD]), and reports of all that happens ([Hooks]).
//
// A [Context] holds a policy and the streams made from it. A [Stream] outlives
// its connections: it is told of each step by its [Handlers], and answers with
// a [Result]. A [Transport] makes the connections; a program links one, from
// the packages below this one, for each protocol family its policy uses. This
// package itself needs nothing but the standard library, and not net/http.
//
// # Callbacks
//
// The callbacks of one stream never run at the same time; those of two streams
// may. They run on goroutines of this package, never inside a call that the
// program makes, but for one exception: [Context.NewStream] delivers
// [StateCreating], and what a stream that connects at once has to say before
// its first attempt (without a network, up to [StateConnected]), before it
// returns. So a program may hold its own locks while it calls any method of a
// Stream, also when its callbacks take the same locks. Every method of Stream may
// be called from inside its callbacks.
//
// # Transports
//
// What follows is for packages that speak a protocol, and a program has no use for
// it: [Transport], [Connector], [Link], [Target], [Dialer], [Proxy], [Validity],
// [Perf], [Template], [TransportOption], the TransportData of streams, and those
// methods of Context whose documentation says so.
//
// The names and numbers of states, flags and results are those of
// libwebsockets 5.0.0 (include/libwebsockets/lws-secure-streams.h). Where the
// behaviour differs from it on purpose, docs/runtime.md says so.
package runtime
