package runtime

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
		p, err := parseProxy(text)
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

// FuzzTarget checks that what an endpoint is taken for can be connected to, and
// that its host is no more than a host.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{
		"example.com", "https://example.com:8443/a?b#c", "[::1]:80", "::1", "+/run/x", "+@x", "file:///etc/hosts",
		"mqtt://h", "ws://h/x", "http://u:p@h", "http://[fe80::1%25eth0]/", "h:0", "h:99999", "h]", "::0% ", "//h", "://", "a b", "h\r\nx",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, text string, tls bool) {
		st := &StreamType{Endpoint: text, Port: 443, TLS: tls}
		target, err := parseTarget(text, st)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%q: the error has more than one line", text)
			}
			return
		}
		if target.Host == "" || target.TLS && !tls {
			t.Errorf("%q: %+v", text, target)
		}
		if target.Network != "tcp" {
			return
		}
		host, port, err := net.SplitHostPort(target.Address())
		if err != nil || host != target.Host || port == "0" || strings.ContainsAny(host, "\r\n\x00 /@") {
			t.Errorf("%q: %+v, %q, %q, %v", text, target, host, port, err)
		}
		if target.Path != "" && target.Path[0] != '/' {
			t.Errorf("%q: path %q", text, target.Path)
		}
	})
}
