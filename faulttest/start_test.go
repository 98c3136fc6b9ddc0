package faulttest_test

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"github.com/secure-streams/sspolicy/faulttest"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// production returns a policy with a host and trust store.
func production() *policy.Policy {
	return &policy.Policy{StreamTypes: []*policy.StreamType{{
		Name: "get_weather", Endpoint: "api.example.com", Port: 443, TLS: true, TrustStore: testcert.New("production").Store(),
		Opportunistic: true, HTTP: &policy.HTTP{Method: "GET", URL: "weather"},
	}}}
}

// TestStart runs a program against a fault, as a test of the program does.
func TestStart(t *testing.T) {
	p := production()
	for _, tt := range []struct {
		fault *faulttest.Fault
		fails func(error) bool
	}{
		{faulttest.TLSExpired, func(err error) bool { return err != nil }},
		{faulttest.Refused, func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }},
		{faulttest.HTTPStatus, func(err error) bool {
			nack, ok := errors.AsType[*runtime.NackError](err)
			return ok && nack.Status == 500
		}},
		{faulttest.TLSRevoked, func(err error) bool { return err == nil }},
	} {
		t.Run(tt.fault.Name, func(t *testing.T) {
			f := faulttest.Start(t, p, "get_weather", tt.fault)
			c, err := runtime.NewContext(f.Policy, f.Options(runtime.Options{Transports: []transport.Transport{http.New()}}))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Shutdown(context.Background())
			if _, err := c.Fetch(t.Context(), "get_weather"); !tt.fails(err) {
				t.Errorf("Fetch: %v", err)
			}
			if f.Strikes() == 0 {
				t.Error("the peer did not misbehave")
			}
		})
	}
	if p.StreamTypes[0].Endpoint != "api.example.com" || p.StreamTypes[0].TrustStore.Name != "production" {
		t.Error("the policy has changed")
	}
}

// TestCheck records the states of a program's own stream.
func TestCheck(t *testing.T) {
	f := faulttest.Start(t, production(), "get_weather", faulttest.TLSWrongHost)
	c, err := runtime.NewContext(f.Policy, f.Options(runtime.Options{Transports: []transport.Transport{http.New()}}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Shutdown(context.Background())
	end := make(chan struct{})
	s, err := c.NewStream("get_weather", f.Observe(runtime.Handlers{State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		if state == runtime.StateAllRetriesFailed {
			close(end)
		}
		return runtime.OK
	}}))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Check(); err == nil {
		t.Error("Check accepts a sequence that is not complete")
	}
	s.RequestTx()
	<-end
	if err := f.Check(); err != nil {
		t.Errorf("%v (want %s)", err, f.Want())
	}
}

// TestArgs checks errors of users.
func TestArgs(t *testing.T) {
	p := production()
	for _, tt := range []struct {
		stream, want string
		fault        *faulttest.Fault
		args         faulttest.Args
	}{
		{"get_wether", `unknown streamtype "get_wether"`, faulttest.Refused, nil},
		{"get_weather", `fault refused has no parameters, but "x" is set`, faulttest.Refused, faulttest.Args{"x": "1"}},
		{"get_weather", `fault latency has no parameter "x": want one of ms, jitter`, faulttest.Latency, faulttest.Args{"x": "1"}},
		{"get_weather", `parameter ms of fault latency must be a number from 1 to 600000, not "0"`, faulttest.Latency, faulttest.Args{"ms": "0"}},
		{"get_weather", `parameter of of fault reset must be one of server, client, not "x"`, faulttest.Reset, faulttest.Args{"of": "x"}},
		{"get_weather", `fault ws-mute does not apply to streamtype "get_weather": the fault is not for protocol h1`, faulttest.WSMute, nil},
	} {
		_, err := faulttest.Open(p, tt.stream, tt.fault, faulttest.Options{Args: tt.args})
		if err == nil || err.Error() != tt.want && !errors.Is(err, policy.ErrUnknownStreamType) {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
}

// TestListen checks addresses to listen on.
func TestListen(t *testing.T) {
	for listen, want := range map[string]string{
		":4433":      `the address to listen on must be a single IPv4 address, to which the stream connects, not ":4433"`,
		"0.0.0.0:80": `the address to listen on must be a single IPv4 address, to which the stream connects, not "0.0.0.0:80"`,
		"[::1]:80":   `the address to listen on must be a single IPv4 address, to which the stream connects, not "[::1]:80"`,
		"here":       "the address to listen on must be HOST:PORT, such as 127.0.0.1:4433: address here: missing port in address",
	} {
		_, err := faulttest.Open(production(), "get_weather", faulttest.Refused, faulttest.Options{Listen: listen})
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v", listen, err)
		}
	}
}
