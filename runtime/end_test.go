package runtime_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestOnEnd checks that OnEnd calls the latest function once, when the stream ends the
// connection, with the cause of the context.
func TestOnEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		set    func(ctx context.Context, l transport.Link, call func(string) func())
		called []string
	}{
		"set": {func(_ context.Context, l transport.Link, call func(string) func()) { l.OnEnd(call("a")) }, []string{"a"}},
		"replaced": {func(_ context.Context, l transport.Link, call func(string) func()) {
			l.OnEnd(call("a"))
			l.OnEnd(call("b"))
		}, []string{"b"}},
		"taken back": {func(_ context.Context, l transport.Link, call func(string) func()) { l.OnEnd(call("a")); l.OnEnd(nil) }, nil},
		"late": {func(ctx context.Context, l transport.Link, call func(string) func()) {
			<-ctx.Done()
			l.OnEnd(call("a"))
		}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var called []string
				unused := false
				c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, func(ctx context.Context, l transport.Link) error {
					if err := l.Connected(); err != nil {
						return err
					}
					tt.set(ctx, l, func(name string) func() {
						return func() {
							called = append(called, name)
							if cause := context.Cause(ctx); !errors.Is(cause, runtime.ErrClosed) {
								t.Errorf("the cause is %v", cause)
							}
						}
					})
					<-ctx.Done()
					synctest.Wait()
					unused = l.OnEnd(nil)
					return ctx.Err()
				})
				s := newStream(t, c, runtime.Handlers{})
				s.Connect()
				synctest.Wait()
				s.Destroy()
				teststream.Shutdown(t, c)
				if !slices.Equal(called, tt.called) || unused {
					t.Errorf("called %q, want %q; unused afterwards: %v", called, tt.called, unused)
				}
			})
		})
	}
}
