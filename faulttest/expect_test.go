package faulttest

import (
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestWant checks the expected sequences of policies.
func TestWant(t *testing.T) {
	p := streamTypes()
	for _, tt := range []struct {
		fault  *Fault
		stream string
		args   Args
		want   string
	}{
		{Refused, "h1", nil, "CRE POL CNG UNR (wait) POL CNG UNR ARF"},
		{Refused, "h1-once", nil, "CRE POL CNG UNR ARF"},
		{Refused, "ws", nil, "CRE CNG UNR (wait) POL CNG UNR ARF"},
		{Reset, "mqtt-pub", nil, "CRE POL CNG UNR (wait) POL CNG UNR ARF"},
		{FIN, "raw", nil, "CRE POL CNG CON DIS (wait) POL CNG CON DIS UNR ARF"},
		{FIN, "raw-once", nil, "CRE POL CNG CON DIS"},
		{HTTPStatus, "h1", nil, "CRE POL CNG USER_1500 CON rx NAK DIS"},
		{HTTPStatus, "h2", Args{"status": "404"}, "CRE POL CNG CON rx NAK DIS"},
		{HTTPStatus, "h2", Args{"status": "503"}, "CRE POL CNG UNR (wait) POL CNG UNR ARF"},
		{HTTPSlow, "h1", nil, "CRE POL CNG CON rx ACK DIS"},
		{HTTPSlow, "h1-once", Args{"ms": "20000"}, "CRE POL CNG UNR ARF"},
		{HTTPDrip, "h1", nil, "CRE POL CNG CON rx ACK DIS"},
		{Latency, "h1-tls", nil, "CRE POL CNG CON rx ACK DIS"},
		{WSMute, "ws-once", nil, "CRE CNG CON DIS"},
		{AcceptSilent, "raw", nil, "CRE POL CNG CON"},
		{Flap, "ws-tls", nil, "CRE CNG UNR (wait) POL CNG UNR ARF"},
		{Flap, "ws-tls", Args{"down": "1"}, "CRE CNG UNR (wait) POL CNG CON rx"},
		{MQTTNoPuback, "mqtt-pub", nil, "CRE POL CNG CON NAK"},
		{MQTTSessionLost, "mqtt-sub", nil, "CRE CNG CON DIS (wait) POL CNG CON rx"},
		{Reset, "h1", Args{"after": "30"}, "CRE POL CNG (UNR | CON rx ACK DIS | CON DIS | CON rx DIS) …"},
	} {
		args, err := tt.fault.check(tt.args)
		if err != nil {
			t.Error(err)
			continue
		}
		s := newSubject(p.StreamType(tt.stream), args, 1, runtime.DefaultConnectTimeout)
		if got := (&matcher{s, tt.fault.expect(s)}).String(); got != tt.want {
			t.Errorf("%s of %s %v:\ngot  %s\nwant %s", tt.fault.Name, tt.stream, tt.args, got, tt.want)
		}
	}
}

// TestObserved checks that the report of an endless series of failures ends with the same
// event, however late the run stops.
func TestObserved(t *testing.T) {
	st := *streamTypes().StreamType("h1")
	st.Retry = &policy.Retry{Conceal: maxAttempts + 2}
	s := newSubject(&st, nil, 1, runtime.DefaultConnectTimeout)
	r := &run{matcher: matcher{s, Refused.expect(s)}}
	events := []Event{{Name: "CRE"}}
	for range maxAttempts + 2 {
		events = append(events, Event{Name: "POL"}, Event{Name: "CNG"}, Event{Name: "UNR"})
	}
	const want = 1 + 3*maxAttempts + 2
	for n := range len(events) {
		if got := len(r.observed(events[:n])); got != min(n, want) {
			t.Errorf("%d of %d events, want %d", got, n, min(n, want))
		}
	}
}
