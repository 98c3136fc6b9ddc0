//go:build linux

package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/faulttest/link"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/h3"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// TestChaos checks, for the time in CHAOS (5s), that servers receive every message that the
// runtime has accepted, as reported by Fetch, Flush or Close. Meanwhile connections break,
// policies are replaced, and contexts shut down.
//
// Connections of ws and raw do not break, since a network stack may lose data that it has
// accepted from the runtime.
func TestChaos(t *testing.T) {
	duration := 5 * time.Second
	if v := os.Getenv("CHAOS"); v != "" {
		duration = teststream.Must(time.ParseDuration(v))
	}
	own := testcert.New("own")
	x := &chaos{t: t, accepted: map[string]map[string]bool{}}
	addrs := x.got.serve(t, own)
	for _, name := range []string{"h1", "h2"} {
		p := newProxy(addrs[name].String(), x.fault)
		t.Cleanup(p.Close)
		addrs[name] = p.Addr()
	}
	udp := newUDP(net.UDPAddrFromAddrPort(addrs["h3"]), x.fault)
	t.Cleanup(udp.Close)
	addrs["h3"] = udp.Addr()
	broker, _, _ := startMosquitto(t, own, "max_queued_messages 0\nmax_inflight_messages 0")
	p := newProxy(broker.String(), x.fault)
	t.Cleanup(p.Close)
	x.types = ledgerTypes(addrs, own)
	for qos := range byte(2) {
		x.types = append(x.types, streamType(p.Addr(), publisher(qos+1, "")))
		x.types[len(x.types)-1].Name = fmt.Sprint("mqtt", qos+1)
	}
	for _, st := range x.types {
		st.Retry = teststream.Retry(2)
	}
	sub := streamType(broker, publisher(2, "chaos"))
	conn := teststream.Must(newContext(t, runtime.Options{}, sub).Open(t.Context(), "s"))
	t.Cleanup(func() { conn.Close() })
	go func() {
		for msg, err := range conn.Messages() {
			if err != nil {
				return
			}
			x.got.add(string(msg))
		}
	}()

	x.c.Store(x.newContext())
	end := time.Now().Add(duration)
	// A busy machine goes on until a message of each streamtype has been accepted.
	running := func() bool {
		return !t.Failed() && (time.Now().Before(end) || time.Now().Before(end.Add(time.Minute)) && x.idle())
	}
	var wg sync.WaitGroup
	for range 2 {
		for _, st := range x.types {
			wg.Go(func() {
				for running() {
					x.send(st.Name)
				}
			})
		}
	}
	for running() {
		x.change()
	}
	wg.Wait()
	x.shutdown(x.c.Load())

	sent := 0
	for _, st := range x.types {
		sent += len(x.accepted[st.Name])
	}
	var missing []string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if missing = x.missing(); len(missing) == 0 || time.Now().After(deadline) {
			break
		}
	}
	for _, st := range x.types {
		t.Logf("%s: %d messages accepted", st.Name, len(x.accepted[st.Name]))
		if len(x.accepted[st.Name]) == 0 {
			t.Errorf("%s: no message was accepted", st.Name)
		}
	}
	t.Logf("%d faults, %d policies, %d contexts; %d messages refused", x.faults.Load(), x.policies, x.contexts.Load(), x.refused.Load())
	if len(missing) > 0 {
		t.Errorf("%d of %d messages are missing: %s", len(missing), sent, strings.Join(missing[:min(len(missing), 20)], " "))
	}
}

// A chaos is one run of TestChaos.
type chaos struct {
	t     *testing.T
	types []*policy.StreamType
	got   ledger
	c     atomic.Pointer[runtime.Context]

	faults, refused, contexts atomic.Int64
	policies                  int

	mu       sync.Mutex
	count    int
	accepted map[string]map[string]bool // by streamtype
}

// publisher makes a streamtype publish on "chaos", or subscribe to filter.
func publisher(qos byte, filter string) change {
	return func(st *policy.StreamType) {
		st.Protocol, st.HTTP = policy.ProtocolMQTT, nil
		st.MQTT = &policy.MQTT{QoS: qos, CleanStart: true, Subscribe: filter}
		if filter == "" {
			st.MQTT.Topic = "chaos"
		}
	}
}

// fault returns a random fault of a connection, or none.
func (x *chaos) fault() link.Fault {
	if rand.IntN(3) != 0 {
		return link.Fault{}
	}
	x.faults.Add(1)
	return link.Fault{Kind: link.Kind(1 + rand.IntN(3)), Reply: rand.IntN(2) == 0, After: rand.IntN([]int{4000, 100_000}[rand.IntN(2)]), Stall: time.Duration(rand.IntN(300)) * time.Millisecond}
}

func (x *chaos) newContext() *runtime.Context {
	x.contexts.Add(1)
	return teststream.Must(runtime.NewContext(x.policy(), runtime.Options{
		Transports:     []transport.Transport{h3.New(), mqtt.New(), raw.New(raw.TLS), sshttp.New(), ws.New()},
		ConnectTimeout: soakLimit, Logger: teststream.Logger(x.t),
	}))
}

// policy returns a policy in which some streamtypes have different definitions.
func (x *chaos) policy() *policy.Policy {
	p := &policy.Policy{}
	for _, st := range x.types {
		other := *st
		if rand.IntN(4) == 0 {
			other.Timeout = time.Duration(10+rand.IntN(3)) * time.Second
		}
		p.StreamTypes = append(p.StreamTypes, &other)
	}
	return p
}

// change replaces the policy, or the context.
func (x *chaos) change() {
	time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
	if rand.IntN(10) > 0 {
		x.policies++
		if err := x.c.Load().SetPolicy(x.policy()); err != nil {
			x.t.Error(err)
		}
		return
	}
	x.shutdown(x.c.Swap(x.newContext()))
}

// shutdown ends a context, whose messages may stay unacknowledged.
func (x *chaos) shutdown(c *runtime.Context) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := c.Shutdown(ctx)
	if _, ok := errors.AsType[*runtime.UnacknowledgedError](err); err != nil && !ok {
		x.t.Errorf("Shutdown: %v", err)
	}
}

// line returns the next message.
func (x *chaos) line(name string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.count++
	return fmt.Sprintf("%s-%d", name, x.count)
}

// accept records that the first n lines have been accepted.
func (x *chaos) accept(name string, lines []string, n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.accepted[name] == nil {
		x.accepted[name] = map[string]bool{}
	}
	for _, line := range lines[:n] {
		x.accepted[name][line] = true
	}
	x.refused.Add(int64(len(lines) - n))
}

// send sends some messages of a streamtype.
func (x *chaos) send(name string) {
	c := x.c.Load()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if name[0] == 'h' {
		lines, n := []string{x.line(name)}, 0
		if _, err := c.Fetch(ctx, name, runtime.WithBody([]byte(lines[0]))); err == nil {
			n = 1
		}
		x.accept(name, lines, n)
		return
	}
	conn, err := c.Open(context.Background(), name)
	if err != nil {
		return
	}
	var lines []string
	for range 1 + rand.IntN(50) {
		line := x.line(name)
		if _, err = io.WriteString(conn, line+"\n"); err != nil {
			x.refused.Add(1)
			break
		}
		lines = append(lines, line)
	}
	flushed := rand.IntN(2) == 0
	if flushed {
		err = conn.Flush(ctx)
	}
	closed := conn.Close()
	if !flushed {
		err = closed
	}
	n := 0
	if missing, ok := errors.AsType[*runtime.UnacknowledgedError](err); ok && strings.HasPrefix(name, "mqtt") {
		n = missing.Acknowledged
	} else if err == nil {
		n = len(lines)
	}
	x.accept(name, lines, n)
}

// idle reports whether no message of a streamtype has been accepted yet.
func (x *chaos) idle() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.ContainsFunc(x.types, func(st *policy.StreamType) bool { return len(x.accepted[st.Name]) == 0 })
}

// missing returns the accepted messages that no server has received.
func (x *chaos) missing() (lines []string) {
	got := x.got.sorted()
	for _, of := range x.accepted {
		for line := range of {
			if _, ok := slices.BinarySearch(got, line); !ok {
				lines = append(lines, line)
			}
		}
	}
	slices.Sort(lines)
	return lines
}
