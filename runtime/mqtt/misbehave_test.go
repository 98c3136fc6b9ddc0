package mqtt

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

var nowhere = netip.MustParseAddrPort("192.0.2.1:1883")

// bubble runs a test with a clock of its own, and a context whose connections
// go to a peer.
func bubble(t *testing.T, p *peer, o runtime.Options, types []*policy.StreamType, f func(t *testing.T, c *runtime.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.DialContext = p.dial
		c := newContext(t, o, types...)
		f(t, c)
		c.Close()
		synctest.Wait()
	})
}

func one(st ...*policy.StreamType) []*policy.StreamType { return st }

// silent answers as it should but to packets that begin with one of these.
func silent(to ...string) func(*peerConn, string) bool {
	return func(_ *peerConn, packet string) bool {
		for _, s := range to {
			if strings.HasPrefix(packet, s) {
				return true
			}
		}
		return false
	}
}

func (p *peer) want(t *testing.T, want string) {
	t.Helper()
	if got := p.String(); got != want {
		t.Errorf("the peer got  %s\nwant          %s", got, want)
	}
}

// TestResend: a message that nobody acknowledges is sent again after 3, 6 and
// 9 s and given up after 12, and the connection is good for the next one.
func TestResend(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		for _, payload := range []string{"hello", ""} {
			t.Run(fmt.Sprint(qos, payload), func(t *testing.T) {
				p := &peer{answer: silent("PUBLISH t id 1 ")}
				bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "", qos))), func(t *testing.T, c *runtime.Context) {
					tr := &trace{times: true}
					tr.open(t, c, "s")
					tr.Connect()
					synctest.Wait()
					tr.publish(payload)
					time.Sleep(time.Minute)
					tr.want(t, "CRE CNG CON tx 12s:NAK")
					dup := fmt.Sprintf("PUBLISH t id 1 qos %d DUP %s", qos, payload)
					got := p.String()
					got = strings.Split(got, "; 40s")[0]
					if want := fmt.Sprintf("CONNECT random clean; PUBLISH t id 1 qos %d %s; 3s: %s; 6s: %s; 9s: %s", qos, payload, dup, dup, dup); got != want {
						t.Errorf("got  %s\nwant %s", got, want)
					}
					p.reset()
					tr.publish("more")
					synctest.Wait()
					tr.want(t, "CRE CNG CON tx 12s:NAK 1m0s:tx 1m0s:ACK")
					// An answer that comes late is passed over.
					p.latest().send([]string{1: "\x40\x02\x00\x01", 2: "\x50\x02\x00\x01"}[qos])
					synctest.Wait()
					if tr.State() != policy.StateQoSAckRemote {
						t.Errorf("after a late answer: %s, %v", tr, tr.Err())
					}
				})
			})
		}
	}
}

// TestResendAnswered: the second copy is acknowledged, and then the first.
func TestResendAnswered(t *testing.T) {
	p := &peer{answer: func(c *peerConn, packet string) bool {
		return strings.HasPrefix(packet, "PUBLISH") && !strings.Contains(packet, "DUP")
	}}
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
		tr := &trace{times: true}
		tr.open(t, c, "s")
		tr.Connect()
		tr.publish("a")
		time.Sleep(10 * time.Second)
		p.latest().send("\x40\x02\x00\x01")
		synctest.Wait()
		tr.want(t, "CRE CNG CON tx 3s:ACK")
	})
}

// TestPubrel: the second half of QoS 2 is sent again too, and is no concern of
// the program.
func TestPubrel(t *testing.T) {
	p := &peer{answer: silent("PUBREL")}
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "", 2))), func(t *testing.T, c *runtime.Context) {
		tr := &trace{times: true}
		tr.open(t, c, "s")
		tr.Connect()
		tr.publish("a")
		time.Sleep(30 * time.Second)
		tr.want(t, "CRE CNG CON tx ACK")
		p.want(t, "CONNECT random clean; PUBLISH t id 1 qos 2 a; PUBREL 1; 3s: PUBREL 1; 6s: PUBREL 1; 9s: PUBREL 1")
	})
}

// TestOutcomesInOrder: a message that is given up keeps back the
// acknowledgements of those after it, so that the program can count.
func TestOutcomesInOrder(t *testing.T) {
	p := &peer{answer: silent("PUBLISH t id 1 ")}
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
		tr := &trace{times: true, on: map[string]func(*runtime.Stream) policy.Result{}}
		n := 0
		tr.on["tx"] = func(s *runtime.Stream) policy.Result {
			if n++; n < 25 {
				tr.mu.Lock()
				tr.send = append(tr.send, []byte("x"))
				tr.mu.Unlock()
				s.RequestTx()
			}
			return policy.OK
		}
		tr.open(t, c, "s")
		tr.Connect()
		tr.publish("x")
		time.Sleep(11 * time.Second)
		tr.want(t, "CRE CNG CON"+strings.Repeat(" tx", window))
		time.Sleep(2 * time.Second)
		if got := tr.String(); !strings.HasPrefix(got, "CRE CNG CON"+strings.Repeat(" tx", window)+" 12s:NAK"+strings.Repeat(" 12s:ACK", window-1)) {
			t.Errorf("got %s", got)
		}
		if n := strings.Count(tr.String(), "ACK"); n != 24 {
			t.Errorf("%d acknowledgements: %s", n, tr)
		}
	})
}

func TestRefused(t *testing.T) {
	for code := byte(1); code <= 5; code++ {
		p := &peer{answer: func(c *peerConn, packet string) bool {
			io.WriteString(c, "\x20\x02\x00"+string(rune(code)))
			return true
		}}
		bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "", 1), retry(1))), func(t *testing.T, c *runtime.Context) {
			tr := new(trace).open(t, c, "s")
			tr.RequestTx()
			time.Sleep(time.Second)
			tr.want(t, "CRE POL CNG UNR POL CNG UNR ARF")
			refused, ok := errors.AsType[*RefusedError](tr.Err())
			if !ok || refused.Code != code {
				t.Errorf("Err %v", tr.Err())
			}
		})
	}
}

// TestBadHandshake: what is not a good CONNACK makes the broker unreachable.
func TestBadHandshake(t *testing.T) {
	for name, bytes := range map[string]string{
		"another packet": "\x40\x02\x00\x01", "code 9": "\x20\x02\x00\x09", "HTTP": "HTTP/1.1 400 Bad Request\r\n\r\n",
		"long": "\x20\x7f", "unwanted session": "\x20\x02\x01\x00", "endless length": "\x20\xff\xff\xff\xff\xff",
		"closed": "", "half": "\x20\x02\x00",
	} {
		t.Run(name, func(t *testing.T) {
			p := &peer{answer: func(c *peerConn, packet string) bool {
				go io.Copy(io.Discard, c)
				io.WriteString(c, bytes)
				c.Close()
				return true
			}}
			bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
				tr := new(trace).open(t, c, "s")
				tr.RequestTx()
				synctest.Wait()
				tr.want(t, "CRE POL CNG UNR ARF")
				if err := tr.Err(); !errors.Is(err, ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("Err %v", err)
				}
			})
		})
	}
}

// TestNoConnack: the limit of an attempt holds for the handshake.
func TestNoConnack(t *testing.T) {
	p := &peer{answer: silent("CONNECT")}
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
		tr := &trace{times: true}
		tr.open(t, c, "s").RequestTx()
		time.Sleep(time.Minute)
		tr.want(t, "CRE POL CNG 15s:UNR 15s:ARF")
		if !errors.Is(tr.Err(), transport.ErrTimeout) {
			t.Errorf("Err %v", tr.Err())
		}
	})
}

// TestMalformed: what MQTT does not allow ends a connection.
func TestMalformed(t *testing.T) {
	for _, c := range packets {
		if c.err == "" || strings.Contains(c.err, "EOF") {
			continue
		}
		t.Run(c.name, func(t *testing.T) { malformedAfter(t, c.in) })
	}
	for name, in := range map[string]string{
		"second CONNACK": "\x20\x02\x00\x00", "SUBACK of nothing": "\x90\x03\x00\x63\x00",
		"PUBACK of QoS 2": "\x40\x02\x00\x02", "SUBACK of a message": "\x90\x03\x00\x02\x00",
	} {
		t.Run(name, func(t *testing.T) { malformedAfter(t, in) })
	}
}

func malformedAfter(t *testing.T, in string) {
	p := &peer{answer: silent("PUBLISH")}
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "f", 2))), func(t *testing.T, c *runtime.Context) {
		tr := new(trace).open(t, c, "s")
		tr.Connect()
		tr.publish("message 2") // identifier 2; 1 was that of SUBSCRIBE
		synctest.Wait()
		io.WriteString(p.latest(), in)
		synctest.Wait()
		tr.want(t, "CRE CNG CON tx DIS")
		if !errors.Is(tr.Err(), ErrProtocol) {
			t.Errorf("Err %v", tr.Err())
		}
	})
}

// TestKeepAlive: PINGREQ at the lesser of the keep alive and svalidping, and the
// end of the connection when nothing answers.
func TestKeepAlive(t *testing.T) {
	s := func(n int) time.Duration { return time.Duration(n) * time.Second }
	for _, c := range []struct {
		name         string
		keep         time.Duration
		ping, hangup time.Duration
		noRetry      bool
		answer       func(*peerConn, string) bool
		want, peer   string
	}{
		{"keep alive", s(10), 0, 0, false, nil, "CRE CNG CON", "10s: PINGREQ; 20s: PINGREQ; 30s: PINGREQ; 40s: PINGREQ"},
		{"keep alive, no answer", s(10), 0, 0, false, silent("PINGREQ"), "CRE CNG CON 15s:DIS", "10s: PINGREQ"},
		{"keep alive, hang up sooner", s(10), 0, s(12), false, silent("PINGREQ"), "CRE CNG CON 12s:DIS", "10s: PINGREQ"},
		{"svalidping", 0, s(15), s(20), false, nil, "CRE CNG CON", "15s: PINGREQ; 30s: PINGREQ; 45s: PINGREQ"},
		{"svalidping, no answer", s(60), s(15), s(20), false, silent("PINGREQ"), "CRE CNG CON 20s:DIS", "15s: PINGREQ"},
		{"none", 0, 0, 0, false, nil, "CRE CNG CON", ""},
		{"by default", 0, 0, 0, true, silent("PINGREQ"), "CRE CNG CON", "40s: PINGREQ"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := streamType("s", nowhere, topics("t", "", 0))
			st.MQTT.KeepAlive = c.keep
			if !c.noRetry {
				st.Retry = &policy.Retry{ValidPing: c.ping, ValidHangup: c.hangup}
			}
			p := &peer{answer: c.answer}
			bubble(t, p, runtime.Options{}, one(st), func(t *testing.T, ctx *runtime.Context) {
				tr := &trace{times: true}
				tr.open(t, ctx, "s").Connect()
				time.Sleep(48 * time.Second)
				tr.want(t, c.want)
				_, got, _ := strings.Cut(p.String(), "; ")
				if got != c.peer {
					t.Errorf("the peer got %s, want %s", got, c.peer)
				}
				if strings.HasSuffix(c.want, "DIS") && !errors.Is(tr.Err(), transport.ErrNoValidity) {
					t.Errorf("Err %v", tr.Err())
				}
			})
		})
	}
}

// TestLeave: a stream that wants to disconnect gives up its subscription first,
// and waits 3 s for the answer.
func TestLeave(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(*peerConn, string) bool
		want   string
		peer   string
	}{
		{"answered", nil, "CRE CNG CON 1s:tx 1s:DIS", "1s: UNSUBSCRIBE 2 f; 1s: DISCONNECT"},
		{"not answered", silent("UNSUBSCRIBE"), "CRE CNG CON 1s:tx 4s:DIS", "1s: UNSUBSCRIBE 2 f; 4s: DISCONNECT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &peer{answer: c.answer}
			bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "f", 0))), func(t *testing.T, ctx *runtime.Context) {
				tr := &trace{times: true, on: map[string]func(*runtime.Stream) policy.Result{
					"tx": func(*runtime.Stream) policy.Result { return policy.DisconnectMe },
				}}
				tr.open(t, ctx, "s").Connect()
				time.Sleep(time.Second)
				tr.publish("x")
				time.Sleep(10 * time.Second)
				tr.want(t, c.want)
				p.want(t, "CONNECT random clean; SUBSCRIBE 1 f qos 0; "+c.peer)
			})
		})
	}
	t.Run("destroyed", func(t *testing.T) {
		p := &peer{}
		bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "f", 0))), func(t *testing.T, ctx *runtime.Context) {
			tr := new(trace).open(t, ctx, "s")
			tr.Connect()
			synctest.Wait()
			tr.Destroy()
			synctest.Wait()
			tr.want(t, "CRE CNG CON DIS DES")
			p.want(t, "CONNECT random clean; SUBSCRIBE 1 f qos 0; DISCONNECT")
		})
	})
}

// TestConnect: what a connection begins with.
func TestConnect(t *testing.T) {
	st := streamType("s", nowhere, topics("t/${who}", "f/${who}", 1))
	st.Metadata = []policy.Metadata{{Name: "who"}}
	m := st.MQTT
	m.KeepAlive = 30 * time.Second
	m.WillTopic, m.WillMessage, m.WillQoS, m.WillRetain = "w/${who}", "${who} is gone", 2, true
	m.BirthTopic, m.BirthMessage, m.BirthQoS, m.BirthRetain = "b/${who}", "${who} is here", 1, true
	m.Retain, m.CleanStart = true, false
	p := &peer{}
	o := runtime.Options{Credentials: credentials("device", "me", "secret")}
	bubble(t, p, o, one(st), func(t *testing.T, c *runtime.Context) {
		tr := new(trace).open(t, c, "s", runtime.WithMetadata("who", "ann"))
		tr.Connect()
		synctest.Wait()
		tr.SetMetadata("who", "bob")
		tr.publish("hello")
		synctest.Wait()
		tr.want(t, "CRE CNG CON tx ACK")
		p.want(t, "CONNECT device keep 30 will w/ann=ann is gone qos 2 retain true user me password secret; "+
			"SUBSCRIBE 1 f/ann qos 1; PUBLISH b/ann id 2 qos 1 RETAIN ann is here; PUBLISH t/bob id 3 qos 1 RETAIN hello")
	})
}

func TestBadCredentials(t *testing.T) {
	for name, o := range map[string]runtime.Options{
		"client id too long":           {Credentials: credentials(strings.Repeat("x", 129), "", "")},
		"password without a user name": {Credentials: credentials("", "", "secret")},
		"not UTF-8":                    {Credentials: credentials("", "\xff", "")},
	} {
		p := &peer{}
		bubble(t, p, o, one(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
			tr := new(trace).open(t, c, "s")
			tr.RequestTx()
			synctest.Wait()
			tr.want(t, "CRE POL CNG UNR ARF")
			if p.String() != "" || tr.Err() == nil || strings.Contains(tr.Err().Error(), "secret") {
				t.Errorf("%s: %v, and the peer got %s", name, tr.Err(), p)
			}
		})
	}
}

// TestBirth: it is sent once for a connection, and has to be acknowledged.
func TestBirth(t *testing.T) {
	st := func(name string) *policy.StreamType {
		st := streamType(name, nowhere, topics("t", "", 0))
		st.MQTT.BirthTopic, st.MQTT.BirthQoS = "b", 1
		return st
	}
	p := &peer{}
	bubble(t, p, runtime.Options{}, one(st("s"), st("r")), func(t *testing.T, c *runtime.Context) {
		for _, name := range []string{"s", "r"} {
			tr := new(trace).open(t, c, name)
			tr.Connect()
			synctest.Wait()
			tr.want(t, "CRE CNG CON")
		}
		p.want(t, "CONNECT random clean; PUBLISH b id 1 qos 1 ")
	})
	p = &peer{answer: silent("PUBLISH")}
	bubble(t, p, runtime.Options{}, one(st("s")), func(t *testing.T, c *runtime.Context) {
		tr := &trace{times: true}
		tr.open(t, c, "s").RequestTx()
		time.Sleep(time.Minute)
		tr.want(t, "CRE POL CNG 12s:UNR 12s:ARF")
		if !errors.Is(tr.Err(), ErrBirth) {
			t.Errorf("Err %v", tr.Err())
		}
	})
}

// TestSubscribeRefused: a subscription that is refused is no connection.
func TestSubscribeRefused(t *testing.T) {
	p := &peer{answer: func(c *peerConn, packet string) bool {
		if strings.HasPrefix(packet, "SUBSCRIBE") {
			io.WriteString(c, "\x90\x03\x00\x01\x80")
			return true
		}
		return false
	}}
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "f", 0))), func(t *testing.T, c *runtime.Context) {
		tr := new(trace).open(t, c, "s")
		tr.RequestTx()
		synctest.Wait()
		tr.want(t, "CRE POL CNG UNR ARF")
		if !errors.Is(tr.Err(), ErrSubscribe) {
			t.Errorf("Err %v", tr.Err())
		}
	})
}

// TestTimeoutAndAck: an acknowledgement stops the timer of the program.
func TestTimeoutAndAck(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
		tr := &trace{times: true}
		tr.open(t, c, "s").Connect()
		synctest.Wait()
		tr.StartTimeout(time.Second)
		tr.publish("x")
		time.Sleep(5 * time.Second)
		tr.want(t, "CRE CNG CON tx ACK")
	})
}

// TestDuplicate: a message with QoS 2 that is sent again is delivered once.
func TestDuplicate(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("", "f", 2))), func(t *testing.T, c *runtime.Context) {
		tr := new(trace).open(t, c, "s")
		tr.Connect()
		synctest.Wait()
		msg := message("f", 9, 2, "hello")
		p.answer = silent("PUBREC") // no PUBREL yet
		for range 3 {
			p.latest().send(msg)
			synctest.Wait()
		}
		p.latest().send("\x62\x02\x00\x09")
		synctest.Wait()
		p.latest().send(msg)
		p.latest().send(message("f", 9, 1, "one"))
		synctest.Wait()
		tr.want(t, "CRE CNG CON rx(hello) rx(hello) rx(one)")
		p.want(t, "CONNECT random clean; SUBSCRIBE 1 f qos 2; PUBREC 9; PUBREC 9; PUBREC 9; PUBCOMP 9; PUBREC 9; PUBACK 9")
	})
}

// TestResume: a session that both sides know of goes on: what was not
// acknowledged is sent again, and nothing is subscribed anew.
func TestResume(t *testing.T) {
	connects := 0
	p := &peer{}
	p.answer = func(c *peerConn, packet string) bool {
		switch {
		case strings.HasPrefix(packet, "CONNECT"):
			if connects++; connects > 1 {
				io.WriteString(c, "\x20\x02\x01\x00")
				return true
			}
		case strings.HasPrefix(packet, "PUBREC "): // it is not released
			return true
		case c.n == 0 && (strings.Contains(packet, "two") || strings.Contains(packet, "three")):
			return true
		case c.n == 0 && strings.HasPrefix(packet, "PUBREL 3"):
			c.Close()
			return true
		}
		return false
	}
	st := streamType("s", nowhere, topics("t", "f", 2), retry(5))
	st.MQTT.CleanStart = false
	o := runtime.Options{Credentials: credentials("device", "", "")}
	bubble(t, p, o, one(st), func(t *testing.T, c *runtime.Context) {
		tr := new(trace).open(t, c, "s")
		tr.Connect()
		synctest.Wait()
		for _, msg := range []string{"one", "two", "three"} {
			tr.publish(msg)
			synctest.Wait()
		}
		p.latest().send(message("f", 7, 2, "in"))
		synctest.Wait()
		p.latest().send("\x50\x02\x00\x03") // PUBREC for two, and PUBREL ends the connection
		time.Sleep(time.Second)
		p.latest().send(string(appendPublish(nil, "f", 7, 2, true, false, 2)) + "in")
		synctest.Wait()
		tr.want(t, "CRE CNG CON tx ACK tx tx rx(in) ACK DIS POL CNG CON")
		_, again, _ := strings.Cut(p.String(), "PUBREL 3; ")
		if want := "5ms: CONNECT device; 5ms: PUBREL 3; 5ms: PUBLISH t id 4 qos 2 DUP three; 5ms: PUBREL 4; 1s: PUBREC 7"; again != want {
			t.Errorf("got  %s\nwant %s", again, want)
		}
	})
}

// TestNoSession: a session that the server knows nothing of is a new one.
func TestNoSession(t *testing.T) {
	p := &peer{answer: func(c *peerConn, packet string) bool { return strings.HasPrefix(packet, "PUBLISH") && c.n == 0 }}
	st := streamType("s", nowhere, topics("t", "f", 1), retry(5))
	st.MQTT.CleanStart = false
	bubble(t, p, runtime.Options{Credentials: credentials("device", "", "")}, one(st), func(t *testing.T, c *runtime.Context) {
		tr := new(trace).open(t, c, "s")
		tr.Connect()
		tr.publish("one")
		synctest.Wait()
		p.latest().Close()
		time.Sleep(time.Second)
		tr.want(t, "CRE CNG CON tx DIS POL CNG CON")
		p.want(t, "CONNECT device; SUBSCRIBE 1 f qos 1; PUBLISH t id 2 qos 1 one; 5ms: CONNECT device; 5ms: SUBSCRIBE 1 f qos 1")
	})
}
