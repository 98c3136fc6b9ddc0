package policy

import (
	"net"
	"strings"
	"testing"
)

// FuzzTarget checks that a parsed endpoint has an address to connect to, and a host
// without any other part of a URL.
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
		target, err := ParseTarget(text, st)
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
