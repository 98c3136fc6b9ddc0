package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestTarget(t *testing.T) {
	plain := &StreamType{Port: 1234}
	secure := &StreamType{Port: 1234, TLS: true}
	for _, tt := range []struct {
		st   *StreamType
		text string
		want Target // the zero Target means an error
	}{
		{plain, "example.com", Target{"tcp", "example.com", 1234, false, "", ""}},
		{secure, "example.com", Target{"tcp", "example.com", 1234, true, "", ""}},
		{plain, "127.0.0.1", Target{"tcp", "127.0.0.1", 1234, false, "", ""}},
		{plain, "::1", Target{"tcp", "::1", 1234, false, "", ""}},
		{plain, "fe80::1:2", Target{"tcp", "fe80::1:2", 1234, false, "", ""}},
		{plain, "example.com:99", Target{"tcp", "example.com", 99, false, "", "/"}},
		{plain, "[::1]:99", Target{"tcp", "::1", 99, false, "", "/"}},
		{secure, "http://h", Target{"tcp", "h", 80, false, "http", "/"}},
		{secure, "HTTP://h/p?q=1#f", Target{"tcp", "h", 80, false, "http", "/p?q=1"}},
		{secure, "ws://h?q", Target{"tcp", "h", 80, false, "ws", "/?q"}},
		{secure, "mqtt://h", Target{"tcp", "h", 1234, false, "mqtt", "/"}}, // the policy's port, as in lws 4.1 to 4.5
		{secure, "https://h", Target{"tcp", "h", 443, true, "https", "/"}},
		{secure, "wss://h:1/x", Target{"tcp", "h", 1, true, "wss", "/x"}},
		{secure, "tcp://h:5", Target{"tcp", "h", 5, true, "tcp", "/"}},
		{plain, "+/run/x.sock", Target{"unix", "/run/x.sock", 0, false, "", ""}},
		{plain, "+@name", Target{"unix", "@name", 0, false, "", ""}},
		{&StreamType{Protocol: ProtocolH2, TLS: true}, "h", Target{"tcp", "h", 443, true, "", ""}},
		{&StreamType{Protocol: ProtocolH1}, "h", Target{"tcp", "h", 80, false, "", ""}},
		{&StreamType{Protocol: ProtocolMQTT, TLS: true}, "h", Target{"tcp", "h", 8883, true, "", ""}},

		{plain, "https://h/", Target{}},
		{plain, "wss://h/", Target{}},
		{plain, "tcp://h", Target{"tcp", "h", 1234, false, "tcp", "/"}},
		{plain, "h:", Target{}},
		{plain, "[::1]", Target{"tcp", "::1", 1234, false, "", "/"}},
		{plain, "[::1]:", Target{}},
		{plain, "http://user:pass@h/", Target{}},
		{plain, "http://", Target{}},
		{plain, "http:///path", Target{}},
		{plain, "h:", Target{}},
		{plain, "h:0", Target{}},
		{plain, "h:65536", Target{}},
		{plain, "h:x", Target{}},
		{plain, ":80", Target{}},
		{plain, "a:b:c", Target{}},
		{plain, "[::1", Target{}},
		{plain, "[h]:80", Target{}},
		{plain, "a.b.", Target{"tcp", "a.b.", 1234, false, "", ""}},
		{plain, "x_y", Target{"tcp", "x_y", 1234, false, "", ""}},
		{plain, "a..b", Target{}},
		{plain, ".a", Target{}},
		{plain, "*.example.com", Target{}},
		{plain, "192.168.0.300", Target{}},
		{plain, "12", Target{}},
		{plain, strings.Repeat("a", 63) + ".b", Target{"tcp", strings.Repeat("a", 63) + ".b", 1234, false, "", ""}},
		{plain, strings.Repeat("a", 64) + ".b", Target{}},
		{plain, strings.Repeat("a.", 127) + "b", Target{}},
		{plain, "a b", Target{}},
		{plain, "a/b", Target{}},
		{plain, "a\r\nb", Target{}},
		{plain, "http://a\x00b/", Target{}},
		{plain, "", Target{}},
		{plain, "+", Target{}},
		{plain, "http://+2f746d70/x", Target{}},
		{plain, "+@", Target{}},
		{&StreamType{Protocol: ProtocolRaw}, "h", Target{}},
	} {
		got, err := ParseTarget(tt.text, tt.st)
		if err != nil {
			if !errors.Is(err, ErrEndpoint) || tt.want.Host != "" {
				t.Errorf("%q: %v", tt.text, err)
			}
			continue
		}
		if *got != tt.want {
			t.Errorf("%q is %+v, want %+v", tt.text, *got, tt.want)
		}
	}
}

// TestEndpointMetadata checks that metadata cannot affect an endpoint beyond its place.
func TestEndpointMetadata(t *testing.T) {
	for _, tt := range []struct {
		endpoint, value, want string // "" means an error
	}{
		{"${m}.example.com", "eu", "eu.example.com:1"},
		{"${m}.example.com", "evil.test/", ""},
		{"${m}.example.com", "evil.test:80/", ""},
		{"${m}.example.com", "evil:80", ""},
		{"${m}.example.com", "http:", ""},
		{"${m}.example.com", "a@b", ""},
		{"${m}.example.com", "a b", ""},
		{"${m}.example.com", "a\r\nb", ""},
		{"${m}.example.com", "+", ""},
		{"api.${m}", "test", "api.test:1"},
		{"api.${m}", "test:99", ""},
		{"${m}:99", "h", "h:99/"},
		{"https://${m}/p", "h", "h:443/p"},
		{"https://${m}/p", "h:99", ""},
		{"https://${m}/p", "127.0.0.1:99", ""},
		{"https://${m}/p", "[::1]", "[::1]:443/p"},
		{"https://${m}/p", "[::1]:99", ""},
		{"https://${m}/p", "::1", ""},
		{"https://${m}/p", "[fe80::1%eth0]", ""},
		{"https://[${m}]:99/p", "::1", "[::1]:99/p"},
		{"https://h:${m}/p", "99", "h:99/p"},
		{"https://h${m}/p", ":99", ""},
		{"${m}", "http://+2f746d70/p", ""},
		{"https://${m}/p", "h/x", ""},
		{"https://${m}/p", "u@h", ""},
		{"https://h/${m}", "a/b?c", "h:443/a/b%3Fc"},
		{"https://h/${m}", "a\nb", ""},
		{"+/run/${m}.sock", "x", "/run/x.sock"},
		{"+/run/${m}.sock", "../x", ""},
		{"https://h/${m}", "a b?c=d#e&f", "h:443/a%20b%3Fc%3Dd%23e%26f"},
		{"https://h/${m}", "a/b", "h:443/a/b"},
		{"https://h/${m}", "a/../b", ""},
		{"https://h?x=${m}", "1&y=2", "h:443/?x=1%26y%3D2"},
		{"${m}", "h", "h:1"},
		{"${m}", "https://h/p", "h:443/p"},
		{"${m}", "http://h/p", "h:80/p"}, // as in lws; see docs/differences.md
		{"${m}", "h\r\nx", ""},
		{"${m}", "", ""},
		{"${m}", "+/run/x.sock", ""},
		{"${m}", "file://etc/passwd", ""},
	} {
		st := &StreamType{Endpoint: tt.endpoint, Port: 1, TLS: true, Metadata: []Metadata{{Name: "m"}}}
		uses := make([]Use, 1)
		e, err := NewEndpoint(st, uses)
		if err != nil {
			t.Errorf("%s: %v", tt.endpoint, err)
			continue
		}
		got := ""
		if err := uses[0].Check(tt.value); err == nil {
			if target, err := e.Resolve([]Value{{tt.value, true}}); err == nil {
				got = target.Address() + target.Path
			}
		}
		if got != tt.want {
			t.Errorf("%s with %q is %q, want %q", tt.endpoint, tt.value, got, tt.want)
		}
	}
	for _, endpoint := range []string{"", "${m}://h/", "file://", "file:x", "FILE://x", "${m}/x", "${nobody}", "${m"} {
		st := &StreamType{Endpoint: endpoint, Port: 1, Metadata: []Metadata{{Name: "m"}}}
		if _, err := NewEndpoint(st, make([]Use, 1)); err == nil {
			t.Errorf("endpoint %q is accepted", endpoint)
		}
	}
}

func TestMetadataUse(t *testing.T) {
	for _, u := range []Use{UseHeader, UseURL, UseName, UseHost, UsePath} {
		for _, v := range []string{"\r", "\n", "\x00", "a\r\nX: y"} {
			if err := u.Check(v); !errors.Is(err, ErrMetadataValue) {
				t.Errorf("use %b accepts %q: %v", u, v, err)
			}
		}
		if err := u.Check("fine-1.2"); err != nil {
			t.Errorf("use %b: %v", u, err)
		}
	}
	for _, v := range []string{"\x01", "a\x1f", "\x7f", "\x1b[2J"} {
		if err := UseHeader.Check(v); !errors.Is(err, ErrMetadataValue) {
			t.Errorf("a header accepts %q: %v", v, err)
		}
	}
	if err := UseHeader.Check("a\tb\u00e9\xff"); err != nil {
		t.Error(err)
	}
	if err := Use(0).Check("\r\n\x00"); err != nil {
		t.Errorf("a value without a use: %v", err)
	}
	if err := UseHeader.Check(strings.Repeat("x y/", 1000)); err != nil {
		t.Error(err)
	}
}

// TestEndpointErrors checks that an error quotes the endpoint of the policy, and no
// metadata.
func TestEndpointErrors(t *testing.T) {
	for _, tt := range []struct{ endpoint, m, n string }{
		{"${m}", "http://user:hunter2@h/", ""},
		{"${m}", "http://h:hunter2/?hunter2", ""},
		{"${m}", "+hunter2", ""},
		{"${m}", "file://hunter2", ""},
		{"${m}", "https://h?hunter2", ""},
		{"file:///${m}/${n}", "hunter2", ".."},
		{"file://${m}${n}", "", ""},
	} {
		st := &StreamType{Endpoint: tt.endpoint, Port: 1, Metadata: []Metadata{{Name: "m"}, {Name: "n"}}}
		e, err := NewEndpoint(st, make([]Use, 2))
		if err != nil {
			t.Fatal(err)
		}
		_, err = e.Resolve([]Value{{tt.m, true}, {tt.n, true}})
		if !errors.Is(err, ErrEndpoint) || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), tt.endpoint) {
			t.Errorf("%q with %q: %v", tt.endpoint, tt.m, err)
		}
	}
}

func TestParseProxy(t *testing.T) {
	for _, tt := range []struct{ text, address, login string }{
		{"h.org:1080", "h.org:1080", ""},
		{"h.org", "h.org:1080", ""},
		{"[::1]:1", "[::1]:1", ""},
		{"::1", "[::1]:1080", ""},
		{"u:p:q@h:1", "h:1", "u:p:q"},
		{"u:p@q@h:1", "h:1", "u:p@q"},
		{"u:a://b@h:1", "h:1", "u:a://b"},
		{"", "", ""},
		{":1080", "", ""},
		{"h:0", "", ""},
		{"h:99999", "", ""},
		{"a b:1", "", ""},
		{"a..b:1", "", ""},
		{"u@h:1", "", ""},
		{":p@h:1", "", ""},
		{"socks5://h:1", "", ""},
		{"socks5://u:p@h:1", "", ""},
	} {
		p, err := ParseProxy(tt.text)
		login := ""
		if p.User != "" {
			login = p.User + ":" + p.Password
		}
		if (err == nil) != (tt.address != "") || err == nil && (p.Address != tt.address || login != tt.login) {
			t.Errorf("%q: %q %q (%v), want %q %q", tt.text, p.Address, login, err, tt.address, tt.login)
		}
		if err != nil && (!errors.Is(err, ErrEndpoint) || tt.text != "" && strings.Contains(err.Error(), tt.text)) {
			t.Errorf("%q: %v", tt.text, err)
		}
	}
}

// TestRawWithoutEndpoint checks that only a raw streamtype may lack an endpoint.
func TestRawWithoutEndpoint(t *testing.T) {
	e, err := NewEndpoint(&StreamType{Protocol: ProtocolRaw}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if target, err := e.Resolve(nil); err != nil || target.Network != "raw" {
		t.Errorf("%+v, %v", target, err)
	}
	if _, err := NewEndpoint(&StreamType{Protocol: ProtocolH1}, nil); !errors.Is(err, ErrEndpoint) {
		t.Errorf("h1: %v", err)
	}
}
