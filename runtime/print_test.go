package runtime_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestPrint checks that fmt does not print the secrets that streams and contexts hold.
func TestPrint(t *testing.T) {
	c := newContext(t, policy.StreamType{
		Protocol: policy.ProtocolRaw, SOCKS5Proxy: "user:s3cret@proxy.example:1080", Metadata: []policy.Metadata{{Name: "m"}},
	}, hang)
	s := newStream(t, c, runtime.Handlers{}, runtime.WithMetadata("m", "s3cret"))
	for _, v := range []any{s, c} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			if text := fmt.Sprintf(format, v); strings.Contains(text, "s3cret") || text == "" {
				t.Errorf("%T %s: %q", v, format, text)
			}
		}
	}
}
