package sspcwire

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]Address{
		DefaultAddress:                      {Network: "unix", Host: "@proxy.ss.lws"},
		"unix:/run/ss.sock":                 {Network: "unix", Host: "/run/ss.sock"},
		"tcp:127.0.0.1:1234":                {Network: "tcp", Host: "127.0.0.1:1234"},
		"tcp:[::1]:1234":                    {Network: "tcp", Host: "[::1]:1234"},
		"tcp:127.0.0.1:0":                   {Network: "tcp", Host: "127.0.0.1:0"},
		"tcp::1234":                         {Network: "tcp", Host: ":1234"},
		"tls:proxy.example:1234":            {Network: "tcp", Host: "proxy.example:1234", TLS: true},
		"mux:/dev/ttyUSB0":                  {Network: "mux", Host: "/dev/ttyUSB0"},
		"mux:/dev/serial/by-id/a:b":         {Network: "mux", Host: "/dev/serial/by-id/a:b"},
		"mux:/dev/ttyUSB0@2000000":          {Network: "mux", Host: "/dev/ttyUSB0", Speed: 2000000},
		"":                                  {},
		"unix":                              {},
		"unix:":                             {},
		"unix:@":                            {},
		"unix:relative":                     {},
		"unix:@a\x00b":                      {},
		"unix:/" + strings.Repeat("a", 200): {},
		"@proxy.ss.lws":                     {},
		"+@proxy.ss.lws":                    {},
		"tcp:host":                          {},
		"tcp:host:http":                     {},
		"tcp:host:65536":                    {},
		"udp:host:1":                        {},
		"mux:":                              {},
		"mux:ttyUSB0":                       {},
		"mux:/dev/ttyUSB0@":                 {},
		"mux:/dev/ttyUSB0@0":                {},
		"mux:/dev/ttyUSB0@fast":             {},
		"mux:/dev/ttyUSB0@9999999999":       {},
	} {
		a, err := ParseAddress(text)
		if a != want || (err == nil) != (want != Address{}) {
			t.Errorf("ParseAddress(%q) is %+v, %v, want %+v", text, a, err, want)
		}
		if err == nil && a.String() != text {
			t.Errorf("String() of %q is %q", text, a)
		}
	}
}
