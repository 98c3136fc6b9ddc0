package runtime

import (
	"cmp"
	"context"
	"time"
)

// Hooks are functions that observe the streams of a context, for metrics and
// traces. Any of them may be nil; one that is nil costs nothing. They are called
// while a stream is at work: they must be quick, and may call SetMetadata and the
// methods of a Stream that only read. Those of one stream never run at the same
// time.
//
// Package github.com/secure-streams/sspolicy/runtime/otel makes Hooks for
// OpenTelemetry.
type Hooks struct {
	// State is called for each state, before the State callback of the program.
	// An attempt begins with StateConnecting. It has ended with the next
	// StateUnreachable, StateDisconnected or StateDestroying, when [Stream.Err]
	// returns the reason. ctx is the context of Fetch or Open; for other streams
	// it is context.Background().
	State func(ctx context.Context, s *Stream, state State, arg uint32)

	// Wait is called with the time until the next attempt.
	Wait func(ctx context.Context, s *Stream, d time.Duration)

	// Rx and Tx are called with the length in bytes of each piece of payload
	// that has arrived or is to be sent: Rx before, Tx after the program's
	// callback.
	Rx func(ctx context.Context, s *Stream, n int)
	Tx func(ctx context.Context, s *Stream, n int)
}

// context returns the context for hooks.
func (s *Stream) context() context.Context { return cmp.Or(s.hooksContext, context.Background()) }
