package proxyconfig

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/proxy"
)

func TestParse(t *testing.T) {
	uid := strconv.Itoa(os.Getuid())
	c, found := Parse("/etc/ss/proxy.json", []byte(`{
		// a comment
		"listen": [
			{"address": "unix:/run/ss", "mode": "0660", "owner": "`+uid+`", "group": "7"},
			{"address": "tls:0.0.0.0:1", "certificate": "c.pem", "key": "/k.pem", "client_ca": "ca.pem"},
			{"address": "tcp:0.0.0.0:1", "public": true},
		],
		"drain": "1.5s", "metrics": "tcp:127.0.0.1:9100", "credentials": "secrets",
		"roles": [{"name": "a", "users": ["`+uid+`", "12"], "groups": ["7"], "streamtypes": ["get*"], "max_rate": 5}, {"name": "b"}],
	}`))
	if c == nil {
		t.Fatal(found)
	}
	want := []*proxy.Role{
		{Name: "a", Users: []uint32{uint32(os.Getuid()), 12}, Groups: []uint32{7}, StreamTypes: []string{"get*"}, MaxRate: 5}, {Name: "b"},
	}
	if diff := cmp.Diff(want, c.ProxyRoles()); diff != "" {
		t.Error(diff)
	}
	mode, set, owner, group := c.Listen[0].Permissions()
	if mode != 0o660 || !set || owner != os.Getuid() || group != 7 {
		t.Errorf("%v %v %d %d", mode, set, owner, group)
	}
	if _, set, owner, group = c.Listen[1].Permissions(); set || owner != -1 || group != -1 {
		t.Errorf("%v %d %d", set, owner, group)
	}
	dir := filepath.FromSlash("/etc/ss")
	if l := c.Listen[1]; l.Certificate != filepath.Join(dir, "c.pem") || l.Key != "/k.pem" || c.Credentials != filepath.Join(dir, "secrets") {
		t.Errorf("%+v", c)
	}
	if time.Duration(c.Drain) != 1500*time.Millisecond {
		t.Error(c.Drain)
	}
	if (&Config{}).ProxyRoles() != nil {
		t.Error("roles without roles")
	}
	if (&Config{Roles: []Role{}}).ProxyRoles() == nil {
		t.Error("an empty list of roles lets everybody in")
	}
}

func TestMistakes(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"{\n  \"lisen\": []\n}", `f:2:3: unknown setting "lisen": did you mean "listen"?`},
		{`{"listen": [{"adress": "unix:@a"}]}`, `f:1:13: missing setting: "address" f:1:14: unknown setting "adress": did you mean "address"?`},
		{`{"listen": []}`, `f:1:12: minimum 1 items required, but found 0 items`},
		{`{"listen": [{"address": "/run/x"}]}`, `f:1:25: address "/run/x" of a proxy: unknown kind of address: want unix:@NAME, unix:/PATH, tcp:HOST:PORT, tls:HOST:PORT or mux:/DEVICE@SPEED`},
		{`{"listen": [{"address": "tcp:0.0.0.0:1"}]}`, `f:1:25: tcp:0.0.0.0:1: other systems could use the proxy without authentication: want a loopback address, tls, or "public": true`},
		{`{"listen": [{"address": "tls:0.0.0.0:1", "certificate": "c", "key": "k"}]}`, `f:1:13: tls on an address that other systems can reach needs client_ca`},
		{`{"listen": [{"address": "tls:127.0.0.1:1"}]}`, `f:1:13: tls needs certificate and key`},
		{`{"listen": [{"address": "unix:@a", "mode": "0600"}]}`, `f:1:44: mode is for a unix socket with a path, and the address is unix:@a`},
		{`{"listen": [{"address": "unix:/a", "mode": "0999"}]}`, `f:1:44: want permissions such as 0660`},
		{`{"listen": [{"address": "unix:/a", "owner": "nobody-by-that-name"}]}`, `f:1:45: user: unknown user nobody-by-that-name`},
		{`{"listen": [{"address": "unix:/a", "public": true}]}`, `f:1:46: public is for tcp, and the address is unix:/a`},
		{`{"metrics": "tcp:0.0.0.0:1"}`, `f:1:13: tcp:0.0.0.0:1: want a unix socket, or tcp with a loopback address`},
		{`{"drain": "5x"}`, `f:1:11: want a duration such as 5s`},
		{`{"drain": "5.5.5s"}`, `f:1:11: want a duration such as 5s`},
		{`{"drain": 5}`, `f:1:11: expected string, but got number`},
		{`{"max_links": 0}`, `f:1:15: must be >= 1 but found 0`},
		{`{"max_links": 1, "max_links": 2}`, `f:1:18: duplicate setting "max_links"`},
		{`{"roles": [{"name": "a"}, {"name": "a"}]}`, `f:1:36: two roles have the name "a"`},
		{`{"roles": [{"name": "a", "streamtypes": ["a", "["]}]}`, `f:1:47: "[": syntax error in pattern`},
		{`{"roles": [{"name": "a", "users": ["nobody-by-that-name"]}]}`, `f:1:36: user: unknown user nobody-by-that-name`},
		{`{"roles": [{}]}`, `f:1:12: missing setting: "name"`},
		{`{`, `f:1:1: not JSON: unexpected end of JSON input`},
		{`[]`, `f:1:1: expected object, but got array`},
	} {
		c, found := Parse("f", []byte(test.text))
		var got []string
		for _, d := range found {
			got = append(got, d.Span.String()+": "+d.Message)
		}
		if text := strings.Join(got, " "); text != test.want || c != nil {
			t.Errorf("%s:\ngot  %s\nwant %s", test.text, text, test.want)
		}
	}
}

// TestSchema checks that the schema and the types have the same settings.
func TestSchema(t *testing.T) {
	type node struct {
		Properties map[string]json.RawMessage
		Items      *struct{ Properties map[string]json.RawMessage }
	}
	var root struct{ Properties map[string]node }
	if err := json.Unmarshal([]byte(JSONSchema), &root); err != nil {
		t.Fatal(err)
	}
	compare := func(typ reflect.Type, has func(string) bool, n int) {
		t.Helper()
		fields := 0
		for i := range typ.NumField() {
			if name := typ.Field(i).Tag.Get("json"); name != "" {
				fields++
				if !has(name) {
					t.Errorf("the schema has no %s", name)
				}
			}
		}
		if fields != n {
			t.Errorf("%v has %d settings, the schema %d", typ, fields, n)
		}
	}
	compare(reflect.TypeFor[Config](), func(s string) bool { _, ok := root.Properties[s]; return ok }, len(root.Properties)-1) // $schema
	for name, typ := range map[string]reflect.Type{"listen": reflect.TypeFor[Listener](), "roles": reflect.TypeFor[Role]()} {
		p := root.Properties[name].Items.Properties
		compare(typ, func(s string) bool { _, ok := p[s]; return ok }, len(p))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"listen": [{"address": "unix:@a"}], "roles": [{"name": "a", "streamtypes": ["*"]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, found := Parse("f", text)
		if (c == nil) != (len(found) > 0) {
			t.Errorf("%v and %v", c, found)
		}
	})
}
