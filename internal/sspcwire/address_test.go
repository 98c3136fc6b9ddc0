package sspcwire

import "testing"

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct {
		text, network, address string
		secure, ok             bool
	}{
		{DefaultAddress, "unix", "@proxy.ss.lws", false, true},
		{"unix:/run/ss.sock", "unix", "/run/ss.sock", false, true},
		{"tcp:127.0.0.1:1234", "tcp", "127.0.0.1:1234", false, true},
		{"tcp:[::1]:1234", "tcp", "[::1]:1234", false, true},
		{"tcp:127.0.0.1:0", "tcp", "127.0.0.1:0", false, true},
		{"tcp::1234", "tcp", ":1234", false, true},
		{"tls:proxy.example:1234", "tcp", "proxy.example:1234", true, true},
		{"", "", "", false, false},
		{"unix", "", "", false, false},
		{"unix:", "", "", false, false},
		{"unix:@", "", "", false, false},
		{"unix:relative", "", "", false, false},
		{"unix:@a\x00b", "", "", false, false},
		{"unix:/" + string(make([]byte, 200)), "", "", false, false},
		{"@proxy.ss.lws", "", "", false, false},
		{"tcp:host", "", "", false, false},
		{"tcp:host:http", "", "", false, false},
		{"tcp:host:65536", "", "", false, false},
		{"udp:host:1", "", "", false, false},
	} {
		network, address, secure, err := ParseAddress(tt.text)
		if network != tt.network || address != tt.address || secure != tt.secure || (err == nil) != tt.ok {
			t.Errorf("ParseAddress(%q) is %q, %q, %v, %v", tt.text, network, address, secure, err)
		}
	}
}
