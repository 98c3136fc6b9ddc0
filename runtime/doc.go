// Package runtime executes compiled Secure Streams policies.
//
// A program names a streamtype and moves payload. The policy defines the rest:
// where the peer is, which protocol it speaks, whom to trust, when to retry.
//
//	c, err := runtime.NewContext(policy, runtime.Options{
//		Transports: []transport.Transport{http.New()},
//	})
//	...
//	response, err := c.Fetch(ctx, "get_weather", runtime.WithMetadata("city", "Paris"))
//
// # Contexts
//
// A [Context] holds a policy and the streams made from it; [Options] configure it.
// It executes each protocol with a transport from the packages below this one:
// http, h3, ws, mqtt, raw; file for endpoints that are local files; sink and smd
// for streams within the program. A program links those that its policy needs. This
// package itself imports only the standard library, without net/http.
//
// [Context.SetPolicy] and [Context.Overlay] replace the policy while streams live.
// [Context.Close] ends all streams; [Context.Shutdown] also waits for them.
//
// # Streams
//
// A [Stream] is one use of a streamtype. It outlives its connections: the policy
// decides when it reconnects. [Context.NewStream] makes one with callbacks, which
// give access to all features of libwebsockets.
//
//	s, err := c.NewStream("get_weather", runtime.Handlers{
//		State: func(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result { ... },
//		Rx:    func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result { ... },
//	}, runtime.WithMetadata("city", "Paris"))
//	...
//	s.RequestTx()
//
// # Handlers
//
// [Handlers] are the callbacks of a stream: they receive each [State] that it
// reaches and each piece of payload, and return a [Result].
//
// The callbacks of one stream never overlap; those of different streams may. They
// run on goroutines of this package, never inside a call that the program makes,
// with one exception: before it returns, NewStream delivers [StateCreating], and
// the states up to the first attempt of a stream that connects at once (without a
// network, up to [StateConnected]). A program may therefore hold its own locks
// while it calls methods of a Stream, even if its callbacks acquire the same locks.
// Callbacks may call every method of Stream and Context except Shutdown.
//
// # Calls
//
// Fetch and Open wrap a stream for programs that prefer calls to callbacks.
// [Context.Fetch] makes a request and returns the [Response]. [Context.Open]
// returns a [Conn], an [io.ReadWriteCloser] with [Conn.Messages] to range over.
// They use only the exported methods of Context and Stream.
//
// # Servers
//
// A stream of a server streamtype is a listener: NewStream opens its port. Each
// client is a stream that the listener accepts, with handlers of its own; see
// [WithClients]. [Context.Serve] serves until a context is done, [Context.Handle]
// serves requests with a net/http handler, and [Context.Accept] ranges over
// connections.
//
// # Options
//
// A [StreamOption] is an option of a new stream, such as [WithMetadata]; a
// [CallOption] is an option of Fetch and Open, such as [WithBody]. [Credentials], a
// [CookieJar], a [Logger] and [Hooks] are options of a context.
//
// # Errors
//
// Errors wrap one of the variables of this package, for use with [errors.Is]; a
// [NackError], [TrustError] or [ProxyError] has details.
//
// Names and numbers of states, flags and results are those of libwebsockets 5.0.0
// (include/libwebsockets/lws-secure-streams.h). docs/runtime.md describes the
// sequences of states, docs/differences.md the intended differences from lws.
package runtime
