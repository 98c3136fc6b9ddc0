package runtime_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestPrint checks that fmt prints nothing of what streams and contexts keep.
func TestPrint(t *testing.T) {
	c := newContext(t, policy.StreamType{
		Protocol: policy.ProtocolRaw, SOCKS5Proxy: "user:s3cret@proxy.example:1080", Metadata: []policy.Metadata{{Name: "m"}},
	}, hang)
	defer c.Shutdown(context.Background())
	s, err := c.NewStream("s", runtime.Handlers{}, runtime.WithMetadata("m", "s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{s, c} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			if text := fmt.Sprintf(format, v); strings.Contains(text, "s3cret") || text == "" {
				t.Errorf("%T %s: %q", v, format, text)
			}
		}
	}
}
