package http_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestSigV4Refused checks policies that cannot be executed.
func TestSigV4Refused(t *testing.T) {
	meta := []policy.Metadata{{Name: "region"}, {Name: "service"}}
	for _, tt := range []struct {
		st   policy.StreamType
		none bool // without Options.Credentials
		want error
	}{
		{policy.StreamType{AWSRegion: "region", AWSService: "service"}, false, nil},
		{policy.StreamType{AWSRegion: "region", AWSService: "service"}, true, transport.ErrNoCredentials},
		{policy.StreamType{AWSService: "service"}, false, transport.ErrUnsupported},
		{policy.StreamType{AWSRegion: "region"}, false, transport.ErrUnsupported},
		{policy.StreamType{AWSRegion: "eu-west-1", AWSService: "service"}, false, runtime.ErrUnknownMetadata},
		{policy.StreamType{AWSRegion: "region", AWSService: "s3"}, false, runtime.ErrUnknownMetadata},
		{policy.StreamType{AWSRegion: "region", AWSService: "service", HTTP: &policy.HTTP{AuthHeader: "authorization:"}}, false, transport.ErrUnsupported},
		{policy.StreamType{AWSRegion: "region", AWSService: "service", Protocol: policy.ProtocolRaw}, false, transport.ErrUnsupported},
	} {
		st := tt.st
		st.Name, st.Endpoint, st.Metadata, st.Auth = "s", "h", meta, &policy.Auth{Type: "sigv4"}
		if st.HTTP == nil {
			st.HTTP = &policy.HTTP{}
		}
		o := runtime.Options{Transports: []transport.Transport{sshttp.New(sshttp.SigV4)}, Credentials: new(credentials.Memory)}
		if tt.none {
			o.Credentials = nil
		}
		c := newPolicy(t, []*policy.StreamType{&st}, o)
		if _, err := c.NewStream("s", runtime.Handlers{}); !errors.Is(err, tt.want) {
			t.Errorf("%q, %q: %v, want %v", st.AWSRegion, st.AWSService, err, tt.want)
		}
	}
}

// TestSigV4Option checks that a transport without the option names it.
func TestSigV4Option(t *testing.T) {
	st := policy.StreamType{Name: "s", Endpoint: "h", HTTP: new(policy.HTTP), Auth: &policy.Auth{Type: policy.AuthSigV4},
		Metadata: []policy.Metadata{{Name: "r"}}, AWSRegion: "r", AWSService: "r"}
	c := newPolicy(t, []*policy.StreamType{&st}, runtime.Options{Credentials: new(credentials.Memory)})
	if _, err := c.NewStream("s", runtime.Handlers{}); !errors.Is(err, transport.ErrUnsupported) || !strings.Contains(err.Error(), "SigV4") {
		t.Errorf("%v", err)
	}
}
