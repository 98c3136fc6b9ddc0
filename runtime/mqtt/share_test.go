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

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestShared: one connection, one subscription of a filter that two streams have,
// each message to each stream that it matches, and to the one that sent it.
func TestShared(t *testing.T) {
	p := &peer{}
	types := one(streamType("a", nowhere, topics("x", "f/+", 1)), streamType("b", nowhere, topics("y", "f/+", 1)),
		streamType("c", nowhere, topics("z", "#", 0)), streamType("d", nowhere, topics("", "f/+", 2)))
	bubble(t, p, runtime.Options{}, types, func(t *testing.T, c *runtime.Context) {
		all := map[string]*trace{}
		for _, name := range []string{"a", "b", "c", "d"} {
			all[name] = new(trace).open(t, c, name)
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
		all["b"].Destroy() // the last with that filter
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

// TestNotShared: what connections begin with has to be the same. With a client
// id of its own there can be no second connection.
func TestNotShared(t *testing.T) {
	other := streamType("b", nowhere, topics("y", "", 1))
	other.MQTT.KeepAlive = 30 * time.Second
	types := one(streamType("a", nowhere, topics("x", "", 1)), other)
	p := &peer{}
	bubble(t, p, runtime.Options{}, types, func(t *testing.T, c *runtime.Context) {
		a, b := new(trace).open(t, c, "a"), new(trace).open(t, c, "b")
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
	bubble(t, p, runtime.Options{Credentials: credentials("device", "", "")}, types, func(t *testing.T, c *runtime.Context) {
		a, b := new(trace).open(t, c, "a"), new(trace).open(t, c, "b")
		a.Connect()
		synctest.Wait()
		b.RequestTx()
		synctest.Wait()
		a.want(t, "CRE CNG CON")
		b.want(t, "CRE POL CNG UNR ARF")
		if !errors.Is(b.Err(), ErrDisagree) {
			t.Errorf("Err %v", b.Err())
		}
		a.Destroy()
		synctest.Wait()
		b.Connect()
		synctest.Wait()
		b.want(t, "CRE POL CNG UNR ARF CNG CON")
	})
}

// TestManyStreams: a connection has a limit.
func TestManyStreams(t *testing.T) {
	st := streamType("s", nowhere, topics("", "f", 0))
	for id, conns := range map[string]int{"": 2, "device": 1} {
		p := &peer{}
		bubble(t, p, runtime.Options{Credentials: credentials(id, "", "")}, one(st), func(t *testing.T, c *runtime.Context) {
			var last *trace
			for range maxStreams + 1 {
				last = new(trace).open(t, c, "s")
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

// TestWaitForAnother: streams that wait for the connection that another one
// makes do not fail if only that one gives up, and fail if it fails.
func TestWaitForAnother(t *testing.T) {
	p := &peer{answer: func(c *peerConn, packet string) bool { return c.n == 0 }}
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "", 0))), func(t *testing.T, c *runtime.Context) {
		first := new(trace).open(t, c, "s")
		first.Connect()
		synctest.Wait()
		var rest []*trace
		for range 3 {
			tr := new(trace).open(t, c, "s")
			tr.Connect()
			rest = append(rest, tr)
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
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "", 0))), func(t *testing.T, c *runtime.Context) {
		for range 2 {
			tr := new(trace).open(t, c, "s")
			tr.RequestTx()
			defer func() { tr.want(t, "CRE POL CNG UNR ARF") }()
		}
		time.Sleep(2 * time.Second)
		if p.dials() != 1 {
			t.Errorf("%d connections", p.dials())
		}
	})
}

// TestSlow: a stream whose Rx does not return holds up the connection while it
// is alone on it. Others wait no longer than 8 s for it.
func TestSlow(t *testing.T) {
	big := strings.Repeat("x", 300_000)
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared ", shared), func(t *testing.T) {
			p := &peer{}
			st := streamType("slow", nowhere, topics("", "f", 0))
			st.Retry = &policy.Retry{ValidPing: 5 * time.Second, ValidHangup: 8 * time.Second}
			bubble(t, p, runtime.Options{}, one(st, streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
				free := make(chan struct{})
				slow := &trace{times: true, on: map[string]func(*runtime.Stream) policy.Result{
					"rx(first)": func(*runtime.Stream) policy.Result { <-free; return policy.OK },
				}}
				slow.open(t, c, "slow")
				slow.Connect()
				synctest.Wait()
				other := &trace{times: true}
				if shared {
					other.open(t, c, "s")
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
					t.Errorf("all was read: %v", all)
				}
				if shared {
					other.want(t, "CRE CNG CON 6s:tx 8s:ACK")
					close(free)
					synctest.Wait()
					slow.want(t, "CRE CNG CON rx(first) 1m0s:DIS")
					if !errors.Is(slow.Err(), ErrSlow) {
						t.Errorf("Err %v", slow.Err())
					}
					return
				}
				close(free)
				synctest.Wait()
				slow.want(t, "CRE CNG CON rx(first) 1m0s:rx(300000)")
			})
		})
	}
}

// TestAckOrder: a message is acknowledged when all who get it have had it, and
// after those before it.
func TestAckOrder(t *testing.T) {
	p := &peer{answer: silent("PUBREC 12")} // a PUBCOMP may come before or after 13
	bubble(t, p, runtime.Options{}, one(streamType("a", nowhere, topics("", "a", 1)), streamType("b", nowhere, topics("", "+", 1))), func(t *testing.T, c *runtime.Context) {
		free := make(chan struct{})
		a := new(trace).open(t, c, "a")
		b := &trace{on: map[string]func(*runtime.Stream) policy.Result{"rx(1)": func(*runtime.Stream) policy.Result { <-free; return policy.OK }}}
		b.open(t, c, "b")
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

// TestDeliveredBeforeTheEnd: what has come before the connection was lost is
// delivered before DISCONNECTED, but for the end of a message that is cut.
func TestDeliveredBeforeTheEnd(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "f", 0))), func(t *testing.T, c *runtime.Context) {
		free := make(chan struct{})
		tr := &trace{on: map[string]func(*runtime.Stream) policy.Result{"rx(1)": func(*runtime.Stream) policy.Result { <-free; return policy.OK }}}
		tr.open(t, c, "s")
		tr.Connect()
		synctest.Wait()
		cut := message("f", 0, 0, strings.Repeat("x", maxPiece*2))
		p.latest().send(message("f", 0, 0, "1") + message("f", 0, 0, "2") + cut[:maxPiece+100])
		p.latest().Close()
		synctest.Wait()
		close(free)
		synctest.Wait()
		tr.want(t, "CRE CNG CON rx(1) rx(2) DIS")
		if !errors.Is(tr.Err(), io.ErrUnexpectedEOF) || len(tr.part) != maxPiece {
			t.Errorf("Err %v, %d bytes of the last message", tr.Err(), len(tr.part))
		}
	})
}

// TestPieces: messages whose length is known are sent as they are made, others
// are put together first.
func TestPieces(t *testing.T) {
	for _, c := range []struct {
		name   string
		length uint64
		pieces []int // the last has EOM, unless it is 0
		eom    bool
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
			bubble(t, p, runtime.Options{}, one(streamType("s", nowhere, topics("t", "", 0))), func(t *testing.T, ctx *runtime.Context) {
				tr := new(trace).open(t, ctx, "s")
				pieces, more := c.pieces, false
				tr.SetHandlers(runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
					if len(pieces) == 0 || !more {
						return 0, 0, policy.TxDontSend
					}
					n := pieces[0]
					if n > len(buf) {
						t.Errorf("%d bytes for a piece of %d", len(buf), n)
						return 0, 0, policy.DestroyMe
					}
					pieces = pieces[1:]
					more = n != 20 // a break in the middle
					var flags policy.Flags
					if len(pieces) == 0 && c.eom {
						flags = policy.FlagEOM
					}
					copy(buf, bytes.Repeat([]byte("x"), n))
					return n, flags, tr.seen.Note(s, "tx")
				}})
				tr.Connect()
				synctest.Wait()
				for range 2 {
					if tr.State() == policy.StateDisconnected {
						break
					}
					more = true
					if c.length > 0 && len(pieces) == len(c.pieces) {
						tr.RequestTxLen(c.length)
					} else {
						tr.RequestTx()
					}
					synctest.Wait()
				}
				tr.want(t, "CRE CNG CON "+c.want)
				got, _ := strings.CutPrefix(p.String(), "CONNECT random clean")
				if got = strings.TrimPrefix(got, "; "); got != c.peer {
					t.Errorf("the peer got %s, want %s", got, c.peer)
				}
				if !errors.Is(tr.Err(), c.err) {
					t.Errorf("Err %v", tr.Err())
				}
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

// TestSiblingInAMessage: a stream that does not go on with its message ends the
// connection when others have waited.
func TestSiblingInAMessage(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, one(streamType("a", nowhere, topics("t", "", 0)), streamType("b", nowhere, topics("u", "", 0))), func(t *testing.T, c *runtime.Context) {
		a := &trace{times: true}
		a.open(t, c, "a")
		n := 0
		a.SetHandlers(runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
			if n++; n > 4 || n == 1 {
				return 0, 0, policy.TxDontSend
			}
			return len(buf), 0, policy.OK
		}})
		a.Connect()
		synctest.Wait()
		b := &trace{times: true}
		b.open(t, c, "b")
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

// TestShadow: a message to the shadow of a thing is answered on topics of its
// own, for which there is a subscription as long as it takes.
func TestShadow(t *testing.T) {
	st := streamType("s", nowhere, topics("$aws/things/${thing}/shadow/get", "${topic}", 1))
	st.MQTT.AWSIoT = true
	st.Metadata = []policy.Metadata{{Name: "thing"}, {Name: "topic"}}
	p := &peer{}
	bubble(t, p, runtime.Options{}, one(st), func(t *testing.T, c *runtime.Context) {
		tr := &trace{times: true, on: map[string]func(*runtime.Stream) policy.Result{}}
		seen := ""
		tr.on["rx(state)"] = func(s *runtime.Stream) policy.Result {
			seen, _ = s.Metadata("topic")
			return policy.OK
		}
		tr.open(t, c, "s", runtime.WithMetadata("thing", "lamp"), runtime.WithMetadata("topic", "news"))
		tr.Connect()
		synctest.Wait()
		tr.publish("{}")
		synctest.Wait()
		p.latest().send(message("$aws/things/lamp/shadow/get/accepted", 1, 1, "state"))
		synctest.Wait()
		tr.want(t, "CRE CNG CON tx ACK rx(state)")
		p.want(t, "CONNECT random clean; SUBSCRIBE 1 news qos 1; "+
			"SUBSCRIBE 2 $aws/things/lamp/shadow/get/accepted qos 1 $aws/things/lamp/shadow/get/rejected qos 1; "+
			"PUBLISH $aws/things/lamp/shadow/get id 3 qos 1 {}; "+
			"UNSUBSCRIBE 4 $aws/things/lamp/shadow/get/accepted; UNSUBSCRIBE 5 $aws/things/lamp/shadow/get/rejected; PUBACK 1")
		after, _ := tr.Metadata("topic")
		if seen != "$aws/things/lamp/shadow/get/accepted" || after != "news" {
			t.Errorf("the topic was %q, and then %q", seen, after)
		}
		// Without an answer it ends after 60 s.
		p.reset()
		tr.publish("{}")
		time.Sleep(2 * time.Minute)
		if got := p.String(); !strings.Contains(got, "; 1m0s: UNSUBSCRIBE") {
			t.Errorf("the peer got %s", got)
		}
	})
}

// TestTopicItem: an item that is mapped to "topic" tells that of each message.
func TestTopicItem(t *testing.T) {
	st := streamType("s", nowhere, topics("", "#", 0))
	st.Metadata = []policy.Metadata{{Name: "from", Header: "topic:"}}
	p := &peer{}
	bubble(t, p, runtime.Options{}, one(st), func(t *testing.T, c *runtime.Context) {
		tr := new(trace).open(t, c, "s")
		var seen []string
		tr.SetHandlers(runtime.Handlers{Rx: func(s *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
			from, _ := s.Metadata("from")
			seen = append(seen, from+"="+string(buf))
			return policy.OK
		}})
		tr.Connect()
		synctest.Wait()
		p.latest().send(message("a/b", 0, 0, "1") + message("a/b", 0, 0, "2") + message("c", 0, 0, "3"))
		synctest.Wait()
		if got := strings.Join(seen, " "); got != "a/b=1 a/b=2 c=3" {
			t.Errorf("saw %s", got)
		}
	})
}

// TestSharedPolicyChange: streams of another policy share the connection that
// those of the one before have.
func TestSharedPolicyChange(t *testing.T) {
	a := func() *policy.StreamType { return streamType("a", nowhere, topics("x", "f", 1)) }
	b := func(filter string) *policy.StreamType { return streamType("b", nowhere, topics("y", filter, 1)) }
	d := streamType("d", nowhere, topics("z", "", 1))
	p := &peer{}
	bubble(t, p, runtime.Options{Credentials: credentials("device", "", "")}, one(a(), b("g")), func(t *testing.T, c *runtime.Context) {
		all := map[string]*trace{}
		open := func(name string) {
			all[name] = new(trace).open(t, c, name)
			all[name].Connect()
			synctest.Wait()
			all[name].want(t, "CRE CNG CON")
		}
		open("a")
		open("b")
		p.reset()
		if err := c.SetPolicy(&policy.Policy{StreamTypes: one(a(), b("h"), d)}); err != nil {
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
		// An overlay shows in the next connection.
		if err := c.Overlay(&policy.Policy{StreamTypes: one(a(), b("i"), d)}); err != nil {
			t.Fatal(err)
		}
		p.reset()
		p.latest().Close()
		time.Sleep(time.Hour)
		all["b"].RequestTx()
		synctest.Wait()
		if got := p.String(); !strings.Contains(got, " i qos 1") || strings.Contains(got, " h qos 1") {
			t.Errorf("the peer got %s", got)
		}
		if p.dials() != 2 {
			t.Errorf("%d connections", p.dials())
		}
	})
}

// TestBadTopic: a message for what is no topic is given up, and the stream goes
// on, unless the rest of the message was still to come.
func TestBadTopic(t *testing.T) {
	st := streamType("s", nowhere, topics("a/${x}", "", 1))
	st.Metadata = []policy.Metadata{{Name: "x"}}
	p := &peer{}
	bubble(t, p, runtime.Options{Logger: slog.New(slog.DiscardHandler)}, one(st), func(t *testing.T, c *runtime.Context) {
		tr := new(trace).open(t, c, "s", runtime.WithMetadata("x", "#"))
		tr.Connect()
		tr.publish("hello")
		synctest.Wait()
		tr.want(t, "CRE CNG CON tx NAK")
		tr.SetMetadata("x", "b")
		tr.publish("hello")
		synctest.Wait()
		tr.want(t, "CRE CNG CON tx NAK tx ACK")
		tr.SetMetadata("x", "+")
		tr.publish(strings.Repeat("x", 100_000))
		synctest.Wait()
		tr.want(t, "CRE CNG CON tx NAK tx ACK NAK DIS")
		if !errors.Is(tr.Err(), ErrTopic) {
			t.Errorf("Err %v", tr.Err())
		}
		p.want(t, "CONNECT random clean; PUBLISH a/b id 1 qos 1 hello; DISCONNECT")
	})
}
