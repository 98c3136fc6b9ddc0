//go:build linux

package conformance

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/faulttest/link"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestTelemetry checks that a program loses nothing when its broker rejects connections,
// breaks them, or falls silent.
func TestTelemetry(t *testing.T) {
	checkLeaks(t)
	own := testcert.New("own")
	broker, _, _ := startMosquitto(t, own, "max_queued_messages 0")
	var got ledger
	server := got.serve(t, own)["h1"]
	var n atomic.Int64
	proxy := newProxy(broker.String(), func() link.Fault {
		switch n.Add(1) % 3 {
		case 1:
			return link.Fault{Kind: link.Reset, After: 900}
		case 2:
			return link.Fault{Kind: link.BlackHole, After: 700, Stall: 500 * time.Millisecond}
		}
		return link.Fault{Kind: link.Reset, Reply: true, After: 300}
	})
	t.Cleanup(proxy.Close)
	qos1 := func(st *policy.StreamType) {
		st.Protocol, st.HTTP, st.MQTT = policy.ProtocolMQTT, nil, &policy.MQTT{Topic: "telemetry", QoS: 1, CleanStart: true}
	}
	mqtt, report, sub := streamType(proxy.Addr(), qos1), streamType(server), streamType(broker, qos1)
	mqtt.Name, report.Name, sub.Name = "mqtt", "report", "sub"
	report.HTTP.Method = "POST"
	sub.MQTT.Topic, sub.MQTT.Subscribe = "", "telemetry"
	c := newContext(t, runtime.Options{}, mqtt, report, sub)
	conn := teststream.Must(newContext(t, runtime.Options{}, sub).Open(t.Context(), "sub"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for msg, err := range conn.Messages() {
			if err != nil {
				return
			}
			got.add(string(msg))
		}
	}()
	tele := &Telemetry{Context: c, AckTimeout: 200 * time.Millisecond}
	want := map[string]bool{}
	for batch := range 20 {
		var measurements [][]byte
		for i := range 10 {
			m := fmt.Sprintf("measurement-%d-%d", batch, i)
			want[m] = true
			measurements = append(measurements, []byte(m))
		}
		if k, err := tele.Send(t.Context(), measurements...); k != len(measurements) || err != nil {
			t.Fatalf("batch %d: %d arrived, %v", batch, k, err)
		}
	}
	if err := tele.Close(); err != nil {
		t.Error(err)
	}
	missing := func() (n int) {
		lines := got.sorted()
		for m := range want {
			if _, ok := slices.BinarySearch(lines, m); !ok {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(time.Minute); missing() > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := missing(); n > 0 {
		t.Errorf("%d of %d measurements are missing", n, len(want))
	}
	conn.Close()
	<-done
}
