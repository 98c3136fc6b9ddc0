package proxy

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/smd"
)

// TestSwap replaces the policy while clients are connected.
func TestSwap(t *testing.T) {
	o := newOrigin(t)
	f := newFixture(t, o.streamtypes()...)
	get := f.open(t, "get", 0)
	get.expect("CREATE, CRE")
	get.set("path", "body?n=3")
	ws := f.open(t, "spam", 0)
	ws.connect()
	ws.expect("CREATE, CRE, CNG, CON")
	nailed := f.open(t, "nailed", 0)
	nailed.expect("CREATE, CRE, CNG, CON")
	gone := f.open(t, "rawecho", 0)
	gone.expect("CREATE, CRE")
	same := f.open(t, "minpost", 0)
	same.connect()
	same.expect("CREATE, CRE, CNG, CON")

	types := slices.DeleteFunc(o.streamtypes(), func(st *policy.StreamType) bool { return st.Name == "rawecho" })
	for _, st := range types {
		if st.Name != "minpost" {
			st.Retry = &policy.Retry{Backoff: []time.Duration{time.Second}}
		}
	}
	if err := f.ctx.SetPolicy(&policy.Policy{StreamTypes: types}); err != nil {
		t.Fatal(err)
	}
	gone.end()
	ws.expect("DIS")
	ws.connect()
	ws.expect("CNG, CON")
	ws.tx("hello", policy.FlagSOM|policy.FlagEOM)
	if body := ws.expect("rx SOM EOM"); body != "hello" {
		t.Error(body)
	}
	nailed.expect("DIS, CNG, CON")
	get.connect() // with the previous metadata
	if body := get.expect("CNG, meta srv=probe-origin, meta ctype=application/octet-stream, CON, rx SOM EOM, ACK, DIS"); body != "012" {
		t.Error(body)
	}
	same.tx("x", policy.FlagSOM|policy.FlagEOM)
	same.until("DIS")
}

// message returns a message of _lws_smd.
func message(class smd.Class, text string) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(class))
	return string(append(binary.BigEndian.AppendUint64(b, 0), text...))
}

func TestSMD(t *testing.T) {
	f := newFixture(t)
	const network, user = smd.ClassNetwork, smd.ClassUser
	metrics := make(chan string, 10)
	f.smd.Register(smd.ClassMetrics, func(m smd.Message) { metrics <- string(m.Payload) })
	one := f.open(t, smd.StreamType, uint32(network|user))
	two := f.open(t, smd.StreamType, uint32(smd.ClassesAll))
	for _, c := range []*client{one, two} {
		c.expect("CREATE, CRE, CNG, CON")
	}
	send := func(c *client, class smd.Class, text string) {
		t.Helper()
		c.tx(message(class, text), policy.FlagSOM|policy.FlagEOM)
	}
	send(one, network, "a")
	send(one, smd.ClassMetrics, "figures") // for the proxy alone
	send(one, smd.ClassInteraction, "b")
	send(one, network, "c")
	var got []string
	for len(got) < 5 {
		c := two
		if len(got) >= 3 {
			c = one
		}
		event, data, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if event != "rx SOM EOM" || len(data) < 16 {
			t.Fatalf("%s %q", event, data)
		}
		got = append(got, string(data[16:]))
	}
	if want := []string{"a", "b", "c", "a", "c"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if m := <-metrics; m != "figures" {
		t.Error(m)
	}
	if err := f.smd.Send(user, []byte("from the proxy")); err != nil {
		t.Fatal(err)
	}
	if _, data, err := one.next(); err != nil || string(data[16:]) != "from the proxy" {
		t.Errorf("%q, %v", data, err)
	}
	one.send(sspcwire.AppendConnect(nil), nil) // changes nothing
	send(one, user, "last")
	if _, data, err := one.next(); err != nil || string(data[16:]) != "last" {
		t.Errorf("%q, %v", data, err)
	}
}

// TestSlowListener checks that a client that does not read does not delay messages for
// others.
func TestSlowListener(t *testing.T) {
	f := newFixture(t)
	slow, quick := f.open(t, smd.StreamType, uint32(smd.ClassesAll)), f.open(t, smd.StreamType, uint32(smd.ClassesAll))
	slow.expect("CREATE, CRE, CNG, CON")
	quick.expect("CREATE, CRE, CNG, CON")
	text := message(smd.ClassUser, strings.Repeat("x", smd.MaxPayload))
	lost := 0
	for range 300 { // more than the capacity of the queues of link and SMD
		quick.tx(text, policy.FlagSOM|policy.FlagEOM)
		quick.SetReadDeadline(time.Now().Add(time.Second))
		if event, _, err := quick.next(); err == nil {
			if event != "rx SOM EOM" {
				t.Fatal(event)
			}
		} else if lost++; lost > 30 { // a loaded machine delays a listener too
			t.Fatalf("%d messages lost", lost)
		}
	}
}
