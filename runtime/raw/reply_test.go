package raw_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
)

// A peer that reads nothing while it sends is read all the same, though it is
// answered while it is read.
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
	s := must(c.NewStream("s", tr.handlers()))
	s.Connect()
	if b := <-got; !bytes.Equal(b, data) {
		t.Errorf("%d bytes came back", len(b))
	}
	tr.saw(t, "DIS")
}

// What Tx has given before StartTLS, or before CloseWrite, goes out in clear and
// whole, though the peer takes its time to read it.
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
			addr := serve(t, func(c net.Conn) {
				io.WriteString(c, "go")
				time.Sleep(50 * time.Millisecond)
				tt.server(c)
			})
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
			s := must(c.NewStream("s", h))
			s.Connect()
			tr.saw(t, "DIS")
			if tr.received() != tt.want || s.Err() != io.EOF {
				t.Errorf("received %q, %v", tr.received(), s.Err())
			}
		})
	}
}
