package mqtt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestShared checks that streams share one connection and one subscription per filter, and
// that a message is delivered to each stream with a matching filter, including the sender.
func TestShared(t *testing.T) {
	p := &peer{}
	types := types(streamType("a", nowhere, topics("x", "f/+", 1)), streamType("b", nowhere, topics("y", "f/+", 1)),
		streamType("c", nowhere, topics("z", "#", 0)), streamType("d", nowhere, topics("", "f/+", 2)))
	bubble(t, p, runtime.Options{}, types, func(t *testing.T, c *runtime.Context) {
		all := map[string]*client{}
		for _, name := range []string{"a", "b", "c", "d"} {
			all[name] = open(t, c, name)
			all[name].Connect()
			synctest.Wait()
			all[name].want(t, "CRE CNG CON")
		}
		p.want(t, "CONNECT random clean; SUBSCRIBE 1 f/+ qos 1; SUBSCRIBE 2 # qos 0; SUBSCRIBE 3 f/+ qos 2")
		p.reset()
		p.latest().send(message("f/1", 7, 1, "both"))
		p.latest().send(message("$SYS/x", 0, 0, "nobody"))
		p.latest().send(message("z", 0, 0, "c"))
		synctest.Wait()
		all["a"].want(t, "CRE CNG CON rx(both)")
		all["b"].want(t, "CRE CNG CON rx(both)")
		all["c"].want(t, "CRE CNG CON rx(both) rx(c)")
		p.want(t, "PUBACK 7")
		p.reset()
		all["a"].publish("1")
		all["b"].publish("2")
		synctest.Wait()
		all["a"].want(t, "CRE CNG CON rx(both) tx ACK")
		all["a"].Destroy()
		all["d"].Destroy()
		synctest.Wait()
		p.reset()
		all["b"].Destroy() // the last stream with that filter
		synctest.Wait()
		p.want(t, "UNSUBSCRIBE 6 f/+")
		p.reset()
		all["c"].Destroy()
		synctest.Wait()
		p.want(t, "DISCONNECT")
	})
	if p.dials() != 1 {
		t.Errorf("%d connections", p.dials())
	}
}

// TestNotShared checks that streams with different settings do not share a connection, and
// that a client id has only one connection.
func TestNotShared(t *testing.T) {
	other := streamType("b", nowhere, topics("y", "", 1))
	other.MQTT.KeepAlive = 30 * time.Second
	types := types(streamType("a", nowhere, topics("x", "", 1)), other)
	p := &peer{}
	bubble(t, p, runtime.Options{}, types, func(t *testing.T, c *runtime.Context) {
		a, b := open(t, c, "a"), open(t, c, "b")
		a.Connect()
		b.Connect()
		synctest.Wait()
		a.want(t, "CRE CNG CON")
		b.want(t, "CRE CNG CON")
		if p.dials() != 2 {
			t.Errorf("%d connections", p.dials())
		}
	})
	p = &peer{}
	bubble(t, p, identify("device", "", ""), types, func(t *testing.T, c *runtime.Context) {
		a, b := open(t, c, "a"), open(t, c, "b")
		a.Connect()
		synctest.Wait()
		b.RequestTx()
		synctest.Wait()
		a.want(t, "CRE CNG CON")
		b.want(t, "CRE POL CNG UNR ARF")
		b.wantErr(t, ErrDisagree)
		a.Destroy()
		synctest.Wait()
		b.Connect()
		synctest.Wait()
		b.want(t, "CRE POL CNG UNR ARF CNG CON")
	})
}

// TestManyStreams checks the limit of streams on a connection.
func TestManyStreams(t *testing.T) {
	st := streamType("s", nowhere, topics("", "f", 0))
	for id, conns := range map[string]int{"": 2, "device": 1} {
		p := &peer{}
		bubble(t, p, identify(id, "", ""), types(st), func(t *testing.T, c *runtime.Context) {
			var last *client
			for range maxStreams + 1 {
				last = open(t, c, "s")
				last.RequestTx()
			}
			synctest.Wait()
			if p.dials() != conns {
				t.Errorf("client id %q: %d connections", id, p.dials())
			}
			if got := strings.Count(p.String(), "SUBSCRIBE"); got != conns {
				t.Errorf("client id %q: %d SUBSCRIBE", id, got)
			}
		})
	}
}

// TestWaitForAnother checks that streams that wait for the connection of another stream
// fail if its attempt fails, but not if that stream gives up.
func TestWaitForAnother(t *testing.T) {
	p := &peer{answer: func(c *peerConn, packet string) bool { return c.n == 0 }}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", 0))), func(t *testing.T, c *runtime.Context) {
		first := open(t, c, "s")
		first.Connect()
		synctest.Wait()
		var rest []*client
		for range 3 {
			cl := open(t, c, "s")
			cl.Connect()
			rest = append(rest, cl)
		}
		synctest.Wait()
		rest[0].Destroy()
		first.Destroy()
		synctest.Wait()
		first.want(t, "CRE CNG DES")
		rest[0].want(t, "CRE CNG DES")
		rest[1].want(t, "CRE CNG CON")
		rest[2].want(t, "CRE CNG CON")
		if p.dials() != 2 {
			t.Errorf("%d connections", p.dials())
		}
	})
	p = &peer{answer: func(c *peerConn, packet string) bool {
		time.Sleep(time.Second)
		io.WriteString(c, "\x20\x02\x00\x05")
		return true
	}}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", 0))), func(t *testing.T, c *runtime.Context) {
		for range 2 {
			cl := open(t, c, "s")
			cl.RequestTx()
			defer func() { cl.want(t, "CRE POL CNG UNR ARF") }()
		}
		time.Sleep(2 * time.Second)
		if p.dials() != 1 {
			t.Errorf("%d connections", p.dials())
		}
	})
}

// TestSlow checks that a stream whose Rx does not return blocks its own connection
// indefinitely, but other streams for at most 8 s.
func TestSlow(t *testing.T) {
	big := strings.Repeat("x", 300_000)
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared ", shared), func(t *testing.T) {
			p := &peer{}
			st := streamType("slow", nowhere, topics("", "f", 0))
			st.Retry = &policy.Retry{ValidPing: 5 * time.Second, ValidHangup: 8 * time.Second}
			bubble(t, p, runtime.Options{}, types(st, streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
				free := make(chan struct{})
				slow := open(t, c, "slow").timed().on(teststream.Actions{
					"rx(first)": func(*runtime.Stream) policy.Result { <-free; return policy.OK },
				})
				slow.Connect()
				synctest.Wait()
				var other *client
				if shared {
					other = open(t, c, "s").timed()
					other.Connect()
					synctest.Wait()
				}
				before := p.latest().wrote.Load()
				p.latest().send(message("f", 0, 0, "first"))
				p.latest().send(message("f", 0, 0, big))
				time.Sleep(6 * time.Second)
				if shared {
					other.publish("x")
				}
				time.Sleep(54 * time.Second)
				if all := p.latest().wrote.Load()-before > int64(len(big)); all != shared {
					t.Errorf("everything was read: %v", all)
				}
				if shared {
					other.want(t, "CRE CNG CON 6s:tx 8s:ACK")
					close(free)
					synctest.Wait()
					slow.want(t, "CRE CNG CON rx(first) 1m0s:DIS")
					slow.wantErr(t, ErrSlow)
					return
				}
				close(free)
				synctest.Wait()
				slow.want(t, "CRE CNG CON rx(first) 1m0s:rx(300000)")
			})
		})
	}
}

// TestAckOrder checks that a message is acknowledged when all its receivers have
// consumed it, and after earlier messages.
func TestAckOrder(t *testing.T) {
	p := &peer{answer: silent("PUBREC 12")} // a PUBCOMP could come before or after 13
	bubble(t, p, runtime.Options{}, types(streamType("a", nowhere, topics("", "a", 1)), streamType("b", nowhere, topics("", "+", 1))), func(t *testing.T, c *runtime.Context) {
		free := make(chan struct{})
		a := open(t, c, "a")
		b := open(t, c, "b").on(teststream.Actions{"rx(1)": func(*runtime.Stream) policy.Result { <-free; return policy.OK }})
		a.Connect()
		synctest.Wait()
		b.Connect()
		synctest.Wait()
		p.reset()
		p.latest().send(message("a", 11, 1, "1"))
		p.latest().send(message("none/of/them", 12, 2, "2"))
		p.latest().send(message("a", 13, 1, "3"))
		synctest.Wait()
		a.want(t, "CRE CNG CON rx(1) rx(3)")
		p.want(t, "")
		close(free)
		synctest.Wait()
		p.want(t, "PUBACK 11; PUBREC 12; PUBACK 13")
	})
}

// TestDeliveryBeforeEnd checks that everything that has been received is delivered
// before DISCONNECTED, except the last piece of an incomplete message.
func TestDeliveryBeforeEnd(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "f", 0))), func(t *testing.T, c *runtime.Context) {
		free := make(chan struct{})
		cl := open(t, c, "s").on(teststream.Actions{"rx(1)": func(*runtime.Stream) policy.Result { <-free; return policy.OK }})
		cl.Connect()
		synctest.Wait()
		cut := message("f", 0, 0, strings.Repeat("x", maxPiece*2))
		p.latest().send(message("f", 0, 0, "1") + message("f", 0, 0, "2") + cut[:maxPiece+100])
		p.latest().Close()
		synctest.Wait()
		close(free)
		synctest.Wait()
		cl.want(t, "CRE CNG CON rx(1) rx(2) DIS")
		if !errors.Is(cl.Err(), io.ErrUnexpectedEOF) || len(cl.part) != maxPiece {
			t.Errorf("Err %v, %d bytes of the last message", cl.Err(), len(cl.part))
		}
	})
}

// TestPieces checks that long messages of known length are sent in pieces, and that
// others are assembled.
func TestPieces(t *testing.T) {
	for _, c := range []struct {
		name   string
		length uint64
		pieces []int // lengths
		eom    bool  // the last piece has FlagEOM
		want   string
		peer   string
		err    error
	}{
		{"length unknown", 0, []int{10, 20, 30}, true, "tx tx tx ACK", "PUBLISH t 60 bytes", nil},
		{"empty end", 0, []int{30, 0}, true, "tx tx ACK", "PUBLISH t 30 bytes", nil},
		{"length known, no EOM", 60, []int{10, 20, 30}, false, "tx tx tx ACK", "PUBLISH t 60 bytes", nil},
		{"EOM before the length", 100, []int{10, 20, 30}, true, "tx tx tx ACK", "PUBLISH t 60 bytes", nil},
		{"more than the length", 15, []int{10, 20}, true, "tx tx ACK", "PUBLISH t 30 bytes", nil},
		{"more than the length, no EOM", 15, []int{10, 20}, false, "tx tx DIS", "DISCONNECT", ErrLength},
		{"large", 100_000, []int{30_000, 30_000, 30_000, 10_000}, true, "tx tx tx tx ACK", "PUBLISH t 100000 bytes", nil},
		{"large, EOM too soon", 100_000, []int{30_000, 30_000, 30_000, 9_000}, true, "tx tx tx tx DIS", "", ErrLength},
		{"large, length unknown", 0, slicesOf(30_000, 40), true, strings.Repeat("tx ", 35) + "DIS", "DISCONNECT", ErrLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &peer{}
			bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", 0))), func(t *testing.T, ctx *runtime.Context) {
				cl := open(t, ctx, "s")
				pieces, more := c.pieces, false
				cl.SetHandlers(runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
					if len(pieces) == 0 || !more {
						return 0, 0, policy.TxDontSend
					}
					n := pieces[0]
					if n > len(buf) {
						t.Errorf("%d bytes for a piece of %d", len(buf), n)
						return 0, 0, policy.DestroyMe
					}
					pieces = pieces[1:]
					more = n != 20 // pause in the middle
					var flags policy.Flags
					if len(pieces) == 0 && c.eom {
						flags = policy.FlagEOM
					}
					copy(buf, bytes.Repeat([]byte("x"), n))
					return n, flags, cl.events.Note(s, "tx")
				}})
				cl.Connect()
				synctest.Wait()
				for range 2 {
					if cl.State() == policy.StateDisconnected {
						break
					}
					more = true
					if c.length > 0 && len(pieces) == len(c.pieces) {
						cl.RequestTxLen(c.length)
					} else {
						cl.RequestTx()
					}
					synctest.Wait()
				}
				cl.want(t, "CRE CNG CON "+c.want)
				got, _ := strings.CutPrefix(p.String(), "CONNECT random clean")
				if got = strings.TrimPrefix(got, "; "); got != c.peer {
					t.Errorf("peer got %s, want %s", got, c.peer)
				}
				cl.wantErr(t, c.err)
			})
		})
	}
}

func slicesOf(n, times int) (all []int) {
	for range times {
		all = append(all, n)
	}
	return all
}

// TestStuckMessage checks that a stream that stops in the middle of its message ends
// the connection.
func TestStuckMessage(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(streamType("a", nowhere, topics("t", "", 0)), streamType("b", nowhere, topics("u", "", 0))), func(t *testing.T, c *runtime.Context) {
		a := open(t, c, "a").timed()
		n := 0
		a.SetHandlers(runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
			if n++; n > 4 || n == 1 {
				return 0, 0, policy.TxDontSend
			}
			return len(buf), 0, policy.OK
		}})
		a.Connect()
		synctest.Wait()
		b := open(t, c, "b").timed()
		b.Connect()
		synctest.Wait()
		a.RequestTxLen(1 << 20)
		synctest.Wait()
		b.publish("x")
		time.Sleep(time.Minute)
		a.want(t, "CRE CNG CON 8s:DIS")
		b.want(t, "CRE CNG CON tx 8s:DIS")
	})
}

// TestShadow checks that a message for a device shadow is preceded by a subscription to its
// answer topics, which ends with the answer or after 60 s.
func TestShadow(t *testing.T) {
	st := streamType("s", nowhere, topics("$aws/things/${thing}/shadow/get", "${topic}", 1))
	st.MQTT.AWSIoT = true
	st.Metadata = []policy.Metadata{{Name: "thing"}, {Name: "topic"}}
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(st), func(t *testing.T, c *runtime.Context) {
		got := ""
		cl := open(t, c, "s", runtime.WithMetadata("thing", "lamp"), runtime.WithMetadata("topic", "news")).timed()
		cl.on(teststream.Actions{"rx(state)": func(s *runtime.Stream) policy.Result {
			got, _ = s.Metadata("topic")
			return policy.OK
		}})
		cl.Connect()
		synctest.Wait()
		cl.publish("{}")
		synctest.Wait()
		p.latest().send(message("$aws/things/lamp/shadow/get/accepted", 1, 1, "state"))
		synctest.Wait()
		cl.want(t, "CRE CNG CON tx ACK rx(state)")
		p.want(t, "CONNECT random clean; SUBSCRIBE 1 news qos 1; "+
			"SUBSCRIBE 2 $aws/things/lamp/shadow/get/accepted qos 1 $aws/things/lamp/shadow/get/rejected qos 1; "+
			"PUBLISH $aws/things/lamp/shadow/get id 3 qos 1 {}; "+
			"UNSUBSCRIBE 4 $aws/things/lamp/shadow/get/accepted; UNSUBSCRIBE 5 $aws/things/lamp/shadow/get/rejected; PUBACK 1")
		after, _ := cl.Metadata("topic")
		if got != "$aws/things/lamp/shadow/get/accepted" || after != "news" {
			t.Errorf("topic %q during Rx, %q after it", got, after)
		}
		// Without an answer the subscription ends after 60 s.
		p.reset()
		cl.publish("{}")
		time.Sleep(2 * time.Minute)
		if got := p.String(); !strings.Contains(got, "; 1m0s: UNSUBSCRIBE") {
			t.Errorf("peer got %s", got)
		}
	})
}

// TestTopicItem checks that a metadata item with the header "topic" receives the topic
// of each message.
func TestTopicItem(t *testing.T) {
	st := streamType("s", nowhere, topics("", "#", 0))
	st.Metadata = []policy.Metadata{{Name: "from", Header: "topic:"}}
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(st), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		var got []string
		cl.SetHandlers(runtime.Handlers{Rx: func(s *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
			from, _ := s.Metadata("from")
			got = append(got, from+"="+string(buf))
			return policy.OK
		}})
		cl.Connect()
		synctest.Wait()
		p.latest().send(message("a/b", 0, 0, "1") + message("a/b", 0, 0, "2") + message("c", 0, 0, "3"))
		synctest.Wait()
		if got := strings.Join(got, " "); got != "a/b=1 a/b=2 c=3" {
			t.Errorf("got %s", got)
		}
	})
}

// TestSharedPolicyChange checks that streams of a new policy and of the old one share a
// connection.
func TestSharedPolicyChange(t *testing.T) {
	a := func() *policy.StreamType { return streamType("a", nowhere, topics("x", "f", 1)) }
	b := func(filter string) *policy.StreamType { return streamType("b", nowhere, topics("y", filter, 1)) }
	d := streamType("d", nowhere, topics("z", "", 1))
	p := &peer{}
	bubble(t, p, identify("device", "", ""), types(a(), b("g")), func(t *testing.T, c *runtime.Context) {
		all := map[string]*client{}
		open := func(name string) {
			all[name] = open(t, c, name)
			all[name].Connect()
			synctest.Wait()
			all[name].want(t, "CRE CNG CON")
		}
		open("a")
		open("b")
		p.reset()
		if err := c.SetPolicy(&policy.Policy{StreamTypes: types(a(), b("h"), d)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		all["b"].want(t, "CRE CNG CON DIS DES")
		open("b")
		open("d")
		p.latest().send(message("f", 7, 1, "old"))
		p.latest().send(message("h", 8, 1, "new"))
		synctest.Wait()
		all["a"].publish("1")
		synctest.Wait()
		all["a"].want(t, "CRE CNG CON rx(old) tx ACK")
		all["b"].want(t, "CRE CNG CON rx(new)")
		// An overlay takes effect with the next connection.
		if err := c.Overlay(&policy.Policy{StreamTypes: types(a(), b("i"), d)}); err != nil {
			t.Fatal(err)
		}
		p.reset()
		p.latest().Close()
		time.Sleep(time.Hour)
		all["b"].RequestTx()
		synctest.Wait()
		if got := p.String(); !strings.Contains(got, " i qos 1") || strings.Contains(got, " h qos 1") {
			t.Errorf("peer got %s", got)
		}
		if p.dials() != 2 {
			t.Errorf("%d connections", p.dials())
		}
	})
}

// TestBadTopic checks that a message with an invalid topic gets a NAK and the stream
// continues, unless part of the message has been delivered.
func TestBadTopic(t *testing.T) {
	st := streamType("s", nowhere, topics("${x}", "", 1))
	st.Metadata = []policy.Metadata{{Name: "x"}}
	p := &peer{}
	bubble(t, p, runtime.Options{Logger: slog.New(slog.DiscardHandler)}, types(st), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s", runtime.WithMetadata("x", "a/#"))
		cl.Connect()
		cl.publish("hello")
		synctest.Wait()
		cl.want(t, "CRE CNG CON tx NAK")
		cl.SetMetadata("x", "a/b")
		cl.publish("hello")
		synctest.Wait()
		cl.want(t, "CRE CNG CON tx NAK tx ACK")
		cl.SetMetadata("x", "+")
		cl.publish(strings.Repeat("x", 100_000))
		synctest.Wait()
		cl.want(t, "CRE CNG CON tx NAK tx ACK NAK DIS")
		cl.wantErr(t, ErrTopic)
		p.want(t, "CONNECT random clean; PUBLISH a/b id 1 qos 1 hello; DISCONNECT")
	})
}

// TestShadowEarlyAnswer checks that a message on the topic of the answer that comes
// before the SUBACK does not count as the answer.
func TestShadowEarlyAnswer(t *testing.T) {
	const topic = "$aws/things/lamp/shadow/get"
	st := streamType("s", nowhere, topics(topic, "", 0))
	st.MQTT.AWSIoT = true
	p := &peer{answer: silent("SUBSCRIBE")}
	bubble(t, p, runtime.Options{}, types(st), func(t *testing.T, c *runtime.Context) {
		cl := open(t, c, "s")
		cl.Connect()
		synctest.Wait()
		p.reset()
		cl.publish("{}")
		synctest.Wait()
		p.latest().send(message(topic+"/accepted", 0, 0, "early"))
		synctest.Wait()
		p.latest().send("\x90\x04\x00\x01\x00\x00") // SUBACK
		synctest.Wait()
		p.latest().send(message(topic+"/accepted", 0, 0, "state"))
		synctest.Wait()
		cl.want(t, "CRE CNG CON tx rx(early) ACK rx(state)")
		p.want(t, "SUBSCRIBE 1 "+topic+"/accepted qos 0 "+topic+"/rejected qos 0; PUBLISH "+topic+" {}; "+
			"UNSUBSCRIBE 2 "+topic+"/accepted; UNSUBSCRIBE 3 "+topic+"/rejected")
	})
}
