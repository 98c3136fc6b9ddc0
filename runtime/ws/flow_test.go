package ws_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestValidity checks, with a clock of its own, when a PING is sent and when the
// connection is given up.
func TestValidity(t *testing.T) {
	for _, tt := range []struct {
		name   string
		retry  *policy.Retry
		answer bool          // the PINGs
		talk   time.Duration // the peer sends a message so often
		busy   time.Duration // Rx takes so long
		pings  int32         // within 99 s
		hangup bool
	}{
		{name: "answered", retry: &policy.Retry{ValidPing: 10 * time.Second, ValidHangup: 20 * time.Second}, answer: true, pings: 9},
		{name: "silent", retry: &policy.Retry{ValidPing: 10 * time.Second, ValidHangup: 20 * time.Second}, pings: 1, hangup: true},
		{name: "talking", retry: &policy.Retry{ValidPing: 10 * time.Second, ValidHangup: 20 * time.Second}, talk: 9 * time.Second},
		{name: "talking, no answers", retry: &policy.Retry{ValidPing: 10 * time.Second, ValidHangup: 20 * time.Second}, talk: 15 * time.Second, pings: 6},
		{name: "no ping", retry: &policy.Retry{ValidHangup: 20 * time.Second}, hangup: true},
		{name: "no hangup", retry: &policy.Retry{ValidPing: 10 * time.Second}, pings: 1},
		{name: "neither", retry: &policy.Retry{}},
		{name: "no retry: lws's own times", answer: true, pings: 2},
		{name: "the program is busy", retry: &policy.Retry{ValidPing: 10 * time.Second, ValidHangup: 20 * time.Second}, answer: true,
			talk: 9 * time.Second, busy: 45 * time.Second, pings: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				var pings atomic.Int32
				var wg sync.WaitGroup
				out := make(chan string, 100) // by one writer, who may wait for long
				end := make(chan struct{})
				wg.Go(func() {
					for {
						select {
						case text := <-out:
							io.WriteString(theirs, text)
						case <-end:
							return
						}
					}
				})
				wg.Go(func() {
					r, _, err := upgrade(theirs, "", "")
					if err != nil {
						return
					}
					if tt.talk > 0 {
						wg.Go(func() {
							for {
								select {
								case <-time.After(tt.talk):
									out <- "\x81\x01x"
								case <-end:
									return
								}
							}
						})
					}
					for {
						first, payload, err := readFrame(r)
						if err != nil {
							return
						}
						switch {
						case first == 0x89:
							pings.Add(1)
							if tt.answer {
								out <- frame(0x8a, payload)
							}
						case first == 0x88:
							out <- "\x88\x00"
						}
					}
				})
				tr := &trace{on: on{"CRE": requestTx}}
				first := true
				tr.on["<x>"] = func(*runtime.Stream) policy.Result {
					if first {
						first = false
						time.Sleep(tt.busy)
					}
					return policy.OK
				}
				c, s := newStream(t, policy.StreamType{Opportunistic: true, Retry: tt.retry}, netip.MustParseAddrPort("127.0.0.1:1"), tr,
					runtime.Options{DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil }})
				start := time.Now()
				ended := time.Duration(0)
				for time.Since(start) < 99*time.Second {
					synctest.Wait()
					if strings.HasSuffix(tr.String(), "DIS") {
						ended = time.Since(start)
						break
					}
					time.Sleep(time.Second)
				}
				switch err := s.Err(); {
				case tt.hangup && (!errors.Is(err, transport.ErrNoValidity) || ended != 20*time.Second):
					t.Errorf("given up after %v: %v", ended, err)
				case !tt.hangup && ended != 0:
					t.Errorf("given up after %v: %v", ended, err)
				}
				if got := pings.Load(); got != tt.pings {
					t.Errorf("%d PINGs, want %d", got, tt.pings)
				}
				c.Close()
				close(end)
				theirs.Close()
				wg.Wait()
			})
		})
	}
}

// TestSlowReader checks that a program that does not return from Rx stops the
// peer, with no more memory than sockets have.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	addr := accepted(t, nil, nil, func(c *websocket.Conn) {
		w, err := c.Writer(context.Background(), websocket.MessageBinary)
		buf := make([]byte, 64<<10)
		for ; err == nil; sent.Add(int64(len(buf))) {
			_, err = w.Write(buf)
		}
	})
	first := make(chan struct{})
	resume := make(chan struct{})
	var got atomic.Int64
	h := runtime.Handlers{
		State: func(s *runtime.Stream, state policy.State, _ uint32) policy.Result {
			if state == policy.StateCreating {
				s.RequestTx()
			}
			return policy.OK
		},
		Rx: func(_ *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
			if got.Add(int64(len(buf))) == int64(len(buf)) {
				close(first)
				<-resume
			}
			return policy.OK
		},
	}
	if _, err := newContext(t, policy.StreamType{Opportunistic: true}, addr, runtime.Options{}).NewStream("s", h); err != nil {
		t.Fatal(err)
	}
	<-first
	stopped := int64(-1)
	for limit := time.Now().Add(20 * time.Second); sent.Load() != stopped; time.Sleep(200 * time.Millisecond) {
		if stopped = sent.Load(); time.Now().After(limit) {
			t.Fatal("the peer never stops")
		}
	}
	if stopped > 32<<20 {
		t.Errorf("the peer could send %d bytes", stopped)
	}
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	close(resume)
	for got.Load() < stopped+64<<20 {
		time.Sleep(time.Millisecond)
	}
	var after goruntime.MemStats
	goruntime.GC()
	goruntime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(m.HeapAlloc); grown > 16<<20 {
		t.Errorf("a message of %d bytes took %d", got.Load(), grown)
	}
}

// TestBothFull checks that neither side waits for ever for the other to read: a
// stream that sends much goes on reading.
func TestBothFull(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	addr := accepted(t, nil, nil, func(c *websocket.Conn) {
		// Nothing is read until all has been sent.
		c.Write(context.Background(), websocket.MessageText, []byte("go"))
		c.Write(context.Background(), websocket.MessageBinary, make([]byte, size))
		_, r, err := c.Reader(context.Background())
		if err == nil {
			io.Copy(io.Discard, r)
		}
		c.Close(4000, "got all")
	})
	for _, first := range []bool{false, true} { // ws_prioritize_reads
		tr := &trace{on: on{"CRE": requestTx}}
		sent, received := 0, 0
		h := tr.handlers()
		h.Tx = func(_ *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
			var f policy.Flags
			if sent == 0 {
				f |= policy.FlagSOM
			}
			n := min(len(buf), size-sent)
			if sent += n; sent == size {
				f |= policy.FlagEOM
			}
			return n, f, policy.OK
		}
		h.Rx = func(s *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
			if received == 0 {
				s.RequestTx()
			}
			received += len(buf)
			return policy.OK
		}
		tr.on["CON"] = nil
		h.State = func(was func(*runtime.Stream, policy.State, uint32) policy.Result) func(*runtime.Stream, policy.State, uint32) policy.Result {
			return func(s *runtime.Stream, state policy.State, arg uint32) policy.Result {
				if state == policy.StateCreating {
					s.Connect()
					return policy.OK
				}
				return was(s, state, arg)
			}
		}(h.State)
		c := newContext(t, policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{WSPrioritizeReads: first}}, addr, runtime.Options{})
		s, err := c.NewStream("s", h)
		if err != nil {
			t.Fatal(err)
		}
		tr.AwaitEnd(t, "DIS")
		if sent != size || received != size+2 || !strings.Contains(s.Err().Error(), "4000") {
			t.Errorf("sent %d, received %d: %v", sent, received, s.Err())
		}
	}
}

// TestPiecesAreSent checks that the first piece of a message is not kept until
// the next one.
func TestPiecesAreSent(t *testing.T) {
	t.Parallel()
	addr := accepted(t, nil, nil, func(c *websocket.Conn) {
		_, r, err := c.Reader(context.Background())
		if err != nil {
			return
		}
		buf := make([]byte, 5)
		for range 3 {
			if _, err := io.ReadFull(r, buf); err != nil {
				return
			}
			if err := c.Write(context.Background(), websocket.MessageText, buf); err != nil {
				return
			}
		}
		io.Copy(io.Discard, r)
		c.Close(4000, "")
	})
	pieces := []string{"one..", "two..", "three"}
	var flags = []policy.Flags{policy.FlagSOM, 0, 0}
	next := false // asked for by what has come
	tr := &trace{on: on{"CRE": requestTx}}
	tr.tx = func(_ *runtime.Stream, ordinal uint32, buf []byte) (int, policy.Flags, policy.Result) {
		switch {
		case ordinal > 0 && !next:
			return 0, 0, policy.TxDontSend
		case len(pieces) == 0:
			return 0, policy.FlagEOM, policy.OK
		}
		next = false
		n, f := copy(buf, pieces[0]), flags[0]
		pieces, flags = pieces[1:], flags[1:]
		return n, f, policy.OK
	}
	for _, e := range []string{"<one..>", "<two..>", "<three>"} {
		tr.on[e] = func(s *runtime.Stream) policy.Result {
			next = true
			return requestTx(s)
		}
	}
	newStream(t, policy.StreamType{Opportunistic: true}, addr, tr, runtime.Options{})
	tr.AwaitEnd(t, "CON <one..> <two..> <three> DIS")
}

// TestPrioritizeReads checks that what has come is taken in before anything is
// sent.
func TestPrioritizeReads(t *testing.T) {
	t.Parallel()
	const n = 200
	var many strings.Builder
	for range n {
		many.WriteString(frame(0x81, "x"))
	}
	addr := raw(t, func(c net.Conn) {
		r, _, err := upgrade(c, "", many.String())
		if err != nil {
			return
		}
		readFrame(r)
		io.WriteString(c, closeFrame(4000, ""))
		readFrame(r)
	})
	received, before := 0, -1
	tr := &trace{on: on{"CRE": requestTx}}
	tr.on["<x>"] = func(s *runtime.Stream) policy.Result { received++; return requestTx(s) }
	tr.tx = func(_ *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
		if before < 0 {
			before = received
		}
		return copy(buf, "y"), policy.FlagSOM | policy.FlagEOM, policy.OK
	}
	newStream(t, policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{WSPrioritizeReads: true}}, addr, tr, runtime.Options{})
	tr.AwaitEnd(t, "DIS")
	if before != n {
		t.Errorf("%d of %d messages had been taken in when the first was sent", before, n)
	}
}
