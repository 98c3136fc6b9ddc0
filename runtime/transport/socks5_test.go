package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

func TestParseProxy(t *testing.T) {
	for _, tt := range []struct{ text, address, user, password string }{
		{"h", "h:1080", "", ""},
		{"h:1", "h:1", "", ""},
		{"127.0.0.1:65535", "127.0.0.1:65535", "", ""},
		{"[::1]:9", "[::1]:9", "", ""},
		{"[::1]", "[::1]:1080", "", ""},
		{"::1", "[::1]:1080", "", ""},
		{"u:p@h:1", "h:1", "u", "p"},
		{"u:p:q@r@h", "h:1080", "u", "p:q@r"},
		{strings.Repeat("u", 255) + ":" + strings.Repeat("p", 255) + "@h", "h:1080", strings.Repeat("u", 255), strings.Repeat("p", 255)},
	} {
		p, err := parseProxy(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		user, password := "", ""
		if p.login != nil {
			user, password = p.login.user, p.login.password
		}
		if p.address != tt.address || user != tt.user || password != tt.password {
			t.Errorf("%q is %s, %q, %q", tt.text, p, user, password)
		}
	}
	for _, text := range []string{"", ":", ":1080", "h:", "h:0", "h:x", "h:65536", "h:1:2", "socks5://h:1", "h/x", "a b", "h\r\n",
		"secret@h", "secret:@h", ":secret@h", "u:secret@", "u:secret@:1", "u:secret@h:x", strings.Repeat("secret", 50) + ":p@h"} {
		p, err := parseProxy(text)
		if !errors.Is(err, ErrEndpoint) {
			t.Errorf("%q is %v, %v", text, p, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error quotes the login: %v", err)
		}
	}
}

// TestProxyIdentity checks that equal proxies have one pointer, and that printing one
// reveals no password.
func TestProxyIdentity(t *testing.T) {
	p := &policy.Policy{SOCKS5Proxy: "global", StreamTypes: []*policy.StreamType{{Name: "inherits"}, {Name: "has", SOCKS5Proxy: "x"}}}
	env := newEnv(t, Config{})
	get := func(text string) *Proxy {
		d, err := env.Dialer(&policy.StreamType{SOCKS5Proxy: text})
		if err != nil {
			t.Fatal(err)
		}
		return d.Proxy()
	}
	x := get("x")
	inherits, has := p.Effective("inherits"), p.Effective("has")
	if get(inherits.SOCKS5Proxy) != get("global") || get(has.SOCKS5Proxy) != x || get("") != nil || x != get("x") || get("a:b@x") == x || get("a:b@x") == get("a:c@x") {
		t.Error("equal proxies differ, or different ones are equal")
	}
	if p := get("user:secret@h"); p.String() != "h:1080" {
		t.Errorf("the proxy is %s", p)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%q", "%x"} {
		s := fmt.Sprintf(verb+verb, get("user:secret@h"), struct{ p *Proxy }{get("user:secret@h")})
		if strings.Contains(s, "secret") || strings.Contains(s, fmt.Sprintf("%x", "secret")) {
			t.Errorf("%s prints the password: %s", verb, s)
		}
	}
}

// TestProxyRequest checks the requests for addresses of each type.
func TestProxyRequest(t *testing.T) {
	for address, want := range map[string]string{
		"example.com:443":               "\x05\x01\x00\x03\x0bexample.com\x01\xbb",
		"1.2.3.4:80":                    "\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50",
		"[::ffff:1.2.3.4]:80":           "\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50",
		"[2001:db8::1]:80":              "\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50",
		"[fe80::1%eth0]:80":             "",
		":80":                           "",
		"h":                             "",
		"h:99999":                       "",
		strings.Repeat("h", 256):        "",
		strings.Repeat("h", 256) + ":1": "",
	} {
		got, err := new(Proxy).request(address)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", address, got, err)
		}
	}
}

// script runs a handshake with a proxy that reads before each of its answers, and then
// closes the connection.
func script(t *testing.T, login *login, answers ...string) error {
	here, there := net.Pipe()
	defer here.Close()
	go func() {
		defer there.Close()
		for _, a := range answers {
			there.Read(make([]byte, 1024))
			io.WriteString(there, a)
		}
	}()
	p := &Proxy{address: "proxy:1", login: login}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return p.connect(ctx, here, "h:1")
}

// TestProxyAnswers checks the error for each answer of a proxy.
func TestProxyAnswers(t *testing.T) {
	secret := &login{"user", "secret"}
	const ok = "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	for _, tt := range []struct {
		login   *login
		answers []string
		want    string // part of the error; "" means none
	}{
		{nil, []string{"\x05\x00", ok}, ""},
		{nil, []string{"\x05\x00", "\x05\x00\x00\x03\x02ab\x00\x00"}, ""},
		{nil, []string{"\x05\x00", "\x05\x00\x00\x04" + strings.Repeat("x", 18)}, ""},
		{secret, []string{"\x05\x00", ok}, ""},
		{secret, []string{"\x05\x02", "\x01\x00", ok}, ""},
		{secret, []string{"\x05\x02", "\x01\x01"}, "refused the user name"},
		{secret, []string{"\x05\x02", "\x05\x00", ok}, "refused the user name"},
		{secret, []string{"\x05\xff"}, "does not accept"},
		{nil, []string{"\x05\x02"}, "requires a login"},
		{nil, []string{"\x05\xff"}, "requires a login"},
		{nil, []string{"\x04\x00"}, "does not speak"},
		{nil, []string{"HTTP/1.1 400\r\n"}, "does not speak"},
		{nil, []string{"\x05\x00", "\x05\x01\x00\x01"}, "general failure"},
		{nil, []string{"\x05\x00", "\x05\x02\x00\x01"}, "not allowed"},
		{nil, []string{"\x05\x00", "\x05\x05\x00\x01"}, "refused"},
		{nil, []string{"\x05\x00", "\x05\x63\x00\x01"}, "unknown reply 99"},
		{nil, []string{"\x05\x00", "\x05\x00\x00\x02"}, "malformed"},
		{nil, []string{"\x05\x00", "\x04\x00\x00\x01"}, "malformed"},
	} {
		err := script(t, tt.login, tt.answers...)
		switch {
		case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%q: %v, want %q", tt.answers, err, tt.want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("the error quotes the password: %v", err)
		}
	}
	// The answers end after each byte.
	whole := []string{"\x05\x02", "\x01\x00", ok}
	for i, a := range whole {
		for n := range len(a) {
			if err := script(t, secret, append(append([]string{}, whole[:i]...), a[:n])...); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("end after %d bytes of answer %d: %v", n, i, err)
			}
		}
	}
}

// TestProxySilent checks that the context ends the wait for a proxy.
func TestProxySilent(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	go io.Copy(io.Discard, there)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := new(Proxy).connect(ctx, here, "h:1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent proxy: %v", err)
	}
	here.Close()
}
