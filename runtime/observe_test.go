package runtime_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestHooks checks the calls of hooks and their contexts.
func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var got []string
		note := func(ctx context.Context, text string) { got = append(got, fmt.Sprint(ctx.Value(key{}), " ", text)) }
		st := &policy.StreamType{
			Name: "s", Protocol: policy.ProtocolH1, Endpoint: "h", Opportunistic: true, HTTP: &policy.HTTP{Method: "POST"},
			Retry: &policy.Retry{Backoff: ms(1500), Conceal: 1},
		}
		c := teststream.NewContext(t, runtime.Options{
			Transports: []transport.Transport{&fake{each(unreachable, func(ctx context.Context, l transport.Link) error {
				if _, _, err := tx(l, make([]byte, 3)); err != nil {
					return err
				}
				return fetch(ctx, l)
			})}},
			Hooks: runtime.Hooks{
				State: func(ctx context.Context, _ *runtime.Stream, state runtime.State, _ uint32) { note(ctx, state.String()) },
				Wait:  func(ctx context.Context, _ *runtime.Stream, d time.Duration) { note(ctx, d.String()) },
				Rx:    func(ctx context.Context, _ *runtime.Stream, n int) { note(ctx, fmt.Sprint("rx ", n)) },
				Tx:    func(ctx context.Context, _ *runtime.Stream, n int) { note(ctx, fmt.Sprint("tx ", n)) },
			},
		}, st)
		if _, err := c.Fetch(context.WithValue(t.Context(), key{}, "mine"), "s", runtime.WithBody([]byte("abcd"))); err != nil {
			t.Error(err)
		}
		teststream.Shutdown(t, c)
		want := []string{"CREATING", "POLL", "CONNECTING", "UNREACHABLE", "1.5s", "POLL", "CONNECTING", "tx 3", "CONNECTED",
			"rx 4", "QOS_ACK_REMOTE", "DISCONNECTED", "DESTROYING"}
		for i := range want {
			want[i] = "mine " + want[i]
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
