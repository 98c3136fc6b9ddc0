package mqtt

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestLateMessage checks that messages that arrive after the last stream has left, while
// the connection waits for a PUBCOMP, are not acknowledged: the next connection receives
// them.
func TestLateMessage(t *testing.T) {
	p := &peer{answer: func(c *peerConn, packet string) bool {
		return resume(c, packet) || strings.HasPrefix(packet, "PUBREL")
	}}
	st := streamType("s", nowhere, topics("t", "f", 2))
	st.MQTT.CleanStart = false
	bubble(t, p, identify("device", "", ""), types(st), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.Connect()
		cl.publish("x")
		synctest.Wait()
		cl.Destroy()
		synctest.Wait()
		p.latest().send(message("f", 11, 1, "1") + message("f", 12, 2, "2"))
		time.Sleep(5 * time.Second)
		cl.want(t, "CRE CNG CON tx DIS DES")
		if got := p.String(); strings.Contains(got, "PUBACK") || strings.Contains(got, "PUBREC") {
			t.Errorf("a message that no stream has is acknowledged: %s", got)
		}
		again := open(t, c, "s")
		again.Connect()
		synctest.Wait()
		p.latest().send(message("f", 11, 1, "1") + message("f", 12, 2, "2"))
		synctest.Wait()
		again.want(t, "CRE CNG CON rx(1) rx(2)")
	})
}

// TestLostMessage checks that a message with QoS 2 that a destroyed stream has not received
// before its connection was lost is not a duplicate on the next connection.
func TestLostMessage(t *testing.T) {
	p := &peer{answer: resume}
	st := streamType("s", nowhere, topics("", "f", 2), func(st *policy.StreamType) { st.Retry = nil })
	st.MQTT.CleanStart = false
	bubble(t, p, identify("device", "", ""), types(st), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.Connect()
		synctest.Wait()
		cl.PauseRx()
		p.latest().send(message("f", 11, 2, "1"))
		synctest.Wait()
		p.latest().Close()
		synctest.Wait()
		cl.Destroy()
		synctest.Wait()
		cl.want(t, "CRE CNG CON DIS DES")
		again := open(t, c, "s")
		again.Connect()
		synctest.Wait()
		p.latest().send(message("f", 11, 2, "1"))
		synctest.Wait()
		again.want(t, "CRE CNG CON rx(1)")
	})
}
