package transport

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"
)

// A scriptedConn is a connection whose peer sends fixed bytes.
type scriptedConn struct {
	net.Conn
	received bytes.Reader
	sent     bytes.Buffer
}

func (c *scriptedConn) Read(p []byte) (int, error)  { return c.received.Read(p) }
func (c *scriptedConn) Write(p []byte) (int, error) { return c.sent.Write(p) }
func (c *scriptedConn) SetDeadline(time.Time) error { return nil }
func (c *scriptedConn) Close() error                { return nil }

// FuzzProxy checks that the handshake with any proxy reads no byte beyond it, and sends the
// login only if the proxy requires it.
func FuzzProxy(f *testing.F) {
	f.Add([]byte("\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38rest"), false)
	f.Add([]byte("\x05\x02\x01\x00\x05\x00\x00\x03\x01h\x00\x01rest"), true)
	f.Add([]byte("\x05\x02\x01\x01"), true)
	f.Add([]byte("\x05\x00\x05\x05\x00\x01"), true)
	f.Add([]byte("\x05\x00\x05\x00\x00\x04"), false)
	f.Add([]byte("\x05\xff"), false)
	f.Add([]byte("\x04\x5a"), true)
	f.Fuzz(func(t *testing.T, answer []byte, login bool) {
		text := "proxy:1"
		if login {
			text = "user:s3kr1t@" + text
		}
		p, err := parseProxy(text)
		if err != nil {
			t.Fatal(err)
		}
		c := new(scriptedConn)
		c.received.Reset(answer)
		err = p.connect(t.Context(), c, "example.com:443")
		if err == nil {
			// The greeting, perhaps the answer to the login, and the reply.
			own := 2
			if answer[1] == 2 {
				own += 2
			}
			switch answer[own+3] {
			case addrIPv4:
				own += 4 + 4 + 2
			case addrIPv6:
				own += 4 + 16 + 2
			case addrName:
				own += 4 + 1 + int(answer[own+4]) + 2
			}
			if want := len(answer) - own; c.received.Len() != want {
				t.Errorf("%q: %d bytes are left, want %d", answer, c.received.Len(), want)
			}
		}
		requested := login && len(answer) > 1 && answer[0] == 5 && answer[1] == 2
		if strings.Contains(c.sent.String(), "s3kr1t") != requested {
			t.Errorf("%q: sent %q", answer, c.sent.String())
		}
		if err != nil && strings.Contains(err.Error(), "s3kr1t") {
			t.Error(err)
		}
	})
}
