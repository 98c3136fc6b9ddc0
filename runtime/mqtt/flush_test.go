package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// missing returns the counts of an UnacknowledgedError.
func missing(err error) string {
	if e, ok := errors.AsType[*runtime.UnacknowledgedError](err); ok {
		return fmt.Sprintf("%d after %d", e.Missing, e.Acknowledged)
	}
	return fmt.Sprint(err)
}

// write writes messages, and ends the test if one is not accepted.
func write(t *testing.T, conn *runtime.Conn, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if _, err := io.WriteString(conn, m); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlush checks the results of Flush and Close when a server acknowledges, rejects, or
// disappears.
func TestFlush(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		p := &peer{answer: func(c *peerConn, packet string) bool {
			switch {
			case !strings.HasPrefix(packet, "PUBLISH"):
			case strings.Contains(packet, "silent"):
				return true
			case strings.Contains(packet, "late"):
				if !strings.Contains(packet, "DUP") {
					return true
				}
			case strings.Contains(packet, "gone"):
				c.Close()
				return true
			}
			return false
		}}
		st := streamType("s", nowhere, topics("t", "f", qos), retry(65535))
		bubble(t, p, runtime.Options{}, types(st), func(t *testing.T, c *runtime.Context) {
			conn := teststream.Must(c.Open(t.Context(), "s"))
			if err := conn.Flush(t.Context()); err != nil {
				t.Errorf("nothing written: %v", err)
			}
			write(t, conn, "1", "2", "late", "3")
			if err := conn.Flush(t.Context()); err != nil {
				t.Errorf("acknowledged: %v", err)
			}
			write(t, conn, "4", "silent", "5")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := conn.Flush(ctx); missing(err) != "2 after 1" || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("in time: %v", missing(err))
			}
			if err := conn.Flush(t.Context()); missing(err) != "1 after 1" || !errors.Is(err, runtime.ErrNack) {
				t.Errorf("given up: %v, %v", missing(err), err)
			}
			write(t, conn, "6", "7")
			if err := conn.Flush(t.Context()); err != nil {
				t.Errorf("acknowledged again: %v", err)
			}
			write(t, conn, "gone")
			if err := conn.Flush(t.Context()); missing(err) != "1 after 0" || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("lost: %v, %v", missing(err), err)
			}
			write(t, conn, "9")
			if err := conn.CloseWrite(); err != nil {
				t.Errorf("CloseWrite: %v", err)
			}
			if _, err := conn.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("Write after CloseWrite: %v", err)
			}
			if err := conn.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}

			conn = teststream.Must(c.Open(t.Context(), "s"))
			write(t, conn, "silent", "1")
			start := time.Now()
			if err := conn.Close(); missing(err) != "2 after 0" || time.Since(start) != 5*time.Second {
				t.Errorf("Close after %v: %v", time.Since(start), err)
			}
			if err := conn.Close(); err != nil {
				t.Errorf("the second Close: %v", err)
			}

			ctx, cancel = context.WithCancel(t.Context())
			conn = teststream.Must(c.Open(ctx, "s"))
			write(t, conn, "1", "silent")
			synctest.Wait()
			cancel()
			synctest.Wait()
			if err := conn.Close(); missing(err) != "1 after 1" || !errors.Is(err, context.Canceled) {
				t.Errorf("Close of a canceled Conn: %v", err)
			}
		})
	}
}

// TestFlushUnread checks that Flush and Close do not depend on messages that no program
// reads, and that these are not acknowledged.
func TestFlushUnread(t *testing.T) {
	for _, end := range []string{"Flush", "Close", "lost"} {
		p := &peer{}
		st := streamType("s", nowhere, topics("t", "f", 1))
		st.MQTT.CleanStart = false
		bubble(t, p, identify("me", "", ""), types(st), func(t *testing.T, c *runtime.Context) {
			conn := teststream.Must(c.Open(t.Context(), "s"))
			p.latest().send(message("f", 1, 1, "first") + message("f", 2, 1, "second"))
			synctest.Wait()
			write(t, conn, "1", "2")
			synctest.Wait()
			p.reset()
			var err error
			switch end {
			case "Flush":
				write(t, conn, "3")
				err = conn.Flush(t.Context())
			case "Close":
				write(t, conn, "3")
				err = conn.Close()
			case "lost":
				p.mu.Lock()
				p.answer = func(c *peerConn, packet string) bool { c.Close(); return true }
				p.mu.Unlock()
				write(t, conn, "3")
				if err = conn.Flush(t.Context()); missing(err) == "1 after 2" {
					err = nil
				}
			}
			if err != nil {
				t.Errorf("%s: %v", end, err)
			}
			if strings.Contains(p.String(), "PUBACK") {
				t.Errorf("%s: an unread message was acknowledged: %s", end, p)
			}
			if end == "Close" {
				return
			}
			for _, want := range []string{"first", "second"} {
				for msg, err := range conn.Messages() {
					if string(msg) != want || err != nil {
						t.Errorf("%s: got %q, %v", end, msg, err)
					}
					break
				}
			}
		})
	}
}

// TestShutdownDrains checks that Shutdown waits for acknowledgements, for half of its time.
func TestShutdownDrains(t *testing.T) {
	late := func(d time.Duration) *peer {
		return &peer{answer: func(c *peerConn, packet string) bool {
			if !strings.HasPrefix(packet, "PUBLISH") {
				return false
			}
			if d > 0 {
				time.AfterFunc(d, func() { c.send("\x40\x02\x00\x01") })
			}
			return true
		}}
	}
	for name, tt := range map[string]struct {
		p     *peer
		limit time.Duration
		took  time.Duration
		want  string
	}{
		"acknowledged": {late(2 * time.Second), 10 * time.Second, 2 * time.Second, "<nil>"},
		"in time":      {late(0), 2 * time.Second, time.Second, "1 after 0"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newContext(t, runtime.Options{DialContext: tt.p.dial}, streamType("s", nowhere, topics("t", "", 1)))
				cl := open(t, c, "s")
				cl.publish("x")
				synctest.Wait()
				if n := cl.Unacknowledged(); n != 1 {
					t.Errorf("%d messages are unacknowledged", n)
				}
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
				defer cancel()
				err := c.Shutdown(ctx)
				if missing(err) != tt.want || time.Since(start) != tt.took {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
				if tt.want == "<nil>" {
					cl.want(t, "CRE POL CNG CON tx ACK DIS DES")
				}
				synctest.Wait() // the peer notes what it has read
				if !strings.HasSuffix(tt.p.String(), "DISCONNECT") {
					t.Errorf("no DISCONNECT: %s", tt.p)
				}
				if _, err := c.NewStream("s", runtime.Handlers{}); !errors.Is(err, runtime.ErrClosed) {
					t.Errorf("NewStream after Shutdown: %v", err)
				}
			})
		})
	}
}

// TestTxEnds checks the end of a message: by FlagEOM, or by the announced length, after
// which an empty piece with FlagEOM has no effect.
func TestTxEnds(t *testing.T) {
	p := &peer{}
	bubble(t, p, runtime.Options{}, types(streamType("s", nowhere, topics("t", "", 1))), func(t *testing.T, c *runtime.Context) {
		type piece struct {
			text   string
			flags  policy.Flags
			length uint64 // of the next message
		}
		pieces := []piece{
			{"ab", policy.FlagSOM, 0}, {"c", 0, 0}, {"", policy.FlagEOM, 2},
			{"de", policy.FlagSOM | policy.FlagEOM, 0}, {"f", policy.FlagSOM, 0}, {"", policy.FlagEOM, 0}, {"", policy.FlagSOM | policy.FlagEOM, 0},
		}
		s := teststream.Must(c.NewStream("s", runtime.Handlers{
			State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
				if state == runtime.StateCreating {
					s.RequestTxLen(3)
				}
				return runtime.OK
			},
			Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
				if len(pieces) == 0 {
					return 0, 0, runtime.TxDontSend
				}
				p := pieces[0]
				if pieces = pieces[1:]; p.length > 0 {
					s.RequestTxLen(p.length)
				} else {
					s.RequestTx()
				}
				return copy(buf, p.text), p.flags, runtime.OK
			},
		}))
		synctest.Wait()
		const want = "PUBLISH t id 1 qos 1 abc; PUBLISH t id 2 qos 1 de; PUBLISH t id 3 qos 1 f; PUBLISH t id 4 qos 1 "
		if got := p.String(); !strings.HasSuffix(got, want) {
			t.Errorf("sent %s", got)
		}
		if n := s.Unacknowledged(); n != 0 {
			t.Errorf("%d messages are unacknowledged", n)
		}
	})
}
