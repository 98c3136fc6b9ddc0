//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testbroker"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// BenchmarkPublish publishes messages of 64 bytes to mosquitto, in turns by a stream, by
// hand on a net.Conn with prepared packets, and by mosquitto_pub -l. With QoS 1 each has
// up to 20 unacknowledged messages. x/by-hand and x/mosquitto_pub are the throughput
// relative to the others.
func BenchmarkPublish(b *testing.B) {
	addr := testserver.FreePort(b)
	testbroker.Start(b, fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\n", addr.Port()))
	for qos := range byte(2) {
		b.Run(fmt.Sprintf("qos=%d", qos), func(b *testing.B) {
			ours, byHand := mqttStream(b, addr, qos), mqttByHand(b, addr, qos)
			ways := []func(n int){ours, byHand, mosquittoPub(b, addr, qos)}
			var took [3]time.Duration
			ours(100)
			byHand(100)
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; {
				n := min(left, 20_000)
				left -= n
				for i, way := range ways {
					if b.N == 1 && i == 2 {
						continue // the start of the process would dominate
					}
					start := time.Now()
					way(n)
					took[i] += time.Since(start)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(took[0])/float64(b.N), "ns/op")
			b.ReportMetric(float64(b.N)/took[0].Seconds(), "msg/s")
			b.ReportMetric(float64(took[1])/float64(took[0]), "x/by-hand")
			b.ReportMetric(float64(took[2])/float64(took[0]), "x/mosquitto_pub")
		})
	}
}

var mqttPayload = strings.Repeat("x", 64)

// mqttStream returns a function that publishes n messages by a stream.
func mqttStream(b *testing.B, addr netip.AddrPort, qos byte) (run func(n int)) {
	st := &policy.StreamType{
		Name: "s", Protocol: policy.ProtocolMQTT, Opportunistic: true, Endpoint: addr.Addr().String(), Port: addr.Port(),
		MQTT: &policy.MQTT{Topic: "bench/topic", QoS: qos, CleanStart: true},
	}
	last := *st
	last.Name, last.MQTT = "last", &policy.MQTT{Topic: "bench/last", QoS: 1, CleanStart: true}
	c := newContext(b, mqtt.New(), st, &last)
	todo, acks := 0, 0
	start := make(chan int, 1)
	done := make(chan bool, 1)
	s, err := c.NewStream("s", runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			switch state {
			case runtime.StateQoSAckRemote:
				if acks--; acks == 0 {
					done <- true
				}
			case runtime.StateUnreachable, runtime.StateDisconnected, runtime.StateQoSNackRemote:
				b.Error(state, s.Err())
				done <- false
			}
			return runtime.OK
		},
		Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			select {
			case todo = <-start:
				acks = todo
			default:
			}
			if todo == 0 {
				return 0, 0, runtime.TxDontSend
			}
			if todo--; todo > 0 {
				s.RequestTx()
			}
			return copy(buf, mqttPayload), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	acked := make(chan bool, 1)
	end, err := c.NewStream("last", runtime.Handlers{
		State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateQoSAckRemote {
				acked <- true
			}
			return runtime.OK
		},
		Tx: func(_ *runtime.Stream, ordinal uint32, _ []byte) (int, runtime.Flags, runtime.Result) {
			if ordinal == 0 {
				return 0, 0, runtime.TxDontSend // nothing was requested
			}
			return 0, runtime.FlagSOM | runtime.FlagEOM, runtime.OK
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	end.Connect()
	b.Cleanup(func() { ignoreStates(s) })
	return func(n int) {
		start <- n
		s.RequestTx()
		<-done
		if qos == 0 { // the broker acknowledges this message after all others
			end.RequestTx()
			<-acked
		}
	}
}

// mqttByHand returns the same on a net.Conn.
func mqttByHand(b *testing.B, addr netip.AddrPort, qos byte) (run func(n int)) {
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	r := bufio.NewReader(c)
	io.WriteString(c, "\x10\x12\x00\x04MQTT\x04\x02\x00\x00\x00\x06byhand")
	if _, err := r.Discard(4); err != nil {
		b.Fatal(err)
	}
	packet := []byte("\x30\x4d\x00\x0bbench/topic" + mqttPayload)
	if qos == 0 {
		return func(n int) {
			for range n {
				if _, err := c.Write(packet); err != nil {
					b.Error(err)
					return
				}
			}
			io.WriteString(c, "\xc0\x00") // the broker answers it after all messages
			if _, err := r.Discard(2); err != nil {
				b.Error(err)
			}
		}
	}
	packet = []byte("\x32\x4f\x00\x0bbench/topic\x00\x00" + mqttPayload)
	id := uint16(0)
	return func(n int) {
		unacked := make(chan bool, 20)
		done := make(chan bool)
		go func() {
			defer close(done)
			for range n {
				if _, err := r.Discard(4); err != nil {
					b.Error(err)
					return
				}
				<-unacked
			}
		}()
		for range n {
			unacked <- true
			if id++; id == 0 {
				id = 1
			}
			packet[15], packet[16] = byte(id>>8), byte(id)
			if _, err := c.Write(packet); err != nil {
				b.Error(err)
				return
			}
		}
		<-done
	}
}

// mosquittoPub returns the same with mosquitto_pub.
func mosquittoPub(b *testing.B, addr netip.AddrPort, qos byte) (run func(n int)) {
	return func(n int) {
		cmd := exec.Command("mosquitto_pub", "-h", addr.Addr().String(), "-p", fmt.Sprint(addr.Port()),
			"-t", "bench/topic", "-q", fmt.Sprint(qos), "-l")
		cmd.Stdin = bytes.NewReader(bytes.Repeat([]byte(mqttPayload+"\n"), n))
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Errorf("%v: %s", err, out)
		}
	}
}
