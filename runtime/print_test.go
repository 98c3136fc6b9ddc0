package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestPrint checks that fmt does not print the secrets that streams, contexts, policies and
// options hold.
func TestPrint(t *testing.T) {
	st := policy.StreamType{
		Protocol: policy.ProtocolRaw, SOCKS5Proxy: "user:s3cret@proxy.example:1080", Metadata: []policy.Metadata{{Name: "m"}},
		ServerKey: &policy.Cert{Name: "key", DER: "s3cret"},
	}
	p := policy.Policy{SOCKS5Proxy: "user:s3cret:@@proxy.example", StreamTypes: []*policy.StreamType{&st}}
	c := newContext(t, st, hang)
	metadata := runtime.WithMetadata("m", "s3cret")
	s := newStream(t, c, runtime.Handlers{}, metadata)
	for _, v := range []any{s, c, st, &st, p, &p, *st.ServerKey, []*policy.Cert{st.ServerKey}, metadata, []runtime.CallOption{metadata}} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			if text := fmt.Sprintf(format, v); strings.Contains(text, "s3cret") || strings.Contains(text, "733363726574") || text == "" {
				t.Errorf("%T %s: %q", v, format, text)
			}
		}
	}
}

// TestErrorsHideMetadata checks that errors of a resolver name the endpoint as the policy
// does, and not the metadata in it.
func TestErrorsHideMetadata(t *testing.T) {
	for endpoint, want := range map[string]string{
		"${m}.invalid": "lookup ${m}.invalid: no such host (s3crets.invalid-x, as3cret.invalid)",
		"${m}":         "lookup ${m}: no such host (s3crets.invalid-x, as3cret.invalid)",
	} {
		st := policy.StreamType{Protocol: policy.ProtocolRaw, Endpoint: endpoint, Port: 1, Metadata: []policy.Metadata{{Name: "m"}}}
		c := newContext(t, st, func(_ context.Context, l transport.Link) error {
			return fmt.Errorf("%w (s3crets.invalid-x, as3cret.invalid)", &net.DNSError{Err: "no such host", Name: l.Target().Host, IsNotFound: true})
		})
		_, err := c.Open(t.Context(), "s", runtime.WithMetadata("m", map[bool]string{true: "s3cret", false: "s3cret.invalid"}[endpoint != "${m}"]))
		if dns, ok := errors.AsType[*net.DNSError](err); !ok || !dns.IsNotFound || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

// TestResponsePrint checks that a response without a state does not print one of lws.
func TestResponsePrint(t *testing.T) {
	if text := fmt.Sprintf("%+v", runtime.Response{}); strings.Contains(text, "STATE_0") {
		t.Error(text)
	}
}
