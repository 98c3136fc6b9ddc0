package faulttest

import (
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// An Example is the sequence of states that a fault expects of a streamtype.
type Example struct{ Name, Want string }

// Examples returns the sequences that a fault expects of simple streamtypes, with
// default parameters, for its documentation.
func Examples(f *Fault) (all []Example) {
	args, _ := f.check(nil) // defaults are in range
	for _, ex := range []struct {
		name string
		st   policy.StreamType
	}{
		{"h1", policy.StreamType{HTTP: &policy.HTTP{Method: "GET"}}},
		{"h2", policy.StreamType{Protocol: policy.ProtocolH2, HTTP: &policy.HTTP{Method: "GET"}}},
		{"ws", policy.StreamType{Protocol: policy.ProtocolWS, HTTP: &policy.HTTP{}}},
		{"mqtt, publishes", policy.StreamType{Protocol: policy.ProtocolMQTT, MQTT: &policy.MQTT{Topic: "t", QoS: 1}}},
		{"mqtt, subscribes", policy.StreamType{Protocol: policy.ProtocolMQTT, MQTT: &policy.MQTT{Subscribe: "t"}}},
		{"raw", policy.StreamType{Protocol: policy.ProtocolRaw}},
	} {
		st := ex.st
		st.Retry = &policy.Retry{Backoff: []time.Duration{time.Second}, Conceal: 2}
		ok, _ := f.Fits(&st)
		if !ok {
			st.TLS = true
			if ok, _ = f.Fits(&st); !ok {
				continue
			}
		}
		s := newSubject(&st, args, 1, runtime.DefaultConnectTimeout)
		all = append(all, Example{ex.name, (&matcher{s, f.expect(s)}).String()})
	}
	return all
}
