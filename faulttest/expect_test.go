package faulttest

import (
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
)

// TestWant checks the sequences that follow from a policy.
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
