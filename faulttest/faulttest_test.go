package faulttest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/h3"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

func transports(hurry int) []transport.Transport {
	return []transport.Transport{h3.New(), http.New(http.SigV4), mqtt.NewWith(mqtt.Options{ResendAfter: 3 * time.Second / time.Duration(hurry)}), raw.New(raw.TLS), ws.New()}
}

// streamTypes returns streamtypes of all protocols, with and without TLS, that conceal one
// failure. Those of "once" are opportunistic.
func streamTypes() *policy.Policy {
	roots := testcert.New("production")
	retry := &policy.Retry{Name: "r", Backoff: []time.Duration{2 * time.Second}, Conceal: 1, ValidPing: 20 * time.Second, ValidHangup: 30 * time.Second}
	p := new(policy.Policy)
	add := func(st policy.StreamType) {
		for _, secure := range []bool{false, true} {
			c := st
			c.Endpoint, c.Retry = "device.example.com", retry
			c.Port = 80
			if secure {
				c.Name += "-tls"
				c.TLS, c.TrustStore, c.Port = true, roots.Store(), 443
			}
			p.StreamTypes = append(p.StreamTypes, &c)
			once := c
			once.Name += "-once"
			once.Opportunistic = true
			once.Retry = nil
			p.StreamTypes = append(p.StreamTypes, &once)
		}
	}
	add(policy.StreamType{Name: "h1", Timeout: 10 * time.Second, HTTP: &policy.HTTP{Method: "GET", URL: "x", RespMap: []policy.StatusState{{Status: 500, State: 1500}}}})
	add(policy.StreamType{Name: "h1-post", HTTP: &policy.HTTP{Method: "POST", URL: "x", AllowRedirects: true}})
	add(policy.StreamType{Name: "h2", Protocol: policy.ProtocolH2, HTTP: &policy.HTTP{Method: "GET", URL: "x"}})
	add(policy.StreamType{Name: "h3", Protocol: policy.ProtocolH3, HTTP: &policy.HTTP{Method: "GET", URL: "x"}})
	add(policy.StreamType{Name: "ws", Protocol: policy.ProtocolWS, NailedUp: true, HTTP: &policy.HTTP{URL: "x", WSSubprotocol: "p"}})
	add(policy.StreamType{Name: "ws-any", Protocol: policy.ProtocolWS, HTTP: &policy.HTTP{URL: "x"}})
	add(policy.StreamType{Name: "mqtt-pub", Protocol: policy.ProtocolMQTT, MQTT: &policy.MQTT{Topic: "t", QoS: 1, KeepAlive: 60 * time.Second, CleanStart: true}})
	add(policy.StreamType{Name: "mqtt-pub-qos0", Protocol: policy.ProtocolMQTT, MQTT: &policy.MQTT{Topic: "t", CleanStart: true}})
	add(policy.StreamType{Name: "mqtt-sub", Protocol: policy.ProtocolMQTT, NailedUp: true, MQTT: &policy.MQTT{Subscribe: "t/#", QoS: 1}})
	add(policy.StreamType{Name: "raw", Protocol: policy.ProtocolRaw})
	return p
}

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// testHurry makes the catalogue run in seconds.
const testHurry = 6

// TestCatalogue runs each fault against each streamtype that it fits, and then against a
// healthy peer, where the check must fail.
func TestCatalogue(t *testing.T) {
	p := streamTypes()
	cells := Cells(p, nil, nil)
	fits := map[string]int{}
	for _, c := range cells {
		fits[c.Fault.Name]++
	}
	for _, f := range All() {
		if fits[f.Name] == 0 {
			t.Errorf("fault %s fits no streamtype", f.Name)
		}
	}
	o := Options{Transports: transports, Hurry: testHurry}
	check := func(cells []Cell, problem func(c Cell, r *Report) string) {
		err := Matrix(t.Context(), cells, o, func(i int, r *Report, err error) {
			name := cells[i].Fault.Name + " of " + cells[i].Stream
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if text := problem(cells[i], r); text != "" {
				t.Errorf("%s: %s\n%s", name, text, timeline(r))
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d cells", len(cells))
	check(cells, func(_ Cell, r *Report) string { return r.Problem })
	o.healthy = true
	o.Timeout = 3 * time.Second // the expected sequence may not occur
	o.Shortest = Patient        // a healthy peer never looks like a silent one
	problem := func(c Cell, r *Report) string {
		args, err := c.Fault.check(nil)
		if err != nil {
			return err.Error()
		}
		s := newSubject(o.hurried(p.StreamType(c.Stream)), args, o.Hurry, o.connectTimeout())
		survives := slices.Contains(c.Fault.expect(s).attempts(1), s.healthy())
		switch {
		case r.OK:
			return "the check cannot fail"
		case r.Problem == noStrike && !survives:
			return "the states alone do not show the fault"
		}
		return ""
	}
	var again []Cell // an answer may have been too late
	check(cells, func(c Cell, r *Report) string {
		if problem(c, r) != "" {
			again = append(again, c)
		}
		return ""
	})
	o.hush = o.Timeout
	check(again, problem)
}

func timeline(r *Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "want %s\ngot  %s\n", r.Want, r.Got)
	for _, e := range r.Events {
		fmt.Fprintf(&b, "  %8.3f %s %s\n", e.At.Seconds(), e.Name, e.Cause)
	}
	return b.String()
}
