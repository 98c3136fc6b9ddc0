package http_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
)

// TestSigV4Refused checks policies that can not be executed.
func TestSigV4Refused(t *testing.T) {
	meta := []runtime.Metadata{{Name: "region"}, {Name: "service"}}
	for _, tt := range []struct {
		st   runtime.StreamType
		none bool
		want error
	}{
		{runtime.StreamType{AWSRegion: "region", AWSService: "service"}, false, nil},
		{runtime.StreamType{AWSRegion: "region", AWSService: "service"}, true, runtime.ErrNoCredentials},
		{runtime.StreamType{AWSService: "service"}, false, runtime.ErrUnsupported},
		{runtime.StreamType{AWSRegion: "region"}, false, runtime.ErrUnsupported},
		{runtime.StreamType{AWSRegion: "eu-west-1", AWSService: "service"}, false, runtime.ErrUnknownMetadata},
		{runtime.StreamType{AWSRegion: "region", AWSService: "s3"}, false, runtime.ErrUnknownMetadata},
		{runtime.StreamType{AWSRegion: "region", AWSService: "service", HTTP: &runtime.HTTP{AuthHeader: "authorization:"}}, false, runtime.ErrUnsupported},
		{runtime.StreamType{AWSRegion: "region", AWSService: "service", Protocol: runtime.ProtocolRaw}, false, runtime.ErrUnsupported},
	} {
		st := tt.st
		st.Name, st.Endpoint, st.Metadata, st.Auth = "s", "h", meta, &runtime.Auth{Type: "sigv4"}
		if st.HTTP == nil {
			st.HTTP = &runtime.HTTP{}
		}
		o := runtime.Options{Transports: []runtime.Transport{sshttp.New(sshttp.SigV4)}, Credentials: new(runtime.MemoryCredentials)}
		if tt.none {
			o.Credentials = nil
		}
		c, err := runtime.NewContext(&runtime.Policy{StreamTypes: []*runtime.StreamType{&st}}, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.NewStream("s", runtime.Handlers{}); !errors.Is(err, tt.want) {
			t.Errorf("%q, %q: %v, want %v", st.AWSRegion, st.AWSService, err, tt.want)
		}
		c.Close()
	}
}

// A transport without the option refuses what it is for, and says so.
func TestSigV4Option(t *testing.T) {
	st := runtime.StreamType{Name: "s", Endpoint: "h", HTTP: new(runtime.HTTP), Auth: &runtime.Auth{Type: runtime.AuthSigV4},
		Metadata: []runtime.Metadata{{Name: "r"}}, AWSRegion: "r", AWSService: "r"}
	c, err := runtime.NewContext(&runtime.Policy{StreamTypes: []*runtime.StreamType{&st}},
		runtime.Options{Transports: []runtime.Transport{sshttp.New()}, Credentials: new(runtime.MemoryCredentials)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.NewStream("s", runtime.Handlers{}); !errors.Is(err, runtime.ErrUnsupported) || !strings.Contains(err.Error(), "SigV4") {
		t.Errorf("%v", err)
	}
}
