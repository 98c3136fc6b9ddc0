package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

var nowhere = netip.MustParseAddrPort("192.0.2.1:1883")

// bubble runs a test in a bubble of synctest, with a context whose connections go to
// a peer.
func bubble(t *testing.T, p *peer, o runtime.Options, types []*policy.StreamType, f func(t *testing.T, c *runtime.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.DialContext = p.dial
		c := newContext(t, o, types...)
		f(t, c)
		teststream.Shutdown(t, c)
		synctest.Wait()
	})
}

func types(st ...*policy.StreamType) []*policy.StreamType { return st }

// silent returns an answer function that ignores packets with one of the prefixes.
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
		t.Errorf("peer got %s\nwant     %s", got, want)
	}
}

// TestResend checks that an unacknowledged message is repeated after 3, 6 and 9 s and fails
// after 12 s, and that the connection remains usable.
func TestResend(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		for _, payload := range []string{"hello", ""} {
			t.Run(fmt.Sprint(qos, payload), func(t *testing.T) {
				p := &peer{answer: silent("PUBLISH t id 1 ")}
				bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", qos))), func(t *testing.T, c *runtime.Context) {
					cl := open(t, c, "s").timed()
					cl.Connect()
					synctest.Wait()
					cl.publish(payload)
					time.Sleep(time.Minute)
					cl.want(t, "CRE CNG CON tx 12s:NAK")
					dup := fmt.Sprintf("PUBLISH t id 1 qos %d DUP %s", qos, payload)
					got := p.String()
					got = strings.Split(got, "; 40s")[0]
					if want := fmt.Sprintf("CONNECT random clean; PUBLISH t id 1 qos %d %s; 3s: %s; 6s: %s; 9s: %s", qos, payload, dup, dup, dup); got != want {
						t.Errorf("got  %s\nwant %s", got, want)
					}
					p.reset()
					cl.publish("more")
					synctest.Wait()
					cl.want(t, "CRE CNG CON tx 12s:NAK 1m0s:tx 1m0s:ACK")
					// A late answer is ignored.
					p.latest().send([]string{1: "\x40\x02\x00\x01", 2: "\x50\x02\x00\x01"}[qos])
					synctest.Wait()
					if cl.State() != policy.StateQoSAckRemote {
						t.Errorf("after a late answer: %s, %v", cl, cl.Err())
					}
				})
			})
		}
	}
}

// TestResendAnswered checks that a second acknowledgement is ignored.
func TestResendAnswered(t *testing.T) {
	p := &peer{answer: func(c *peerConn, packet string) bool {
		return strings.HasPrefix(packet, "PUBLISH") && !strings.Contains(packet, "DUP")
	}}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s").timed()
		cl.Connect()
		cl.publish("a")
		time.Sleep(10 * time.Second)
		p.latest().send("\x40\x02\x00\x01")
		synctest.Wait()
		cl.want(t, "CRE CNG CON tx 3s:ACK")
	})
}

// TestPubrel checks that a PUBREL is repeated too, and that a message without a PUBCOMP is
// not acknowledged.
func TestPubrel(t *testing.T) {
	p := &peer{answer: silent("PUBREL")}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", 2))), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s").timed()
		cl.Connect()
		cl.publish("a")
		time.Sleep(30 * time.Second)
		cl.want(t, "CRE CNG CON tx 12s:NAK")
		p.want(t, "CONNECT random clean; PUBLISH t id 1 qos 2 a; PUBREL 1; 3s: PUBREL 1; 6s: PUBREL 1; 9s: PUBREL 1")
	})
}

// TestOutcomesInOrder checks that outcomes are delivered in the order of the messages, so
// that the program can count them.
func TestOutcomesInOrder(t *testing.T) {
	p := &peer{answer: silent("PUBLISH t id 1 ")}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s").timed()
		n := 0
		cl.on(teststream.Actions{"tx": func(*runtime.Stream) policy.Result {
			if n++; n < 25 {
				cl.publish("x")
			}
			return policy.OK
		}})
		cl.Connect()
		cl.publish("x")
		time.Sleep(11 * time.Second)
		cl.want(t, "CRE CNG CON"+strings.Repeat(" tx", window))
		time.Sleep(2 * time.Second)
		if got := cl.String(); !strings.HasPrefix(got, "CRE CNG CON"+strings.Repeat(" tx", window)+" 12s:NAK"+strings.Repeat(" 12s:ACK", window-1)) {
			t.Errorf("got %s", got)
		}
		if n := strings.Count(cl.String(), "ACK"); n != 24 {
			t.Errorf("%d acknowledgements: %s", n, cl)
		}
	})
}

func TestRefused(t *testing.T) {
	for code := byte(1); code <= 5; code++ {
		p := &peer{answer: func(c *peerConn, packet string) bool {
			io.WriteString(c, "\x20\x02\x00"+string(rune(code)))
			return true
		}}
		bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", 1), retry(1))), func(t *testing.T, c *runtime.Context) {
			cl := open(t, c, "s")
			cl.RequestTx()
			time.Sleep(time.Second)
			cl.want(t, "CRE POL CNG UNR POL CNG UNR ARF")
			refused, ok := errors.AsType[*RefusedError](cl.Err())
			if !ok || refused.Code != code {
				t.Errorf("Err %v", cl.Err())
			}
		})
	}
}

// TestBadHandshake checks that a bad CONNACK makes the broker unreachable.
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
			bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
				cl := open(t, c, "s")
				cl.RequestTx()
				synctest.Wait()
				cl.want(t, "CRE POL CNG UNR ARF")
				if err := cl.Err(); !errors.Is(err, ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("Err %v", err)
				}
			})
		})
	}
}

// TestNoConnack checks that the limit of an attempt includes the handshake.
func TestNoConnack(t *testing.T) {
	p := &peer{answer: silent("CONNECT")}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s").timed()
		cl.RequestTx()
		time.Sleep(time.Minute)
		cl.want(t, "CRE POL CNG 15s:UNR 15s:ARF")
		cl.wantErr(t, transport.ErrTimeout)
	})
}

// TestMalformed checks that packets that violate MQTT end a connection.
func TestMalformed(t *testing.T) {
	for _, c := range packets {
		if c.err == "" || strings.Contains(c.err, "EOF") {
			continue
		}
		t.Run(c.name, func(t *testing.T) { malformedAfter(t, c.in) })
	}
	for name, in := range map[string]string{
		"second CONNACK": "\x20\x02\x00\x00", "SUBACK of nothing": "\x90\x03\x00\x63\x00",
		"PINGRESPs": strings.Repeat("\xd0\x00", 1001), "UNSUBACKs": strings.Repeat("\xb0\x02\x00\x63", 1001),
		"PUBACKs": strings.Repeat("\x40\x02\x00\x63", 1001), "PUBRECs": strings.Repeat("\x50\x02\x00\x63", 1001),
		"PUBRELs": strings.Repeat("\x62\x02\x00\x63", 1001), "PUBCOMPs": strings.Repeat("\x70\x02\x00\x02", 1001),
		"a control character in a topic": message("a\x1bb", 0, 0, ""), "a C1 control character": message("a\u009b", 0, 0, ""),
		"a noncharacter": message("a\ufffe", 0, 0, ""), "DUP with QoS 0": "\x38\x03\x00\x01f",
		"PUBACK of QoS 2": "\x40\x02\x00\x02", "SUBACK of a message": "\x90\x03\x00\x02\x00",
	} {
		t.Run(name, func(t *testing.T) { malformedAfter(t, in) })
	}
}

func malformedAfter(t *testing.T, in string) {
	p := &peer{answer: silent("PUBLISH")}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "f", 2))), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.Connect()
		cl.publish("message 2") // has identifier 2; SUBSCRIBE has 1
		synctest.Wait()
		io.WriteString(p.latest(), in)
		synctest.Wait()
		cl.want(t, "CRE CNG CON tx DIS")
		cl.wantErr(t, ErrProtocol)
	})
}

// TestKeepAlive checks that PINGREQ is sent at the shorter of the keep alive and
// svalidping, and that the connection ends without an answer.
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
			bubble(t, p, runtime.Options{}, types(st), func(t *testing.T, ctx *runtime.Context) {
				cl := open(t, ctx, "s").timed()
				cl.Connect()
				time.Sleep(48 * time.Second)
				cl.want(t, c.want)
				_, got, _ := strings.Cut(p.String(), "; ")
				if got != c.peer {
					t.Errorf("peer got %s, want %s", got, c.peer)
				}
				if strings.HasSuffix(c.want, "DIS") && !errors.Is(cl.Err(), transport.ErrNoValidity) {
					t.Errorf("Err %v", cl.Err())
				}
			})
		})
	}
}

// TestLateProbe checks that a probe of the validity timer that runs after the answer to the
// PINGREQ of the keep alive, which is due at the same time, sends no other.
func TestLateProbe(t *testing.T) {
	st := streamType("s", nowhere, topics("t", "", 0))
	st.MQTT.KeepAlive = 10 * time.Second
	p := &peer{}
	mqtt := New()
	bubble(t, p, runtime.Options{Transports: []transport.Transport{mqtt}}, types(st), func(t *testing.T, ctx *runtime.Context) {
		open(t, ctx, "s").Connect()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for _, h := range mqtt.hubs {
			h.conns[0].probe()
		}
		synctest.Wait()
		p.want(t, "CONNECT random clean keep 10; 10s: PINGREQ")
	})
}

// TestKeepAliveBusy checks that a stream that often sends unanswered messages keeps its
// connection.
func TestKeepAliveBusy(t *testing.T) {
	for _, hangup := range []time.Duration{0, 12 * time.Second, time.Minute} {
		st := streamType("s", nowhere, topics("t", "", 0))
		st.MQTT.KeepAlive, st.Retry = 10*time.Second, &policy.Retry{ValidHangup: hangup}
		testKeepAliveBusy(t, st)
	}
}

func testKeepAliveBusy(t *testing.T, st *policy.StreamType) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(st), func(t *testing.T, ctx *runtime.Context) {
		cl := open(t, ctx, "s")
		cl.Connect()
		for range 15 {
			time.Sleep(3 * time.Second)
			cl.publish("x")
		}
		synctest.Wait()
		if got := cl.String(); strings.Contains(got, "DIS") || strings.Count(got, "ACK") != 15 {
			t.Errorf("got %s", got)
		}
		if got := p.String(); strings.Count(got, "PINGREQ") != 4 {
			t.Errorf("peer got %s", got)
		}
	})
}

// TestKeepAliveAsleep checks that the time during which the system slept counts for the
// keep alive, and that swake_validity wakes the system for it.
func TestKeepAliveAsleep(t *testing.T) {
	st := streamType("s", nowhere, topics("t", "", 0))
	st.MQTT.KeepAlive, st.SwakeValidity = 100*time.Second, true
	st.Retry = &policy.Retry{ValidHangup: time.Hour}
	p := &peer{}
	var mu sync.Mutex
	var wake time.Time
	o := runtime.Options{Wake: func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		wake = at
	}}
	bubble(t, p, o, types(st), func(t *testing.T, ctx *runtime.Context) {
		start := time.Now()
		open(t, ctx, "s").Connect()
		time.Sleep(10 * time.Second)
		mu.Lock()
		if d := wake.Sub(start); d != 100*time.Second {
			t.Errorf("the system is to wake after %v", d)
		}
		mu.Unlock()
		if got := p.String(); strings.Contains(got, "PINGREQ") {
			t.Error(got)
		}
		ctx.Resumed(90 * time.Second)
		synctest.Wait()
		if got := p.String(); !strings.Contains(got, "10s: PINGREQ") {
			t.Error(got)
		}
		time.Sleep(90 * time.Second)
		synctest.Wait()
		if got := p.String(); strings.Count(got, "PINGREQ") != 1 {
			t.Error(got)
		}
	})
}

// TestLeave checks that a stream unsubscribes before it disconnects, and waits 3 s for
// the answer.
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
			bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "f", 0))), func(t *testing.T, ctx *runtime.Context) {
				cl := open(t, ctx, "s").timed().on(teststream.Actions{"tx": teststream.Disconnect})
				cl.Connect()
				time.Sleep(time.Second)
				cl.publish("x")
				time.Sleep(10 * time.Second)
				cl.want(t, c.want)
				p.want(t, "CONNECT random clean; SUBSCRIBE 1 f qos 0; "+c.peer)
			})
		})
	}
	t.Run("destroyed", func(t *testing.T) {
		p := &peer{}
		bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "f", 0))), func(t *testing.T, ctx *runtime.Context) {
			cl := open(t, ctx, "s")
			cl.Connect()
			synctest.Wait()
			cl.Destroy()
			synctest.Wait()
			cl.want(t, "CRE CNG CON DIS DES")
			p.want(t, "CONNECT random clean; SUBSCRIBE 1 f qos 0; DISCONNECT")
		})
	})
}

// TestLeaveUnread checks that a stream over TLS, whose peer stops reading while the stream
// unsubscribes, ends before its transport would be abandoned.
func TestLeaveUnread(t *testing.T) {
	authority := testcert.New("broker")
	for _, tt := range []struct {
		name   string
		answer time.Duration // of UNSUBSCRIBE; 0 means never
	}{{"not answered", 0}, {"answered late", 2900 * time.Millisecond}} {
		t.Run(tt.name, func(t *testing.T) {
			var never chan struct{}
			p := &peer{answer: func(c *peerConn, packet string) bool {
				if strings.HasPrefix(packet, "UNSUBSCRIBE") {
					if tt.answer > 0 {
						time.Sleep(tt.answer)
						c.send("\xb0\x02\x00\x02")
					}
					<-never
					return true
				}
				return false
			}}
			st := streamType("s", nowhere, topics("t", "f", 0))
			st.TLS, st.TrustStore, st.Endpoint = true, authority.Store(), "broker"
			bubble(t, p, runtime.Options{}, types(st), func(t *testing.T, c *runtime.Context) { // a warning fails it
				never = make(chan struct{})
				p.tls = authority.Server(nil, "broker") // valid at the time of the bubble
				cl := open(t, c, "s").timed().on(teststream.Actions{"tx": teststream.Disconnect})
				cl.Connect()
				time.Sleep(time.Second)
				cl.publish("x")
				time.Sleep(time.Minute)
				cl.want(t, "CRE CNG CON 1s:tx 5.5s:DIS")
				close(never)
			})
		})
	}
}

// TestConnectUnread destroys a stream over TLS whose peer neither answers CONNECT nor
// reads on. crypto/tls waits 5 s for such a peer.
func TestConnectUnread(t *testing.T) {
	authority := testcert.New("broker")
	var never chan struct{}
	p := &peer{answer: func(*peerConn, string) bool { <-never; return true }}
	st := streamType("s", nowhere, topics("t", "f", 0))
	st.TLS, st.TrustStore, st.Endpoint = true, authority.Store(), "broker"
	bubble(t, p, runtime.Options{}, types(st), func(t *testing.T, c *runtime.Context) { // a warning fails it
		never = make(chan struct{})
		p.tls = authority.Server(nil, "broker") // valid at the time of the bubble
		cl := open(t, c, "s").timed()
		cl.Connect()
		time.Sleep(time.Second)
		cl.Destroy()
		time.Sleep(time.Minute)
		cl.want(t, "CRE CNG 1s:DES")
		close(never)
	})
}

// TestConnect checks the packets at the start of a connection.
func TestConnect(t *testing.T) {
	st := streamType("s", nowhere, topics("t/${who}", "f/${who}", 1))
	st.Metadata = []policy.Metadata{{Name: "who"}}
	m := st.MQTT
	m.KeepAlive = 30 * time.Second
	m.WillTopic, m.WillMessage, m.WillQoS, m.WillRetain = "w/${who}", "${who} is gone", 2, true
	m.BirthTopic, m.BirthMessage, m.BirthQoS, m.BirthRetain = "b/${who}", "${who} is here", 1, true
	m.Retain, m.CleanStart = true, false
	p := &peer{}
	o := identify("device", "me", "secret")
	bubble(t, p, o, types(st), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s", runtime.WithMetadata("who", "ann"))
		cl.Connect()
		synctest.Wait()
		cl.SetMetadata("who", "bob")
		cl.publish("hello")
		synctest.Wait()
		cl.want(t, "CRE CNG CON tx ACK")
		p.want(t, "CONNECT device keep 30 will w/ann=ann is gone qos 2 retain true user me password secret; "+
			"SUBSCRIBE 1 f/ann qos 1; PUBLISH b/ann id 2 qos 1 RETAIN ann is here; PUBLISH t/bob id 3 qos 1 RETAIN hello")
	})
}

func TestBadCredentials(t *testing.T) {
	for name, o := range map[string]runtime.Options{
		"client id too long":           identify(strings.Repeat("x", 129), "", ""),
		"password without a user name": identify("", "", "secret"),
		"not UTF-8":                    identify("", "\xff", ""),
	} {
		p := &peer{}
		bubble(t, p, o, types(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
			cl := open(t, c, "s")
			cl.RequestTx()
			synctest.Wait()
			cl.want(t, "CRE POL CNG UNR ARF")
			if p.String() != "" || cl.Err() == nil || strings.Contains(cl.Err().Error(), "secret") {
				t.Errorf("%s: %v; peer got %s", name, cl.Err(), p)
			}
		})
	}
}

// TestBirth checks that the birth message is sent once per connection, and must be
// acknowledged.
func TestBirth(t *testing.T) {
	st := func(name string) *policy.StreamType {
		st := streamType(name, nowhere, topics("t", "", 0))
		st.MQTT.BirthTopic, st.MQTT.BirthQoS = "b", 1
		return st
	}
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(st("s"), st("r")), func(t *testing.T, c *runtime.Context) {
		for _, name := range []string{"s", "r"} {
			cl := open(t, c, name)
			cl.Connect()
			synctest.Wait()
			cl.want(t, "CRE CNG CON")
		}
		p.want(t, "CONNECT random clean; PUBLISH b id 1 qos 1 ")
	})
	p = &peer{answer: silent("PUBLISH")}
	bubble(t, p, runtime.Options{}, types(st("s")), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s").timed()
		cl.RequestTx()
		time.Sleep(time.Minute)
		cl.want(t, "CRE POL CNG 12s:UNR 12s:ARF")
		cl.wantErr(t, ErrBirth)
	})
}

// TestSubscribeRefused checks that a refused subscription makes the peer unreachable.
func TestSubscribeRefused(t *testing.T) {
	p := &peer{answer: func(c *peerConn, packet string) bool {
		if strings.HasPrefix(packet, "SUBSCRIBE") {
			io.WriteString(c, "\x90\x03\x00\x01\x80")
			return true
		}
		return false
	}}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "f", 0))), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.RequestTx()
		synctest.Wait()
		cl.want(t, "CRE POL CNG UNR ARF")
		cl.wantErr(t, ErrSubscribe)
	})
}

// TestTimeoutAndAck checks that an acknowledgement stops the timer of StartTimeout.
func TestTimeoutAndAck(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s").timed()
		cl.Connect()
		synctest.Wait()
		cl.StartTimeout(time.Second)
		cl.publish("x")
		time.Sleep(5 * time.Second)
		cl.want(t, "CRE CNG CON tx ACK")
	})
}

// TestDuplicate checks that a repeated message with QoS 2 is delivered once.
func TestDuplicate(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("", "f", 2))), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.Connect()
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
		cl.want(t, "CRE CNG CON rx(hello) rx(hello) rx(one)")
		p.want(t, "CONNECT random clean; SUBSCRIBE 1 f qos 2; PUBREC 9; PUBREC 9; PUBREC 9; PUBCOMP 9; PUBREC 9; PUBACK 9")
	})
}

// TestResume checks that a session that client and server both have continues:
// unacknowledged messages are repeated, and subscriptions persist.
func TestResume(t *testing.T) {
	p := &peer{}
	p.answer = func(c *peerConn, packet string) bool {
		switch {
		case strings.HasPrefix(packet, "PUBREC "): // no PUBREL
			return true
		case c.n == 0 && (strings.Contains(packet, "two") || strings.Contains(packet, "three")):
			return true
		case c.n == 0 && strings.HasPrefix(packet, "PUBREL 3"):
			c.Close()
			return true
		}
		return resume(c, packet)
	}
	st := streamType("s", nowhere, topics("t", "f", 2), retry(5))
	st.MQTT.CleanStart = false
	o := identify("device", "", "")
	bubble(t, p, o, types(st), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.Connect()
		synctest.Wait()
		for _, msg := range []string{"one", "two", "three"} {
			cl.publish(msg)
			synctest.Wait()
		}
		p.latest().send(message("f", 7, 2, "in"))
		synctest.Wait()
		p.latest().send("\x50\x02\x00\x03") // PUBREC for two, and PUBREL ends the connection
		time.Sleep(time.Second)
		p.latest().send(string(appendPublish(nil, "f", 7, 2, true, false, 2)) + "in")
		synctest.Wait()
		cl.want(t, "CRE CNG CON tx ACK tx tx rx(in) DIS POL CNG CON")
		_, again, _ := strings.Cut(p.String(), "PUBREL 3; ")
		if want := "5ms: CONNECT device; 5ms: PUBREL 3; 5ms: PUBLISH t id 4 qos 2 DUP three; 5ms: PUBREL 4; 1s: PUBREC 7"; again != want {
			t.Errorf("got  %s\nwant %s", again, want)
		}
	})
}

// slowCredentials take a second per text.
type slowCredentials struct{ runtime.Credentials }

func (c slowCredentials) Blob(ctx context.Context, b policy.Blob, index int) (string, error) {
	time.Sleep(time.Second)
	return c.Credentials.Blob(ctx, b, index)
}

// TestOverlaySession checks that the session outlives a streamtype that an overlay
// replaces, even if the next attempt begins late.
func TestOverlaySession(t *testing.T) {
	p := &peer{answer: func(c *peerConn, packet string) bool {
		return resume(c, packet) || c.n == 0 && strings.HasPrefix(packet, "PUBLISH")
	}}
	st := func(timeout time.Duration) *policy.StreamType {
		st := streamType("s", nowhere, topics("t", "f", 1), retry(5))
		st.MQTT.CleanStart = false
		st.Timeout = timeout
		return st
	}
	o := identify("device", "", "")
	o.Credentials = slowCredentials{o.Credentials}
	bubble(t, p, o, types(st(time.Minute)), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.Connect()
		time.Sleep(10 * time.Second)
		cl.publish("one")
		synctest.Wait()
		if err := c.Overlay(&policy.Policy{StreamTypes: types(st(time.Hour))}); err != nil {
			t.Fatal(err)
		}
		p.latest().Close()
		time.Sleep(10 * time.Second)
		cl.want(t, "CRE CNG CON tx DIS POL CNG CON")
		if got := p.String(); !strings.HasSuffix(got, "PUBLISH t id 2 qos 1 DUP one") {
			t.Errorf("got %s", got)
		}
	})
}

// TestNoSession checks that a session that the server has lost is a new one.
func TestNoSession(t *testing.T) {
	p := &peer{answer: func(c *peerConn, packet string) bool { return strings.HasPrefix(packet, "PUBLISH") && c.n == 0 }}
	st := streamType("s", nowhere, topics("t", "f", 1), retry(5))
	st.MQTT.CleanStart = false
	bubble(t, p, identify("device", "", ""), types(st), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.Connect()
		cl.publish("one")
		synctest.Wait()
		p.latest().Close()
		time.Sleep(time.Second)
		cl.want(t, "CRE CNG CON tx DIS POL CNG CON")
		p.want(t, "CONNECT device; SUBSCRIBE 1 f qos 1; PUBLISH t id 2 qos 1 one; 5ms: CONNECT device; 5ms: SUBSCRIBE 1 f qos 1")
	})
}

// lostConnack makes a peer close the second connection without a CONNACK. The third has
// a session.
func lostConnack(c *peerConn, packet string) bool {
	if c.n == 1 && strings.HasPrefix(packet, "CONNECT") {
		c.Close()
		return true
	}
	return resume(c, packet)
}

// TestLostConnack checks that filters are subscribed again after a CONNECT without an
// answer: the session that the server has then may have begun with it.
func TestLostConnack(t *testing.T) {
	p := &peer{answer: lostConnack}
	st := streamType("s", nowhere, topics("t", "f", 1), retry(5))
	st.MQTT.CleanStart = false
	bubble(t, p, identify("device", "", ""), types(st), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.Connect()
		synctest.Wait()
		p.latest().Close()
		time.Sleep(time.Second)
		cl.want(t, "CRE CNG CON DIS POL CNG UNR POL CNG CON")
		p.want(t, "CONNECT device; SUBSCRIBE 1 f qos 1; 5ms: CONNECT device; 10ms: CONNECT device; 10ms: SUBSCRIBE 2 f qos 1")
	})
}

// TestLostConnackReceived checks that the identifier of a message with QoS 2 is free for
// another one after a CONNECT without an answer, unless the server repeats the message.
func TestLostConnackReceived(t *testing.T) {
	p := &peer{answer: func(c *peerConn, packet string) bool {
		return strings.HasPrefix(packet, "PUBREC ") || lostConnack(c, packet) // no PUBREL
	}}
	st := streamType("s", nowhere, topics("", "f", 2), retry(5))
	st.MQTT.CleanStart = false
	bubble(t, p, identify("device", "", ""), types(st), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.Connect()
		synctest.Wait()
		p.latest().send(message("f", 7, 2, "old"))
		p.latest().send(message("f", 8, 2, "old too"))
		synctest.Wait()
		p.latest().Close()
		time.Sleep(time.Second)
		p.latest().send(string(appendPublish(nil, "f", 8, 2, true, false, 7)) + "old too")
		for range 2 {
			p.latest().send(message("f", 7, 2, "new"))
			synctest.Wait()
		}
		cl.want(t, "CRE CNG CON rx(old) rx(old too) DIS POL CNG UNR POL CNG CON rx(new)")
	})
}

// TestWake checks that Options.Wake receives the times of the validity timer with
// swake_validity, and none without.
func TestWake(t *testing.T) {
	for _, swake := range []bool{false, true} {
		st := streamType("s", nowhere, topics("t", "", 0))
		st.Retry = &policy.Retry{ValidPing: 15 * time.Second, ValidHangup: 20 * time.Second}
		st.SwakeValidity = swake
		var got []string
		start := time.Now()
		o := runtime.Options{Wake: func(at time.Time) {
			if at.IsZero() {
				got = append(got, "never")
			} else {
				got = append(got, at.Sub(start).String())
			}
		}}
		p := &peer{answer: silent("PINGREQ")}
		synctest.Test(t, func(t *testing.T) {
			start = time.Now()
			o.DialContext = p.dial
			cl := open(t, newContext(t, o, st), "s")
			cl.Connect()
			synctest.Wait()
			time.Sleep(time.Minute)
			cl.want(t, "CRE CNG CON DIS")
		})
		want := ""
		if swake {
			want = "15s 20s never"
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("swake_validity %v: Wake got %q, want %q", swake, got, want)
		}
	}
}

// TestLateAnswers checks that a connection survives late and repeated answers, as many as a
// correct server may send between others.
func TestLateAnswers(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "f", 1))), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.Connect()
		for range 3 {
			synctest.Wait()
			io.WriteString(p.latest(), strings.Repeat("\x40\x02\x00\x63\xd0\x00", 400))
			synctest.Wait()
			cl.publish("x")
			synctest.Wait()
		}
		cl.want(t, "CRE CNG CON tx ACK tx ACK tx ACK")
	})
}
