package faulttest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

func transports(int) []transport.Transport {
	return []transport.Transport{http.New(http.SigV4), mqtt.New(), raw.New(), ws.New()}
}

// streamTypes returns streamtypes of all protocols, with and without TLS, that conceal one
// failure; those of "once" are opportunistic.
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
	add(policy.StreamType{Name: "ws", Protocol: policy.ProtocolWS, NailedUp: true, HTTP: &policy.HTTP{URL: "x", WSSubprotocol: "p"}})
	add(policy.StreamType{Name: "mqtt-pub", Protocol: policy.ProtocolMQTT, MQTT: &policy.MQTT{Topic: "t", QoS: 1, KeepAlive: 60 * time.Second, CleanStart: true}})
	add(policy.StreamType{Name: "mqtt-sub", Protocol: policy.ProtocolMQTT, NailedUp: true, MQTT: &policy.MQTT{Subscribe: "t/#", QoS: 1}})
	add(policy.StreamType{Name: "raw", Protocol: policy.ProtocolRaw})
	return p
}

const testHurry = 20

// TestCatalogue runs each fault against each streamtype that it fits, and then a healthy
// peer in its place, with which the check must fail.
func TestCatalogue(t *testing.T) {
	p := streamTypes()
	authority := testcert.New("faults")
	for _, f := range All() {
		t.Run(f.Name, func(t *testing.T) {
			fits := 0
			for _, st := range p.StreamTypes {
				if ok, _ := f.Fits(st); !ok {
					continue
				}
				fits++
				t.Run(st.Name, func(t *testing.T) {
					t.Parallel()
					o := Options{Transports: transports, Hurry: testHurry, authority: authority}
					r, err := Run(context.Background(), p, st.Name, f, o)
					if err != nil {
						t.Fatal(err)
					}
					if !r.OK {
						t.Errorf("%s\n%s", r.Problem, timeline(r))
					}
					o.healthy = true
					if r, err = Run(context.Background(), p, st.Name, f, o); err != nil {
						t.Fatal(err)
					}
					if r.OK {
						t.Errorf("the check cannot fail\n%s", timeline(r))
					}
				})
			}
			if fits == 0 {
				t.Error("the fault fits no streamtype")
			}
		})
	}
}

func timeline(r *Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "want %s\ngot  %s\n", r.Want, r.Got)
	for _, e := range r.Events {
		fmt.Fprintf(&b, "  %8.3f %s %s\n", e.At.Seconds(), e.Name, e.Cause)
	}
	return b.String()
}
