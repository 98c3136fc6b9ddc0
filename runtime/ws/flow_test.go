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

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestValidity checks when a PING is sent and when the connection is closed.
func TestValidity(t *testing.T) {
	for _, tt := range []struct {
		name   string
		retry  *policy.Retry
		answer bool          // answer the PINGs
		talk   time.Duration // time between messages of the peer
		busy   time.Duration // duration of the first Rx
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
		{name: "no retry, so lws's times", answer: true, pings: 2},
		{name: "the program is busy", retry: &policy.Retry{ValidPing: 10 * time.Second, ValidHangup: 20 * time.Second}, answer: true,
			talk: 9 * time.Second, busy: 45 * time.Second, pings: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				var pings atomic.Int32
				var wg sync.WaitGroup
				out := make(chan string, 100) // for one writer, which may block
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
				tr := newTrace(teststream.Actions{"CRE": teststream.RequestTx})
				first := true
				tr.On["<x>"] = func(*runtime.Stream) policy.Result {
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
					t.Errorf("ended after %v: %v", ended, err)
				case !tt.hangup && ended != 0:
					t.Errorf("ended after %v: %v", ended, err)
				}
				if got := pings.Load(); got != tt.pings {
					t.Errorf("%d PINGs, want %d", got, tt.pings)
				}
				teststream.Shutdown(t, c)
				close(end)
				theirs.Close()
				wg.Wait()
			})
		})
	}
}

// TestSlowReader checks that the peer stops while Rx does not return, and that a
// message of any length needs little memory.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		var network testserver.Network
		ln := network.Listen("127.0.0.1:80")
		serveOn(t, ln, nil, accept(func(c *websocket.Conn) {
			w, err := c.Writer(context.Background(), websocket.MessageBinary)
			buf := make([]byte, 64<<10)
			for err == nil {
				sent.Add(int64(len(buf))) // or is about to be
				_, err = w.Write(buf)
			}
		}))
		const size = 64 << 20
		resume, received := make(chan struct{}), make(chan struct{})
		got := 0
		tr := newTrace(teststream.Actions{"CRE": teststream.RequestTx})
		h := tr.handlers()
		h.Rx = func(_ *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
			if got == 0 {
				<-resume
			}
			if got += len(buf); got >= size {
				close(received)
				return policy.DestroyMe
			}
			return policy.OK
		}
		c := newContext(t, policy.StreamType{Opportunistic: true}, testserver.Addr(ln), runtime.Options{DialContext: network.DialContext})
		if _, err := c.NewStream("s", h); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := sent.Load(); n == 0 || n > 1<<20 {
			t.Errorf("the peer has sent %d bytes", n)
		}
		var before, after goruntime.MemStats
		goruntime.ReadMemStats(&before)
		close(resume)
		<-received
		goruntime.GC()
		goruntime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
			t.Errorf("the heap has grown by %d bytes during a message of %d", grown, got)
		}
	})
}

// TestBothFull checks that a stream reads while its writes block, so that two peers
// with full buffers do not wait for each other.
func TestBothFull(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	addr := serveWS(t, nil, func(c *websocket.Conn) {
		// Read only after everything has been sent.
		c.Write(context.Background(), websocket.MessageText, []byte("go"))
		c.Write(context.Background(), websocket.MessageBinary, make([]byte, size))
		_, r, err := c.Reader(context.Background())
		if err == nil {
			io.Copy(io.Discard, r)
		}
		c.Close(4000, "got all")
	})
	for _, first := range []bool{false, true} { // ws_prioritize_reads
		tr := newTrace(teststream.Actions{"CRE": teststream.Connect})
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

// TestPiecesAreSent checks that pieces of a message are sent before the next ones
// exist.
func TestPiecesAreSent(t *testing.T) {
	t.Parallel()
	addr := serveWS(t, nil, func(c *websocket.Conn) {
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
	next := false // the peer has echoed the piece before
	tr := newTrace(teststream.Actions{"CRE": teststream.RequestTx})
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
		tr.On[e] = func(s *runtime.Stream) policy.Result {
			next = true
			return teststream.RequestTx(s)
		}
	}
	newStream(t, policy.StreamType{Opportunistic: true}, addr, tr, runtime.Options{})
	tr.AwaitEnd(t, "CON <one..> <two..> <three> DIS")
}

// TestPrioritizeReads checks that ws_prioritize_reads delivers received payload before
// anything is sent.
func TestPrioritizeReads(t *testing.T) {
	t.Parallel()
	const n = 200
	var many strings.Builder
	for range n {
		many.WriteString(frame(0x81, "x"))
	}
	addr := testserver.ServeTCP(t, func(c net.Conn) {
		r, _, err := upgrade(c, "", many.String())
		if err != nil {
			return
		}
		readFrame(r)
		io.WriteString(c, closeFrame(4000, ""))
		readFrame(r)
	})
	received, before := 0, -1
	tr := newTrace(teststream.Actions{"CRE": teststream.RequestTx})
	tr.On["<x>"] = func(s *runtime.Stream) policy.Result { received++; return teststream.RequestTx(s) }
	tr.tx = func(_ *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
		if before < 0 {
			before = received
		}
		return copy(buf, "y"), policy.FlagSOM | policy.FlagEOM, policy.OK
	}
	newStream(t, policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{WSPrioritizeReads: true}}, addr, tr, runtime.Options{})
	tr.AwaitEnd(t, "DIS")
	if before != n {
		t.Errorf("%d of %d messages were delivered before the first was sent", before, n)
	}
}
