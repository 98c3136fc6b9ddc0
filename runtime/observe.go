package runtime

import (
	"context"
	"time"
)

// Hooks are functions that are told what the streams of a context do, for
// metrics and traces. Any of them may be nil. They are called in the middle of
// things: they must be quick, may call the methods of a Stream that only read,
// and SetMetadata, and must not call Close of the Context. Those of one stream
// are never called two at a time. A hook that is not set costs nothing.
//
// Package github.com/secure-streams/sspolicy/runtime/otel makes Hooks for
// OpenTelemetry.
type Hooks struct {
	// State is told of each state, before the State callback of the program is.
	// An attempt begins with StateConnecting. It has ended with the next
	// StateUnreachable, StateDisconnected or StateDestroying, when [Stream.Err]
	// says why. ctx is the one that Fetch or Open was given; for other streams
	// it is context.Background().
	State func(ctx context.Context, s *Stream, state State, arg uint32)

	// Wait is told how long it is to the next attempt.
	Wait func(ctx context.Context, s *Stream, d time.Duration)

	// Rx and Tx are told of each piece of payload that has come or is to go,
	// and its length in bytes: of Rx before, of Tx after the program's callback.
	Rx func(ctx context.Context, s *Stream, n int)
	Tx func(ctx context.Context, s *Stream, n int)
}

// context returns what the hooks are given.
func (s *Stream) context() context.Context {
	if s.x == nil {
		return context.Background()
	}
	return s.x.ctx
}
