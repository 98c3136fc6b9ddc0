package system_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/system"
)

// portalPolicy is what lws's examples have, but for the endpoint and the retry.
const portalPolicy = `{ "schema-version": 1, "retry": [ { "r": { "backoff": [ 10 ], "conceal": 2 } } ], "s": [ {
  "captive_portal_detect": { "endpoint": "127.0.0.1", "http_url": "generate_204", "port": PORT, "protocol": "h1",
    "http_method": "GET", "http_expect": 204, "http_fail_redirect": true, "opportunistic": true, "retry": "r" } } ] }`

// internet is a server as the ones that are asked for generate_204, and some of
// those that answer in its place.
func internet(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/generate_204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	mux.HandleFunc("/login", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "who are you?") })
	mux.HandleFunc("/portal", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) })
	mux.HandleFunc("/sly", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/generate_204", http.StatusFound) })
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "short")
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// closedPort returns a port that nobody listens on.
func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return portOf(l.Addr().String())
}

// TestOutcomes: the three of them, each by an overlay of nothing but settings of
// captive_portal_detect, as the examples of lws force them.
func TestOutcomes(t *testing.T) {
	base := policy(t, strings.Replace(portalPolicy, "PORT", portOf(internet(t).URL), 1))
	for _, test := range []struct {
		name, settings string
		want           system.Outcome
	}{
		{"as it is", ``, system.OK},
		{"redirected", `"http_url": "portal"`, system.Captive},
		{"redirected and followed", `"http_url": "sly", "allow_redirects": true`, system.Captive},
		{"no fail_redirect", `"http_url": "portal", "http_fail_redirect": false`, system.NoInternet},
		{"followed without fail_redirect", `"http_url": "sly", "allow_redirects": true, "http_fail_redirect": false`, system.OK},
		{"another status", `"http_url": "login"`, system.NoInternet},
		{"not found", `"http_url": "none"`, system.NoInternet},
		{"cut short", `"http_url": "cut"`, system.NoInternet},
		{"refused", `"port": ` + closedPort(t), system.NoInternet},
		{"TLS where there is none", `"tls": true`, system.NoInternet},
		{"no answer", `"http_url": "hang"`, system.NoInternet},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed, err := sspolicy.Compile(base.Document, lint.Options{}, fragment(`{ "s": [ { "captive_portal_detect": {`+test.settings+`} } ] }`))
			if err != nil {
				t.Fatal(err)
			}
			c := newContext(t, base.Policy)
			if err := c.Overlay(changed.Policy); err != nil {
				t.Fatal(err)
			}
			told := listen(c, smd.ClassNetwork)
			o := system.DetectorOptions{}
			if strings.Contains(test.settings, "hang") {
				o.Timeout = 50 * time.Millisecond
			}
			d := system.NewDetector(c, o)
			defer d.Close()
			if d.Outcome() != system.Unknown {
				t.Errorf("before: %v", d.Outcome())
			}
			got, err := d.Check(t.Context())
			if got != test.want || err != nil || d.Outcome() != test.want {
				t.Errorf("%v, %v, %v; want %v", got, d.Outcome(), err, test.want)
			}
			if m, want := told.next(), fmt.Sprintf(`{"type":"cpd","result":"%v"}`, test.want); m != want {
				t.Errorf("told %s, want %s", m, want)
			}
		})
	}
}

func TestTriggers(t *testing.T) {
	requests := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.URL.Path
		w.WriteHeader(204)
	}))
	defer server.Close()
	c := newContext(t, policy(t, strings.Replace(portalPolicy, "PORT", portOf(server.URL), 1)).Policy)
	told := listen(c, smd.ClassNetwork)
	d := system.NewDetector(c, system.DetectorOptions{})
	defer d.Close()
	for _, m := range []string{`{"trigger": "cpdcheck", "src":"test"}`, `{"type":"ipacq","if":"eth0"}`} {
		for _, other := range []string{`{"type":"linkup"}`, `cpdcheck`, `{"trigger":1}`} {
			c.SMD().Send(smd.ClassNetwork, []byte(other))
			told.next()
		}
		if err := c.SMD().Send(smd.ClassNetwork, []byte(m)); err != nil {
			t.Fatal(err)
		}
		told.next()
		if got := told.next(); got != `{"type":"cpd","result":"OK"}` {
			t.Errorf("%s gives %s", m, got)
		}
	}
	if len(requests) != 2 {
		t.Errorf("%d requests", len(requests))
	}
}

// TestAlreadyRunning: one check at a time, and all who ask hear of it.
func TestAlreadyRunning(t *testing.T) {
	answer, requests := make(chan struct{}), make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- struct{}{}
		<-answer
		w.WriteHeader(204)
	}))
	defer server.Close()
	c := newContext(t, policy(t, strings.Replace(portalPolicy, "PORT", portOf(server.URL), 1)).Policy)
	d := system.NewDetector(c, system.DetectorOptions{Timeout: time.Hour})
	defer d.Close()
	for range 3 {
		if err := d.Start(); err != nil {
			t.Fatal(err)
		}
	}
	<-requests
	close(answer)
	if o, err := d.Check(t.Context()); o != system.OK || err != nil {
		t.Errorf("%v, %v", o, err)
	}
	if len(requests) != 0 {
		t.Error("more than one request")
	}
}

func TestNoStreamtype(t *testing.T) {
	var log strings.Builder
	c, err := runtime.NewContext(policy(t, `{ "s": [ { "a": { "endpoint": "x", "port": 1, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`).Policy,
		runtime.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d := system.NewDetector(c, system.DetectorOptions{})
	defer d.Close()
	if err := d.Start(); !errors.Is(err, runtime.ErrUnknownStreamType) {
		t.Error(err)
	}
	if o, err := d.Check(t.Context()); o != system.Unknown || !errors.Is(err, runtime.ErrUnknownStreamType) {
		t.Errorf("%v, %v", o, err)
	}
	if !strings.Contains(log.String(), "level=INFO") || !strings.Contains(log.String(), "captive_portal_detect") {
		t.Errorf("logged: %s", &log)
	}
}

func TestPlatformAndBypass(t *testing.T) {
	c := newContext(t, &policy.Policy{}) // neither needs the streamtype
	platform := func(o system.Outcome, err error) func(context.Context) (system.Outcome, error) {
		return func(context.Context) (system.Outcome, error) { return o, err }
	}
	for _, test := range []struct {
		name string
		o    system.DetectorOptions
		want system.Outcome
	}{
		{"bypass", system.DetectorOptions{Bypass: true, Platform: platform(system.Captive, nil)}, system.OK},
		{"OK", system.DetectorOptions{Platform: platform(system.OK, nil)}, system.OK},
		{"Captive", system.DetectorOptions{Platform: platform(system.Captive, nil)}, system.Captive},
		{"error", system.DetectorOptions{Platform: platform(system.OK, io.EOF)}, system.NoInternet},
		{"unknown", system.DetectorOptions{Platform: platform(system.Unknown, nil)}, system.NoInternet},
		{"nonsense", system.DetectorOptions{Platform: platform(77, nil)}, system.NoInternet},
		{"late", system.DetectorOptions{Timeout: 1, Platform: func(ctx context.Context) (system.Outcome, error) {
			<-ctx.Done()
			return system.OK, ctx.Err()
		}}, system.NoInternet},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := system.NewDetector(c, test.o)
			defer d.Close()
			if o, err := d.Check(t.Context()); o != test.want || err != nil {
				t.Errorf("%v, %v, want %v", o, err, test.want)
			}
		})
	}
}

// TestDetectorClose: what ends meanwhile.
func TestDetectorClose(t *testing.T) {
	server := internet(t)
	l := policy(t, strings.Replace(strings.Replace(portalPolicy, "PORT", portOf(server.URL), 1), "generate_204", "hang", 1))
	for _, test := range []struct {
		name string
		end  func(*runtime.Context, *system.Detector)
		o    system.DetectorOptions
	}{
		{"detector", func(_ *runtime.Context, d *system.Detector) { d.Close() }, system.DetectorOptions{}},
		{"context", func(c *runtime.Context, _ *system.Detector) { c.Close() }, system.DetectorOptions{}},
		{"platform", func(_ *runtime.Context, d *system.Detector) { d.Close() },
			system.DetectorOptions{Platform: func(ctx context.Context) (system.Outcome, error) { <-ctx.Done(); return 0, ctx.Err() }}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newContext(t, l.Policy)
			d := system.NewDetector(c, test.o)
			defer d.Close()
			if err := d.Start(); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(10*time.Millisecond, func() { test.end(c, d) })
			if o, err := d.Check(t.Context()); o != system.Unknown || !errors.Is(err, runtime.ErrClosed) {
				t.Errorf("%v, %v", o, err)
			}
			d.Close()
			if err := d.Start(); !errors.Is(err, runtime.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

// TestDetectorPolicyChange: a check under way begins anew by the new policy.
func TestDetectorPolicyChange(t *testing.T) {
	server := internet(t)
	text := strings.Replace(portalPolicy, "PORT", portOf(server.URL), 1)
	c := newContext(t, policy(t, strings.Replace(text, "generate_204", "hang", 1)).Policy)
	d := system.NewDetector(c, system.DetectorOptions{Timeout: time.Hour})
	defer d.Close()
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetPolicy(policy(t, text).Policy); err != nil {
		t.Fatal(err)
	}
	if o, err := d.Check(t.Context()); o != system.OK || err != nil {
		t.Errorf("%v, %v", o, err)
	}
	if err := c.SetPolicy(policy(t, strings.Replace(text, "generate_204", "hang", 1)).Policy); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	c.SetPolicy(&policy.Policy{})
	if o, err := d.Check(t.Context()); o != system.Unknown || !errors.Is(err, runtime.ErrUnknownStreamType) {
		t.Errorf("without the streamtype: %v, %v", o, err)
	}
}
