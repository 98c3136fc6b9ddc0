package runtime_test

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestImports checks that the package imports neither other modules nor net/http.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}{{if eq .ImportPath \"net/http\"}}net/http{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		if !strings.HasPrefix(path, "github.com/secure-streams/sspolicy/runtime") {
			t.Errorf("the package imports %s", path)
		}
	}
}

func TestNewContext(t *testing.T) {
	if _, err := runtime.NewContext(nil, runtime.Options{}); err == nil {
		t.Error("NewContext accepts a nil policy")
	}
	two := []transport.Transport{&fake{}, &fake{}}
	if _, err := runtime.NewContext(&policy.Policy{}, runtime.Options{Transports: two}); err == nil || !strings.Contains(err.Error(), "two transports") {
		t.Errorf("two transports for one protocol: %v", err)
	}
}

func TestNewStreamErrors(t *testing.T) {
	raw := policy.StreamType{Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1}
	with := func(f func(*policy.StreamType)) policy.StreamType { st := raw; f(&st); return st }
	for _, tt := range []struct {
		name string
		st   policy.StreamType
		want error
		text string
	}{
		{"s", raw, nil, ""},
		{"other", raw, runtime.ErrUnknownStreamType, `"other"`},
		{"s", with(func(st *policy.StreamType) { st.Protocol = policy.ProtocolH3; st.HTTP = &policy.HTTP{} }), runtime.ErrNoTransport, "sspolicy/runtime/h3"},
		{"s", with(func(st *policy.StreamType) { st.Protocol = policy.ProtocolH2; st.HTTP = &policy.HTTP{} }), runtime.ErrNoTransport, "sspolicy/runtime/http"},
		{"s", with(func(st *policy.StreamType) { st.Protocol = 77 }), runtime.ErrUnsupported, "77"},
		{"s", with(func(st *policy.StreamType) { st.Server = true }), runtime.ErrUnsupported, "server over raw"},
		{"s", with(func(st *policy.StreamType) { st.LocalSink = true }), runtime.ErrNoTransport, "sspolicy/runtime/sink"},
		{"s", with(func(st *policy.StreamType) { st.Rideshare = "x" }), runtime.ErrUnsupported, "it speaks raw"},
		{"s", with(func(st *policy.StreamType) { st.SOCKS5Proxy = "p:x" }), runtime.ErrEndpoint, "via-socks5"},
		{"s", with(func(st *policy.StreamType) { st.DirectProtoStr = true; st.Protocol = policy.ProtocolRaw }), runtime.ErrUnsupported, "direct_proto_str"},
		{"s", with(func(st *policy.StreamType) { st.Auth = &policy.Auth{} }), runtime.ErrNoCredentials, "use_auth"},
		{"s", with(func(st *policy.StreamType) { st.ClientCert = 1 }), runtime.ErrNoCredentials, "client_cert"},
		{"s", with(func(st *policy.StreamType) { st.Endpoint = "${x}" }), runtime.ErrUnknownMetadata, `"x"`},
		{"s", with(func(st *policy.StreamType) { st.Endpoint = "${x" }), runtime.ErrTemplate, "${x"},
		{"s", with(func(st *policy.StreamType) { st.Endpoint = "" }), nil, ""}, // for raw.Adopt
		{"s", with(func(st *policy.StreamType) {
			st.Protocol, st.HTTP, st.Endpoint = policy.ProtocolH1, &policy.HTTP{}, ""
		}), runtime.ErrEndpoint, ""},
		{"s", with(func(st *policy.StreamType) {
			st.Protocol = policy.ProtocolH1
			st.HTTP = &policy.HTTP{URL: "/${x}"}
		}), runtime.ErrUnknownMetadata, "http_url"},
	} {
		st := tt.st
		st.Name = "s"
		c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{&fake{}}}, &st)
		called := false
		s, err := c.NewStream(tt.name, runtime.Handlers{State: func(*runtime.Stream, runtime.State, uint32) runtime.Result {
			called = true
			return runtime.OK
		}})
		if tt.want == nil {
			if err != nil || s == nil || s.StreamType() != &st || s.State() != runtime.StateCreating {
				t.Errorf("a good streamtype: %v", err)
			}
		} else if s != nil || called || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("got %v, want %v with %q; State was called: %v", err, tt.want, tt.text, called)
		}
	}
}

func TestMetadata(t *testing.T) {
	var sent, expanded, url string
	st := policy.StreamType{
		Protocol: policy.ProtocolH1, Endpoint: "${host}.test", Port: 1,
		HTTP:     &policy.HTTP{URL: "/${path}"},
		Metadata: []policy.Metadata{{Name: "host"}, {Name: "path"}, {Name: "hdr", Header: "x-h:"}, {Name: "free"}},
	}
	c := newContext(t, st, func(_ context.Context, l transport.Link) error {
		if _, set := l.Metadata(3); set {
			t.Error("an item is set that the program has not set")
		}
		sent, _ = l.Metadata(2)
		expanded, url = l.Target().Address(), l.URL()
		l.Receive(2, "from the peer")
		return fetch(context.Background(), l)
	})
	done := make(chan struct{}, 1)
	var atDis string
	s := newStream(t, c, runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		switch state {
		case runtime.StateConnecting:
			if v, _ := s.Metadata("hdr"); v != "first" && v != "late" {
				t.Errorf("hdr is %q, which the peer sent in the last attempt", v)
			}
			s.SetMetadata("hdr", "late")
			s.SetMetadata("path", "too-late")
		case runtime.StateDisconnected:
			atDis, _ = s.Metadata("hdr")
			done <- struct{}{}
		}
		return runtime.OK
	}})
	for _, kv := range [][2]string{{"host", "h"}, {"path", "p?q=1"}, {"hdr", "first"}} {
		if err := s.SetMetadata(kv[0], kv[1]); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		s.RequestTx()
		<-done
		if sent != "late" || atDis != "from the peer" {
			t.Errorf("sent %q and received %q", sent, atDis)
		}
	}
	if expanded != "h.test:1" || url != "/too-late" { // of the second request
		t.Errorf("expanded to %s and %s", expanded, url)
	}
	if v, err := s.Metadata("free"); v != "" || err != nil {
		t.Errorf("an unset item is %q, %v", v, err)
	}
	if _, err := s.Metadata("nobody"); !errors.Is(err, runtime.ErrUnknownMetadata) {
		t.Error(err)
	}
	if err := s.SetMetadata("nobody", ""); !errors.Is(err, runtime.ErrUnknownMetadata) {
		t.Error(err)
	}
	for _, kv := range [][2]string{{"host", "a/b"}, {"path", "a\r\nb"}, {"hdr", "a\nb"}, {"hdr", "a\x00b"}} {
		if err := s.SetMetadata(kv[0], kv[1]); !errors.Is(err, runtime.ErrMetadataValue) {
			t.Errorf("%s accepts %q: %v", kv[0], kv[1], err)
		}
	}
	if v, _ := s.Metadata("path"); v != "too-late" {
		t.Errorf("a refused value changed the item to %q", v)
	}
}

func TestErr(t *testing.T) {
	for _, tt := range []struct {
		run  run
		want error
		arg  uint32
	}{
		{unreachable, errFake, 0},
		{func(context.Context, transport.Link) error { return &net.DNSError{IsNotFound: true} }, &net.DNSError{}, 0},
		{func(context.Context, transport.Link) error {
			return &net.OpError{Err: &net.DNSError{IsTemporary: true}}
		}, &net.DNSError{}, 1},
		{func(context.Context, transport.Link) error { return nil }, errors.New(""), 0},
	} {
		done := make(chan uint32, 1)
		s := newStream(t, newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, tt.run), runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
			if state == runtime.StateUnreachable {
				done <- arg
			}
			return runtime.OK
		}})
		s.Connect()
		if arg := <-done; arg != tt.arg {
			t.Errorf("%v: UNREACHABLE has arg %d, want %d", s.Err(), arg, tt.arg)
		}
		if s.Err() == nil || tt.want == errFake && !errors.Is(s.Err(), errFake) {
			t.Errorf("Err is %v", s.Err())
		}
	}
}
