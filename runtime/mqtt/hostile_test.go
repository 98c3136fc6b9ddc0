package mqtt

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestSessionHandOver checks that a connection that is slow to close, because the
// server does not read, loses its session to the next connection.
func TestSessionHandOver(t *testing.T) {
	var free chan struct{}
	p := &peer{}
	p.answer = func(c *peerConn, packet string) bool {
		switch {
		case c.n == 0 && strings.HasPrefix(packet, "PUBLISH"):
			<-free
			return true
		case c.n == 1 && strings.Contains(packet, "one"):
			return true
		}
		return resume(c, packet)
	}
	st := streamType("s", nowhere, topics("t", "", 1))
	st.MQTT.CleanStart = false
	synctest.Test(t, func(t *testing.T) {
		free = make(chan struct{})
		o := identify("device", "", "")
		o.DialContext = p.dial
		c := newContext(t, o, st)
		a := open(t, c, "s")
		a.Connect()
		a.publish("one")
		synctest.Wait()
		a.Destroy()
		synctest.Wait() // the write of DISCONNECT blocks
		b := open(t, c, "s")
		b.Connect()
		synctest.Wait()
		b.want(t, "CRE CNG CON")
		if _, err := p.conns[0].Conn.Write([]byte("\x40\x02\x00\x01")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the first connection is still open: %v", err)
		}
		b.publish("two")
		synctest.Wait()
		b.want(t, "CRE CNG CON tx ACK")
		close(free)
		teststream.Shutdown(t, c)
	})
}

// TestAckFlood checks that no more messages can await their acknowledgement than
// there are packet identifiers.
func TestAckFlood(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("", "f", 1))), func(t *testing.T, c *runtime.Context) {
		free := make(chan struct{})
		cl := open(t, c, "s").on(teststream.Actions{"rx(1)": func(*runtime.Stream) policy.Result { <-free; return policy.OK }})
		cl.Connect()
		synctest.Wait()
		p.latest().send(message("f", 1, 1, "1"))
		p.latest().send(strings.Repeat(message("g", 2, 1, ""), maxString))
		synctest.Wait()
		close(free)
		synctest.Wait()
		cl.want(t, "CRE CNG CON rx(1) DIS")
		cl.wantErr(t, ErrProtocol)
	})
}

// TestWrongSubscribeAnswer checks that only a SUBACK answers a SUBSCRIBE.
func TestWrongSubscribeAnswer(t *testing.T) {
	for name, answer := range map[string]string{
		"PUBACK": "\x40\x02\x00\x01", "PUBREC": "\x50\x02\x00\x01", "PUBCOMP": "\x70\x02\x00\x01", "UNSUBACK": "\xb0\x02\x00\x01",
	} {
		t.Run(name, func(t *testing.T) {
			p := &peer{answer: func(c *peerConn, packet string) bool {
				if strings.HasPrefix(packet, "SUBSCRIBE") {
					c.send(answer)
					return true
				}
				return false
			}}
			bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("", "f", 2))), func(t *testing.T, c *runtime.Context) {
				cl := open(t, c, "s")
				cl.Connect()
				synctest.Wait()
				cl.want(t, "CRE CNG UNR ARF")
				cl.wantErr(t, ErrProtocol)
			})
		})
	}
}

// TestSubscribeTwice checks that each stream awaits the SUBACK for its QoS.
func TestSubscribeTwice(t *testing.T) {
	p := &peer{answer: silent("SUBSCRIBE")}
	bubble(t, p, runtime.Options{}, types(streamType("a", nowhere, topics("", "f", 0)), streamType("b", nowhere, topics("", "f", 1))), func(t *testing.T, c *runtime.Context) {
		a, b := open(t, c, "a"), open(t, c, "b")
		a.Connect()
		synctest.Wait()
		b.Connect()
		synctest.Wait()
		p.latest().send("\x90\x03\x00\x01\x00")
		synctest.Wait()
		a.want(t, "CRE CNG CON")
		b.want(t, "CRE CNG")
		p.latest().send("\x90\x03\x00\x02\x80")
		synctest.Wait()
		b.want(t, "CRE CNG UNR ARF")
		b.wantErr(t, ErrSubscribe)
	})
}

// TestLongUpload checks that the validity timer spares a connection in the middle of a
// progressing message, when no PINGREQ can be sent, and ends one whose message does not
// progress.
func TestLongUpload(t *testing.T) {
	for _, stops := range []bool{false, true} {
		p := &peer{answer: silent("PINGREQ")}
		st := streamType("s", nowhere, topics("t", "", 0))
		st.MQTT.KeepAlive = 10 * time.Second
		bubble(t, p, runtime.Options{}, types(st), func(t *testing.T, c *runtime.Context) {
			cl := open(t, c, "s").timed()
			n, paused := 0, false
			cl.SetHandlers(runtime.Handlers{Tx: func(s *runtime.Stream, ordinal uint32, buf []byte) (int, policy.Flags, policy.Result) {
				if paused = !paused; ordinal == 0 || n == 400_000 || stops && n == 200_000 {
					return 0, 0, policy.TxDontSend
				}
				if paused {
					time.AfterFunc(time.Second, func() { s.RequestTx() })
					return 0, 0, policy.TxDontSend
				}
				n += 10_000
				return 10_000, 0, policy.OK
			}})
			cl.Connect()
			synctest.Wait()
			cl.RequestTxLen(400_000)
			time.Sleep(54 * time.Second)
			want := "CRE CNG CON 39s:ACK"
			if stops {
				want = "CRE CNG CON 45s:DIS"
			}
			if got := cl.String(); got != want && !strings.HasPrefix(got, want+" ") {
				t.Errorf("got %s, want %s; %v", got, want, cl.Err())
			}
		})
	}
}

// TestSiblingReceives checks that a stream that stops in the middle of its message
// ends the connection even if it receives.
func TestSiblingReceives(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(streamType("a", nowhere, topics("t", "f", 0)), streamType("b", nowhere, topics("u", "", 0))), func(t *testing.T, c *runtime.Context) {
		a := open(t, c, "a")
		n := 0
		a.SetHandlers(runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
			if n++; n > 4 || n == 1 {
				return 0, 0, policy.TxDontSend
			}
			return len(buf), 0, policy.OK
		}})
		a.Connect()
		synctest.Wait()
		b := open(t, c, "b")
		b.Connect()
		synctest.Wait()
		a.RequestTxLen(1 << 20)
		for range 12 {
			p.latest().send(message("f", 0, 0, "x"))
			time.Sleep(time.Second)
		}
		if b.State() != policy.StateDisconnected || !errors.Is(b.Err(), ErrSlow) {
			t.Errorf("%s, %v", b, b.Err())
		}
	})
}

// TestLeaveWhileWriting checks that a stream that ends while it writes the packets of
// another stream does not wait for them.
func TestLeaveWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, never := make(chan struct{}), make(chan struct{})
		p := &peer{answer: func(_ *peerConn, packet string) bool {
			switch {
			case strings.HasSuffix(packet, "first"):
				<-first
			case strings.HasSuffix(packet, "second"):
				<-never
			}
			return false
		}}
		st := streamType("s", nowhere, topics("t", "", 0))
		st.Retry = &policy.Retry{}
		c := newContext(t, runtime.Options{DialContext: p.dial}, st)
		a, b := open(t, c, "s"), open(t, c, "s")
		a.Connect()
		b.Connect()
		synctest.Wait()
		a.publish("first")
		synctest.Wait()
		a.publish("second")
		synctest.Wait() // the write blocks
		b.publish("third")
		synctest.Wait()
		a.Destroy()
		time.Sleep(time.Second)
		close(first)
		time.Sleep(time.Second)
		a.want(t, "CRE CNG CON tx ACK tx DIS DES")
		start := time.Now()
		teststream.Shutdown(t, c)
		if d := time.Since(start); d > 2*flushLimit {
			t.Errorf("Shutdown took %v", d)
		}
		close(never)
	})
}

// TestLastPacket checks that nothing follows a DISCONNECT [MQTT-3.14.4-2].
func TestLastPacket(t *testing.T) {
	ours, theirs := net.Pipe()
	w := newWriter(ours, time.Now, func(err error) { t.Error(err) })
	done := make(chan struct{})
	go w.run(done)
	got := make(chan string)
	go func() {
		b, _ := io.ReadAll(theirs)
		got <- string(b)
	}()
	w.post(appendPingreq)
	if err := w.last(context.Background(), appendDisconnect); err != nil {
		t.Error(err)
	}
	w.post(appendPingreq)
	if err := w.send(context.Background(), appendPingreq); err != nil {
		t.Error(err)
	}
	close(done)
	ours.Close()
	if s := <-got; s != "\xc0\x00\xe0\x00" {
		t.Errorf("%q", s)
	}
}

// TestNakOrder checks that the NAK of an unpublishable message follows the outcomes of
// earlier messages.
func TestNakOrder(t *testing.T) {
	for qos := range byte(3) {
		p := &peer{answer: func(c *peerConn, packet string) bool { return strings.HasPrefix(packet, "PUBLISH") }}
		st := streamType("s", nowhere, topics("${topic}", "", qos))
		st.Metadata = []policy.Metadata{{Name: "topic"}}
		quiet := slog.New(slog.DiscardHandler)
		bubble(t, p, runtime.Options{Logger: quiet}, types(st), func(t *testing.T, c *runtime.Context) {
			cl := open(t, c, "s")
			n := 0
			cl.on(teststream.Actions{"tx": func(s *runtime.Stream) policy.Result {
				topic := []string{"good", "#", "good"}[n]
				s.SetMetadata("topic", topic)
				if n++; n < 3 {
					cl.publish("x")
				}
				return policy.OK
			}})
			cl.Connect()
			synctest.Wait()
			cl.publish("x")
			synctest.Wait()
			ack := []string{0: "", 1: "\x40\x02\x00", 2: "\x50\x02\x00"}[qos]
			if qos > 0 {
				cl.want(t, "CRE CNG CON tx tx tx")
				p.latest().send(ack + "\x01" + ack + "\x02")
				synctest.Wait()
			}
			_, outcomes, _ := strings.Cut(strings.ReplaceAll(cl.String(), " tx", ""), "CON ")
			if outcomes != "ACK NAK ACK" {
				t.Errorf("QoS %d: %s", qos, cl)
			}
		})
	}
}

// TestNoIdentifiers checks that a connection without a free packet identifier ends, and
// that the next one has all identifiers.
func TestNoIdentifiers(t *testing.T) {
	p := &peer{}
	mqtt := New()
	o := runtime.Options{Transports: []transport.Transport{mqtt}}
	bubble(t, p, o, types(streamType("s", nowhere, topics("t", "", 1), retry(5))), func(t *testing.T, c *runtime.Context) {
		cl, other := open(t, c, "s"), open(t, c, "s")
		cl.Connect()
		other.Connect()
		synctest.Wait()
		for _, h := range mqtt.hubs {
			c := h.conns[0]
			c.mu.Lock()
			for c.sess.use(&outMsg{kind: typePublish, qos: 1, failed: true, done: true}) { // given up
			}
			c.mu.Unlock()
		}
		cl.publish("x")
		time.Sleep(time.Second)
		cl.want(t, "CRE CNG CON tx DIS POL CNG CON")
		cl.publish("x")
		synctest.Wait()
		cl.want(t, "CRE CNG CON tx DIS POL CNG CON tx ACK")
		other.want(t, "CRE CNG CON DIS POL CNG CON")
	})
}

// TestHandOver checks that messages not consumed by the last stream of a connection stay
// unacknowledged if the server keeps the session, and are delivered on the next connection.
func TestHandOver(t *testing.T) {
	for _, clean := range []bool{false, true} {
		p := &peer{answer: func(c *peerConn, packet string) bool {
			return resume(c, packet) || strings.HasPrefix(packet, "PUBREC")
		}}
		st := streamType("s", nowhere, topics("", "f", 2))
		st.MQTT.CleanStart = clean
		o := identify("device", "", "")
		bubble(t, p, o, types(st), func(t *testing.T, c *runtime.Context) {
			cl := open(t, c, "s").on(teststream.Actions{
				"rx(1)": func(*runtime.Stream) policy.Result { time.Sleep(time.Second); return policy.OK },
				"rx(2)": teststream.Destroy,
			})
			cl.Connect()
			synctest.Wait()
			for i, msg := range []string{"1", "2", "3", "4"} {
				p.latest().send(message("f", uint16(10+i), byte(1+i%2), msg))
			}
			time.Sleep(2 * time.Second)
			cl.want(t, "CRE CNG CON rx(1) rx(2) DIS DES")
			want := "PUBACK 10; 1s: PUBREC 11; 1s: DISCONNECT"
			if clean {
				want = "PUBACK 10; 1s: PUBREC 11; 1s: PUBACK 12; 1s: PUBREC 13; 1s: DISCONNECT"
			}
			if got := p.String(); !strings.HasSuffix(got, want) {
				t.Errorf("clean %v: got %s", clean, got)
			}
			if clean {
				return
			}
			again := open(t, c, "s")
			again.Connect()
			synctest.Wait()
			p.latest().send(message("f", 11, 2, "2") + message("f", 12, 1, "3") + message("f", 13, 2, "4"))
			synctest.Wait()
			again.want(t, "CRE CNG CON rx(3) rx(4)")
		})
	}
}
