package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
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
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// reportCode returns a server that sends the code of the client's close frame to
// codes.
func reportCode(codes chan<- websocket.StatusCode) func(*websocket.Conn) {
	return func(c *websocket.Conn) {
		_, _, err := c.Read(context.Background())
		codes <- websocket.CloseStatus(err)
	}
}

// TestCloseCodes checks the codes of close frames.
func TestCloseCodes(t *testing.T) {
	for _, tt := range []struct {
		name string
		on   teststream.Actions
		tx   func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result)
		end  func(*runtime.Context, *runtime.Stream)
		want websocket.StatusCode
	}{
		{name: "DisconnectMe", on: teststream.Actions{"CON": teststream.Disconnect}, want: websocket.StatusNormalClosure},
		{name: "DestroyMe", on: teststream.Actions{"CON": teststream.Destroy}, want: websocket.StatusNormalClosure},
		{name: "Destroy", end: func(_ *runtime.Context, s *runtime.Stream) { s.Destroy() }, want: websocket.StatusNormalClosure},
		{name: "the context ends", end: func(c *runtime.Context, _ *runtime.Stream) { c.Close() }, want: websocket.StatusGoingAway},
		{name: "a message without its start", on: teststream.Actions{"CON": teststream.RequestTx}, tx: func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result) {
			return 1, policy.FlagEOM, policy.OK
		}, want: websocket.StatusInternalError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			codes := make(chan websocket.StatusCode, 1)
			addr := serveWS(t, nil, reportCode(codes))
			tr := newTrace(teststream.Actions{"CRE": teststream.RequestTx})
			tr.tx = tt.tx
			for k, f := range tt.on {
				tr.On[k] = f
			}
			c, s := newStream(t, policy.StreamType{Opportunistic: true}, addr, tr, runtime.Options{})
			if tt.end != nil {
				tr.AwaitEnd(t, "CON", "DIS")
				tt.end(c, s)
			}
			if got := <-codes; got != tt.want {
				t.Errorf("the peer got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestPeerThatDoesNotClose checks that a stream ends although the peer does not answer
// its close frame.
func TestPeerThatDoesNotClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		defer close(block)
		var network testserver.Network
		ln := network.Listen("127.0.0.1:80")
		serveOn(t, ln, nil, accept(func(*websocket.Conn) { <-block }))
		start := time.Now()
		tr := newTrace(teststream.Actions{"CRE": teststream.RequestTx, "CON": teststream.Destroy})
		newStream(t, policy.StreamType{}, testserver.Addr(ln), tr, runtime.Options{DialContext: network.DialContext})
		tr.AwaitEnd(t, "CON DIS DES")
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("after %v", d)
		}
	})
}

func TestConn(t *testing.T) {
	t.Parallel()
	codes := make(chan websocket.StatusCode, 1)
	addr := serveWS(t, nil, func(c *websocket.Conn) {
		for {
			kind, msg, err := c.Read(context.Background())
			if err != nil {
				codes <- websocket.CloseStatus(err)
				return
			}
			c.Write(context.Background(), kind, msg)
		}
	})
	c := newContext(t, policy.StreamType{}, addr, runtime.Options{})
	conn, err := c.Open(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	// Write several messages before reading any.
	var want []string
	for i := range 200 {
		want = append(want, fmt.Sprintf("message %d", i))
	}
	want = append(want, "", strings.Repeat("large ", 100_000))
	done := make(chan error, 1)
	for i, m := range want {
		if i == len(want)-1 {
			go func() {
				_, err := io.WriteString(conn, m)
				done <- err
			}()
			break
		}
		if n, err := io.WriteString(conn, m); n != len(m) || err != nil {
			t.Fatal(n, err)
		}
	}
	i := 0
	for msg, err := range conn.Messages() {
		if err != nil {
			t.Fatal(err)
		}
		if string(msg) != want[i] {
			t.Fatalf("message %d has %d bytes, not %d", i, len(msg), len(want[i]))
		}
		if i++; i == len(want) {
			break
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := conn.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write after CloseWrite: %v", err)
	}
	conn.Close()
	if code := <-codes; code != websocket.StatusNormalClosure {
		t.Errorf("closed with %v", code)
	}
}

// TestMessagesEnd checks the end of a loop over messages.
func TestMessagesEnd(t *testing.T) {
	for _, tt := range []struct {
		name  string
		end   func(*websocket.Conn)
		check func(error) bool
	}{
		{"closed", func(c *websocket.Conn) { c.Close(websocket.StatusNormalClosure, "") }, nil},
		{"going away", func(c *websocket.Conn) { c.Close(websocket.StatusGoingAway, "") }, nil},
		{"without a code", func(c *websocket.Conn) { c.Close(websocket.StatusNoStatusRcvd, "") }, nil},
		{"refused", func(c *websocket.Conn) { c.Close(websocket.StatusPolicyViolation, "no") }, func(err error) bool {
			e, ok := errors.AsType[*ws.CloseError](err)
			return ok && e.Code == 1008 && e.Reason == "no" && errors.Is(err, io.ErrUnexpectedEOF)
		}},
		{"gone", func(c *websocket.Conn) { c.CloseNow() }, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr := serveWS(t, nil, func(c *websocket.Conn) {
				c.Write(context.Background(), websocket.MessageText, []byte("hello"))
				tt.end(c)
			})
			c := newContext(t, policy.StreamType{Opportunistic: true}, addr, runtime.Options{})
			conn, err := c.Open(t.Context(), "s")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var got []string
			for msg, err := range conn.Messages() {
				if err != nil {
					if tt.check == nil || !tt.check(err) {
						t.Error(err)
					}
					got = append(got, "error")
					break
				}
				got = append(got, string(msg))
			}
			if want := "hello"; tt.check != nil {
				if want += " error"; strings.Join(got, " ") != want {
					t.Errorf("got %q", got)
				}
			} else if strings.Join(got, " ") != want {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestReconnect checks that messages continue with the next connection.
func TestReconnect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		body runtime.CallOption
	}{
		{"body", runtime.WithBody([]byte("hello"))},
		{"reader", runtime.WithBodyReader(strings.NewReader("hello"), -1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var n atomic.Int32
			addr := serveWS(t, nil, func(c *websocket.Conn) {
				var msg []byte
				k := n.Add(1)
				if k == 1 { // the body is sent once
					var err error
					if _, msg, err = c.Read(context.Background()); err != nil {
						return
					}
				}
				c.Write(context.Background(), websocket.MessageText, fmt.Appendf(msg, "%d", k))
				c.Close(websocket.StatusGoingAway, "")
			})
			c := newContext(t, policy.StreamType{Retry: teststream.Retry(3)}, addr, runtime.Options{})
			conn, err := c.Open(t.Context(), "s", tt.body)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			i := 0
			for msg, err := range conn.Messages() {
				if _, ok := errors.AsType[*runtime.ReconnectError](err); ok {
					continue
				}
				if i++; err != nil || strings.TrimPrefix(string(msg), "hello") != fmt.Sprint(i) || strings.HasPrefix(string(msg), "hello") != (i == 1) {
					t.Fatalf("message %d: %q, %v", i, msg, err)
				}
				if i == 3 {
					break
				}
			}
		})
	}
}

func TestFetch(t *testing.T) {
	t.Parallel()
	addr := serveWS(t, nil, echo)
	c := newContext(t, policy.StreamType{HTTP: &policy.HTTP{WSBinary: true}}, addr, runtime.Options{})
	for _, size := range []int{1, 125, 126, 16384, 65536, 1 << 20} {
		body := bytes.Repeat([]byte{0xff, 0}, size)[:size]
		for name, o := range map[string]runtime.CallOption{
			"bytes": runtime.WithBody(body), "reader": runtime.WithBodyReader(bytes.NewReader(body), int64(size)),
			"reader of unknown length": runtime.WithBodyReader(bytes.NewReader(body), -1),
		} {
			r, err := c.Fetch(t.Context(), "s", o)
			if err != nil || !bytes.Equal(r.Body, body) {
				t.Errorf("%d bytes, %s: %v", size, name, err)
			}
		}
	}

	greeter := serveWS(t, nil, func(c *websocket.Conn) {
		c.Write(context.Background(), websocket.MessageText, []byte("hello"))
		c.Read(context.Background())
	})
	r, err := newContext(t, policy.StreamType{}, greeter, runtime.Options{}).Fetch(t.Context(), "s")
	if err != nil || string(r.Body) != "hello" || r.Status != 0 {
		t.Errorf("%v, %v", r, err)
	}

	closer := serveWS(t, nil, func(c *websocket.Conn) { c.Close(websocket.StatusNormalClosure, "") })
	_, err = newContext(t, policy.StreamType{}, closer, runtime.Options{}).Fetch(t.Context(), "s")
	if e, ok := errors.AsType[*ws.CloseError](err); !ok || e.Code != 1000 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("closed without an answer: %v", err)
	}

	_, err = newContext(t, policy.StreamType{}, greeter, runtime.Options{}).Fetch(t.Context(), "s", runtime.WithLimit(4))
	if !errors.Is(err, runtime.ErrTooLong) {
		t.Errorf("over the limit: %v", err)
	}
}

// TestCancel checks that Open ends with its context while it connects.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		defer close(hold)
		var network testserver.Network
		ln := network.Listen("127.0.0.1:80")
		testserver.Serve(t, ln, silent(hold))
		o := runtime.Options{DialContext: network.DialContext, ConnectTimeout: 50 * time.Millisecond}
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Millisecond)
		defer cancel()
		c := newContext(t, policy.StreamType{}, testserver.Addr(ln), o)
		if _, err := c.Open(ctx, "s"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		tr := newTrace(teststream.Actions{"CRE": teststream.RequestTx})
		_, s := newStream(t, policy.StreamType{}, testserver.Addr(ln), tr, o)
		tr.AwaitEnd(t, "CRE POL CNG UNR ARF")
		if !errors.Is(s.Err(), transport.ErrTimeout) {
			t.Errorf("%v", s.Err())
		}
	})
}

// TestConnIdle checks the connection while a program does not read the next message.
func TestConnIdle(t *testing.T) { synctest.Test(t, testConnIdle) }

func testConnIdle(t *testing.T) {
	pong, closed := make(chan string, 1), make(chan string, 1)
	var network testserver.Network
	ln := network.Listen("127.0.0.1:80")
	testserver.Serve(t, ln, func(c net.Conn) {
		r, _, err := upgrade(c, "", frame(0x81, "one")+frame(0x81, "two"))
		if err != nil {
			return
		}
		readFrame(r) // the program has read both
		io.WriteString(c, frame(0x89, "are you there?"))
		_, text, _ := readFrame(r)
		pong <- text
		first, text, _ := readFrame(r)
		closed <- fmt.Sprintf("%x %x", first, text)
		io.WriteString(c, closeFrame(1000, ""))
	})
	conn := teststream.Must(newContext(t, policy.StreamType{}, testserver.Addr(ln), runtime.Options{DialContext: network.DialContext}).Open(t.Context(), "s"))
	buf := make([]byte, 10)
	for _, want := range []string{"one", "two"} {
		if n, err := conn.Read(buf); err != nil || string(buf[:n]) != want {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	io.WriteString(conn, "got both")
	if text := <-pong; text != "are you there?" {
		t.Errorf("the answer to a PING is %q", text)
	}
	done := make(chan error)
	go func() { // reads on another goroutine, or is about to
		_, err := conn.Read(buf)
		done <- err
	}()
	start := time.Now()
	conn.Close()
	if err := <-done; !errors.Is(err, runtime.ErrClosed) {
		t.Error("Read:", err)
	}
	if text := <-closed; text != "88 03e8" {
		t.Errorf("the server got %q", text)
	}
	if d := time.Since(start); d != 0 {
		t.Errorf("after %v", d)
	}
}
