package transport

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"
)

// scripted is a connection whose peer says what it says.
type scripted struct {
	net.Conn
	said bytes.Reader
	sent bytes.Buffer
}

func (c *scripted) Read(p []byte) (int, error)  { return c.said.Read(p) }
func (c *scripted) Write(p []byte) (int, error) { return c.sent.Write(p) }
func (c *scripted) SetDeadline(time.Time) error { return nil }
func (c *scripted) Close() error                { return nil }

// FuzzProxy lets a proxy say anything. What comes after its own bytes is for the
// user of the connection, and the login is sent to nobody who has not asked.
func FuzzProxy(f *testing.F) {
	f.Add([]byte("\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38rest"), false)
	f.Add([]byte("\x05\x02\x01\x00\x05\x00\x00\x03\x01h\x00\x01rest"), true)
	f.Add([]byte("\x05\x02\x01\x01"), true)
	f.Add([]byte("\x05\x00\x05\x05\x00\x01"), true)
	f.Add([]byte("\x05\x00\x05\x00\x00\x04"), false)
	f.Add([]byte("\x05\xff"), false)
	f.Add([]byte("\x04\x5a"), true)
	f.Fuzz(func(t *testing.T, said []byte, login bool) {
		text := "proxy:1"
		if login {
			text = "user:s3kr1t@" + text
		}
		p, err := ParseProxy(text)
		if err != nil {
			t.Fatal(err)
		}
		c := new(scripted)
		c.said.Reset(said)
		err = p.connect(t.Context(), c, "example.com:443")
		if err == nil {
			// Greeting, perhaps the answer to the login, reply with its address.
			own := 2
			if said[1] == 2 {
				own += 2
			}
			switch said[own+3] {
			case addrIPv4:
				own += 4 + 4 + 2
			case addrIPv6:
				own += 4 + 16 + 2
			case addrName:
				own += 4 + 1 + int(said[own+4]) + 2
			}
			if want := len(said) - own; c.said.Len() != want {
				t.Errorf("%q: %d bytes are left, want %d", said, c.said.Len(), want)
			}
		}
		asked := login && len(said) > 1 && said[0] == 5 && said[1] == 2
		if strings.Contains(c.sent.String(), "s3kr1t") != asked {
			t.Errorf("%q: sent %q", said, c.sent.String())
		}
		if err != nil && strings.Contains(err.Error(), "s3kr1t") {
			t.Error(err)
		}
	})
}
