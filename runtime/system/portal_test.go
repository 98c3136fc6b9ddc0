package system_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/system"
)

// portalPolicy has the streamtype of lws's examples, with another endpoint and retry
// table. PATH is the path of the request.
const portalPolicy = `{ "schema-version": 1, "retry": [ { "r": { "backoff": [ 10 ], "conceal": 2 } } ], "s": [ {
  "captive_portal_detect": { "endpoint": "live", "http_url": "PATH", "port": 80, "protocol": "h1",
    "http_method": "GET", "http_expect": 204, "http_fail_redirect": true, "opportunistic": true, "retry": "r" } } ] }`

// portal returns a portalPolicy for a path.
func portal(path string) string { return strings.Replace(portalPolicy, "PATH", path, 1) }

// internet is a server for generate_204, or another that answers instead.
func internet(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/generate_204":
		w.WriteHeader(204)
	case "/login":
		io.WriteString(w, "who are you?")
	case "/portal":
		http.Redirect(w, r, "/login", http.StatusFound)
	case "/sly":
		http.Redirect(w, r, "/generate_204", http.StatusFound)
	case "/hang":
		<-r.Context().Done()
	case "/cut":
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "short")
	default:
		http.NotFound(w, r)
	}
}

// TestOutcomes checks each outcome. Like the examples of lws it uses overlays that
// change only settings of captive_portal_detect.
func TestOutcomes(t *testing.T) {
	for _, test := range []struct {
		name, settings string
		want           system.Outcome
	}{
		{"unchanged", ``, system.OK},
		{"redirected", `"http_url": "portal"`, system.Captive},
		{"redirected and followed", `"http_url": "sly", "allow_redirects": true`, system.Captive},
		{"no fail_redirect", `"http_url": "portal", "http_fail_redirect": false`, system.NoInternet},
		{"followed without fail_redirect", `"http_url": "sly", "allow_redirects": true, "http_fail_redirect": false`, system.OK},
		{"another status", `"http_url": "login"`, system.NoInternet},
		{"not found", `"http_url": "none"`, system.NoInternet},
		{"cut short", `"http_url": "cut"`, system.NoInternet},
		{"refused", `"port": 81`, system.NoInternet},
		{"TLS with a server without TLS", `"tls": true`, system.NoInternet},
		{"no answer", `"http_url": "hang"`, system.NoInternet},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				text := portal("generate_204")
				c := newBench(t, compile(t, text), internet)
				if err := c.Overlay(overlay(t, text, `{ "s": [ { "captive_portal_detect": {`+test.settings+`} } ] }`)); err != nil {
					t.Fatal(err)
				}
				messages := c.listen(smd.ClassNetwork)
				d := c.newDetector(t, system.DetectorOptions{})
				if d.Outcome() != system.Unknown {
					t.Errorf("before the check: %v", d.Outcome())
				}
				got, err := d.Check(t.Context())
				if got != test.want || err != nil || d.Outcome() != test.want {
					t.Errorf("%v, %v, %v; want %v", got, d.Outcome(), err, test.want)
				}
				if got, want := <-messages, fmt.Sprintf(`{"type":"cpd","result":"%v"}`, test.want); got != want {
					t.Errorf("message %s, want %s", got, want)
				}
			})
		})
	}
}

// TestTriggers checks which messages start a check.
func TestTriggers(t *testing.T) { synctest.Test(t, testTriggers) } // SMD drops old messages

func testTriggers(t *testing.T) {
	requests := make(chan string, 10)
	c := newBench(t, compile(t, portal("generate_204")), func(w http.ResponseWriter, r *http.Request) {
		requests <- r.URL.Path
		w.WriteHeader(204)
	})
	messages := c.listen(smd.ClassNetwork)
	c.newDetector(t, system.DetectorOptions{})
	for _, m := range []string{`{"trigger": "cpdcheck", "src":"test"}`, `{"type":"ipacq","if":"eth0"}`} {
		for _, other := range []string{`{"type":"linkup"}`, `cpdcheck`, `{"trigger":1}`} {
			c.smd.Send(smd.ClassNetwork, []byte(other))
			<-messages
		}
		if err := c.smd.Send(smd.ClassNetwork, []byte(m)); err != nil {
			t.Fatal(err)
		}
		<-messages
		if got := <-messages; got != `{"type":"cpd","result":"OK"}` {
			t.Errorf("%s: got %s", m, got)
		}
	}
	if len(requests) != 2 {
		t.Errorf("%d requests", len(requests))
	}
}

// TestOneCheck checks that one check runs at a time, whose outcome all callers receive.
func TestOneCheck(t *testing.T) { synctest.Test(t, testOneCheck) }

func testOneCheck(t *testing.T) {
	answer, requests := make(chan struct{}), make(chan struct{}, 10)
	c := newBench(t, compile(t, portal("generate_204")), func(w http.ResponseWriter, r *http.Request) {
		requests <- struct{}{}
		<-answer
		w.WriteHeader(204)
	})
	d := c.newDetector(t, system.DetectorOptions{Timeout: time.Hour})
	for range 3 {
		if err := d.Start(); err != nil {
			t.Fatal(err)
		}
	}
	<-requests
	time.AfterFunc(time.Second, func() { close(answer) }) // when Check waits for it
	if o, err := d.Check(t.Context()); o != system.OK || err != nil {
		t.Errorf("%v, %v", o, err)
	}
	if len(requests) != 0 {
		t.Error("more than one request")
	}
}

func TestNoStreamtype(t *testing.T) {
	var log strings.Builder
	c := teststream.NewContext(t, runtime.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
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
	c := newBench(t, &policy.Policy{}, nil) // neither needs the streamtype
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
			d := c.newDetector(t, test.o)
			if o, err := d.Check(t.Context()); o != test.want || err != nil {
				t.Errorf("%v, %v, want %v", o, err, test.want)
			}
		})
	}
}

// TestDetectorClose checks that the end of the detector or the context ends a check.
func TestDetectorClose(t *testing.T) {
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
			synctest.Test(t, func(t *testing.T) {
				c := newBench(t, compile(t, portal("hang")), internet)
				d := c.newDetector(t, test.o)
				if err := d.Start(); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(time.Second, func() { test.end(c.Context, d) })
				if o, err := d.Check(t.Context()); o != system.Unknown || !errors.Is(err, runtime.ErrClosed) {
					t.Errorf("%v, %v", o, err)
				}
				d.Close()
				if err := d.Start(); !errors.Is(err, runtime.ErrClosed) {
					t.Errorf("after Close: %v", err)
				}
			})
		})
	}
}

// TestDetectorPolicyChange checks that a running check restarts with a new policy.
func TestDetectorPolicyChange(t *testing.T) {
	hang := compile(t, portal("hang"))
	c := newBench(t, hang, internet)
	d := c.newDetector(t, system.DetectorOptions{Timeout: time.Hour})
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetPolicy(compile(t, portal("generate_204"))); err != nil {
		t.Fatal(err)
	}
	if o, err := d.Check(t.Context()); o != system.OK || err != nil {
		t.Errorf("%v, %v", o, err)
	}
	if err := c.SetPolicy(hang); err != nil {
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
