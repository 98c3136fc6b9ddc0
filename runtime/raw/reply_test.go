package raw_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
)

// TestReplyToWriter checks that a stream that replies in Rx still reads from a peer
// that does not read while it writes.
func TestReplyToWriter(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	got := make(chan []byte, 1)
	addr := serve(t, func(c net.Conn) {
		c.Write(data)
		b := make([]byte, len(data))
		n, _ := io.ReadFull(c, b)
		got <- b[:n]
	})
	c := newContext(t, runtime.Options{}, streamType(addr))
	tr := newTrace()
	tr.rx = func(s *runtime.Stream, buf []byte) { tr.send(s, string(buf)) }
	s := teststream.Must(c.NewStream("s", tr.handlers()))
	s.Connect()
	if b := <-got; !bytes.Equal(b, data) {
		t.Errorf("the peer got %d bytes", len(b))
	}
	tr.awaitEvent(t, "DIS")
}

// TestReplyBefore checks that payload returned by Tx before StartTLS or CloseWrite is sent
// completely and in clear, even if the peer reads slowly.
func TestReplyBefore(t *testing.T) {
	const size = 8 << 20
	config := own.Server(nil, "127.0.0.1")
	for _, tt := range []struct {
		name   string
		then   func(*raw.Socket) error
		server func(net.Conn)
		after  string
		want   string
	}{
		{"CloseWrite", (*raw.Socket).CloseWrite, func(c net.Conn) {
			if n, _ := io.Copy(io.Discard, c); n == size {
				io.WriteString(c, " whole")
			}
		}, "", "go whole"},
		{"StartTLS", func(k *raw.Socket) error { return k.StartTLS(0) }, func(c net.Conn) {
			if _, err := io.CopyN(io.Discard, c, size); err == nil {
				secure := tls.Server(c, config)
				b := make([]byte, len(" after"))
				io.ReadFull(secure, b)
				secure.Write(b)
				secure.Close()
			}
		}, " after", "go after"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stopped := make(chan bool, 10)
			addr := serve(t, func(c net.Conn) {
				io.WriteString(c, "go")
				<-stopped
				tt.server(c)
			})
			conn := teststream.Must(net.Dial("tcp", addr.String())).(*net.TCPConn)
			c := newContext(t, runtime.Options{}, streamType(addr))
			tr := newTrace()
			h := tr.handlers()
			left := size
			tr.rx = func(s *runtime.Stream, _ []byte) {
				if left > 0 {
					s.RequestTx()
				}
			}
			next := h.Tx
			h.Tx = func(s *runtime.Stream, ordinal uint32, buf []byte) (int, policy.Flags, policy.Result) {
				if left == 0 {
					return next(s, ordinal, buf)
				}
				n := min(left, len(buf))
				if left -= n; left > 0 {
					s.RequestTx()
				} else {
					if err := tt.then(raw.Of(s)); err != nil {
						t.Error(err)
					}
					tr.send(s, tt.after)
				}
				return n, 0, policy.OK
			}
			s := teststream.Must(c.NewStream("s", h, raw.Adopt(replyConn{conn, stopped}, raw.Unencrypted, raw.Config{})))
			tr.awaitEvent(t, "DIS")
			if tr.Body() != tt.want || s.Err() != io.EOF {
				t.Errorf("received %q, %v", tr.Body(), s.Err())
			}
		})
	}
}

// A replyConn is a TCP connection that reports when the reader stops sending replies
// because the peer does not read.
type replyConn struct {
	*net.TCPConn
	stopped chan<- bool
}

// Dialed makes the transport use the socket.
func (c replyConn) Dialed() net.Conn { return c.TCPConn }

// SetWriteDeadline is called with no deadline after replies that had one.
func (c replyConn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		c.stopped <- true
	}
	return c.TCPConn.SetWriteDeadline(t)
}
