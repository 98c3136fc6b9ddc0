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

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestSessionHandedOver: a connection that is slow to close, since the server
// reads nothing, has nothing to do any more with the session that the next one
// has.
func TestSessionHandedOver(t *testing.T) {
	free := make(chan struct{})
	p := &peer{}
	p.answer = func(c *peerConn, packet string) bool {
		switch {
		case c.n == 0 && strings.HasPrefix(packet, "PUBLISH"):
			<-free
			return true
		case c.n == 1 && strings.HasPrefix(packet, "CONNECT"):
			io.WriteString(c, "\x20\x02\x01\x00")
			return true
		case c.n == 1 && strings.Contains(packet, "one"):
			return true
		}
		return false
	}
	st := streamType("s", nowhere, topics("t", "", 1))
	st.MQTT.CleanStart = false
	synctest.Test(t, func(t *testing.T) {
		free = make(chan struct{})
		c := newContext(t, runtime.Options{Credentials: credentials("device", "", ""), DialContext: p.dial}, st)
		a := new(trace).open(t, c, "s")
		a.Connect()
		a.publish("one")
		synctest.Wait()
		a.Destroy()
		synctest.Wait() // it tries to send DISCONNECT
		b := new(trace).open(t, c, "s")
		b.Connect()
		synctest.Wait()
		b.want(t, "CRE CNG CON")
		if _, err := p.conns[0].Conn.Write([]byte("\x40\x02\x00\x01")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the connection before is still read: %v", err)
		}
		b.publish("two")
		synctest.Wait()
		b.want(t, "CRE CNG CON tx ACK")
		close(free)
		c.Close()
	})
}

// TestAckFlood: the acknowledgements that wait for a slow program are as many as
// there are packet identifiers, at most.
func TestAckFlood(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("", "f", 1))), func(t *testing.T, c *runtime.Context) {
		free := make(chan struct{})
		tr := &trace{on: map[string]func(*runtime.Stream) policy.Result{"rx(1)": func(*runtime.Stream) policy.Result { <-free; return policy.OK }}}
		tr.open(t, c, "s")
		tr.Connect()
		synctest.Wait()
		p.latest().send(message("f", 1, 1, "1"))
		p.latest().send(strings.Repeat(message("g", 2, 1, ""), maxString))
		synctest.Wait()
		close(free)
		synctest.Wait()
		tr.want(t, "CRE CNG CON rx(1) DIS")
		if !errors.Is(tr.Err(), ErrProtocol) {
			t.Errorf("Err %v", tr.Err())
		}
	})
}

// TestSubscribeAnsweredOtherwise: only a SUBACK answers a SUBSCRIBE.
func TestSubscribeAnsweredOtherwise(t *testing.T) {
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
			bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("", "f", 2))), func(t *testing.T, c *runtime.Context) {
				tr := new(trace).open(t, c, "s")
				tr.Connect()
				synctest.Wait()
				tr.want(t, "CRE CNG UNR ARF")
				if !errors.Is(tr.Err(), ErrProtocol) {
					t.Errorf("Err %v", tr.Err())
				}
			})
		})
	}
}

// TestSubscribedByAnother: each stream waits for the answer to the SUBSCRIBE that
// asks for its QoS.
func TestSubscribedByAnother(t *testing.T) {
	p := &peer{answer: silent("SUBSCRIBE")}
	bubble(t, p, runtime.Options{}, one(streamType("a", nowhere, topics("", "f", 0)), streamType("b", nowhere, topics("", "f", 1))), func(t *testing.T, c *runtime.Context) {
		a, b := new(trace).open(t, c, "a"), new(trace).open(t, c, "b")
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
		if !errors.Is(b.Err(), ErrSubscribe) {
			t.Errorf("Err %v", b.Err())
		}
	})
}

// TestLongUpload: the watch over a connection does not end it in the middle of a
// message that goes on, though no PINGREQ can be sent; but if it does not.
func TestLongUpload(t *testing.T) {
	for _, stops := range []bool{false, true} {
		p := &peer{answer: silent("PINGREQ")}
		st := streamType("s", nowhere, topics("t", "", 0))
		st.MQTT.KeepAlive = 10 * time.Second
		bubble(t, p, runtime.Options{}, one(st), func(t *testing.T, c *runtime.Context) {
			tr := &trace{times: true}
			tr.open(t, c, "s")
			n, paused := 0, false
			tr.SetHandlers(runtime.Handlers{Tx: func(s *runtime.Stream, ordinal uint32, buf []byte) (int, policy.Flags, policy.Result) {
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
			tr.Connect()
			synctest.Wait()
			tr.RequestTxLen(400_000)
			time.Sleep(54 * time.Second)
			want := "CRE CNG CON 39s:ACK"
			if stops {
				want = "CRE CNG CON 45s:DIS"
			}
			if got := tr.String(); got != want && !strings.HasPrefix(got, want+" ") {
				t.Errorf("got %s, want %s; %v", got, want, tr.Err())
			}
		})
	}
}

// TestSiblingReceives: a stream that receives, but does not go on with its own
// message, ends the connection all the same.
func TestSiblingReceives(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, one(streamType("a", nowhere, topics("t", "f", 0)), streamType("b", nowhere, topics("u", "", 0))), func(t *testing.T, c *runtime.Context) {
		a := new(trace).open(t, c, "a")
		n := 0
		a.SetHandlers(runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
			if n++; n > 4 || n == 1 {
				return 0, 0, policy.TxDontSend
			}
			return len(buf), 0, policy.OK
		}})
		a.Connect()
		synctest.Wait()
		b := new(trace).open(t, c, "b")
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

// TestLeaveWhileWriting: a stream that writes for another one too, as it ends, is
// not kept by that.
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
		a, b := new(trace).open(t, c, "s"), new(trace).open(t, c, "s")
		a.Connect()
		b.Connect()
		synctest.Wait()
		a.publish("first")
		synctest.Wait()
		a.publish("second")
		synctest.Wait() // a waits for the server to read it
		b.publish("third")
		synctest.Wait()
		a.Destroy()
		time.Sleep(time.Second)
		close(first)
		time.Sleep(time.Second)
		a.want(t, "CRE CNG CON tx ACK tx DIS DES")
		start := time.Now()
		c.Close()
		if d := time.Since(start); d > 2*flushLimit {
			t.Errorf("Close took %v", d)
		}
		close(never)
	})
}

// TestLastPacket: nothing follows a DISCONNECT [MQTT-3.14.4-2].
func TestLastPacket(t *testing.T) {
	ours, theirs := net.Pipe()
	w := newWriter(ours, func(err error) { t.Error(err) })
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

// TestNakInTurn: a message that can not be published is a NAK after the outcomes
// of those before it.
func TestNakInTurn(t *testing.T) {
	for qos := range byte(3) {
		p := &peer{answer: func(c *peerConn, packet string) bool { return strings.HasPrefix(packet, "PUBLISH") }}
		st := streamType("s", nowhere, topics("${topic}", "", qos))
		st.Metadata = []policy.Metadata{{Name: "topic"}}
		quiet := slog.New(slog.DiscardHandler)
		bubble(t, p, runtime.Options{Logger: quiet}, one(st), func(t *testing.T, c *runtime.Context) {
			tr := &trace{on: map[string]func(*runtime.Stream) policy.Result{}}
			n := 0
			tr.on["tx"] = func(s *runtime.Stream) policy.Result {
				topic := []string{"good", "#", "good"}[n]
				s.SetMetadata("topic", topic)
				if n++; n < 3 {
					tr.mu.Lock()
					tr.send = append(tr.send, []byte("x"))
					tr.mu.Unlock()
					s.RequestTx()
				}
				return policy.OK
			}
			tr.open(t, c, "s")
			tr.Connect()
			synctest.Wait()
			tr.publish("x")
			synctest.Wait()
			ack := []string{0: "", 1: "\x40\x02\x00", 2: "\x50\x02\x00"}[qos]
			if qos > 0 {
				tr.want(t, "CRE CNG CON tx tx tx")
				p.latest().send(ack + "\x01" + ack + "\x02")
				synctest.Wait()
			}
			_, outcomes, _ := strings.Cut(strings.ReplaceAll(tr.String(), " tx", ""), "CON ")
			if outcomes != "ACK NAK ACK" {
				t.Errorf("QoS %d: %s", qos, tr)
			}
		})
	}
}

// TestNoIdentifiers: when no packet identifier is free the connection ends, and
// the next one has all of them.
func TestNoIdentifiers(t *testing.T) {
	p := &peer{}
	transport := New()
	o := runtime.Options{Transports: []transport.Transport{transport}}
	bubble(t, p, o, one(streamType("s", nowhere, topics("t", "", 1), retry(5))), func(t *testing.T, c *runtime.Context) {
		tr, other := new(trace).open(t, c, "s"), new(trace).open(t, c, "s")
		tr.Connect()
		other.Connect()
		synctest.Wait()
		for _, h := range transport.hubs {
			c := h.conns[0]
			c.mu.Lock()
			for c.sess.use(&outMsg{qos: 1, failed: true, done: true}) { // given up
			}
			c.mu.Unlock()
		}
		tr.publish("x")
		time.Sleep(time.Second)
		tr.want(t, "CRE CNG CON tx DIS POL CNG CON")
		tr.publish("x")
		synctest.Wait()
		tr.want(t, "CRE CNG CON tx DIS POL CNG CON tx ACK")
		other.want(t, "CRE CNG CON DIS POL CNG CON")
	})
}

// TestLeftToTheServer: what the last stream of a connection has not had, when it
// is destroyed, is not acknowledged if the server keeps the session, and comes
// again.
func TestLeftToTheServer(t *testing.T) {
	for _, clean := range []bool{false, true} {
		p := &peer{}
		p.answer = func(c *peerConn, packet string) bool {
			if c.n == 1 && strings.HasPrefix(packet, "CONNECT") {
				io.WriteString(c, "\x20\x02\x01\x00")
				return true
			}
			return strings.HasPrefix(packet, "PUBREC")
		}
		st := streamType("s", nowhere, topics("", "f", 2))
		st.MQTT.CleanStart = clean
		o := runtime.Options{Credentials: credentials("device", "", "")}
		bubble(t, p, o, one(st), func(t *testing.T, c *runtime.Context) {
			tr := &trace{on: map[string]func(*runtime.Stream) policy.Result{
				"rx(1)": func(*runtime.Stream) policy.Result { time.Sleep(time.Second); return policy.OK },
				"rx(2)": func(*runtime.Stream) policy.Result { return policy.DestroyMe },
			}}
			tr.open(t, c, "s")
			tr.Connect()
			synctest.Wait()
			for i, msg := range []string{"1", "2", "3", "4"} {
				p.latest().send(message("f", uint16(10+i), byte(1+i%2), msg))
			}
			time.Sleep(2 * time.Second)
			tr.want(t, "CRE CNG CON rx(1) rx(2) DIS DES")
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
			again := new(trace).open(t, c, "s")
			again.Connect()
			synctest.Wait()
			p.latest().send(message("f", 11, 2, "2") + message("f", 12, 1, "3") + message("f", 13, 2, "4"))
			synctest.Wait()
			again.want(t, "CRE CNG CON rx(3) rx(4)")
		})
	}
}
