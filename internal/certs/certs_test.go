package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/schema"
)

// show starts a TLS server that shows a chain, and returns what Fetch gets from it.
func show(t *testing.T, config *tls.Config) []*x509.Certificate {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	chain, err := Fetch(t.Context(), (&net.Dialer{}).DialContext, l.Addr().String(), "example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

// server returns the config of a server of an authority that sends more certificates.
func server(a *testcert.Authority, with ...*testcert.Authority) *tls.Config {
	c := a.Certify(testcert.Key(), time.Now().Add(-time.Hour), "example.com")
	for _, w := range with {
		c.Certificate = append(c.Certificate, w.Cert.Raw)
	}
	return &tls.Config{Certificates: []tls.Certificate{c}}
}

func TestCheck(t *testing.T) {
	root, other := testcert.New("root"), testcert.New("other")
	middle := root.Intermediate("middle")
	again := testcert.New("root")
	complete := show(t, server(middle, middle))
	alone := show(t, server(middle))
	for _, x := range []struct {
		name    string
		q       Question
		ok      bool
		missing string
		says    string // in the problem, the advice or a note
	}{
		{"complete", Question{Chain: complete, Store: []*x509.Certificate{root.Cert}}, true, "", ""},
		{"the server shows its root", Question{Chain: show(t, server(middle, middle, root)), Store: []*x509.Certificate{other.Cert}}, false,
			"CN=root", `the store lacks the root "CN=root", which the server shows`},
		{"another root", Question{Chain: complete, Store: []*x509.Certificate{other.Cert}}, false,
			"CN=root", `the store lacks the issuer "CN=root" of "CN=middle"`},
		{"no intermediate", Question{Chain: alone, Store: []*x509.Certificate{root.Cert}}, false,
			"CN=middle", "it should send the intermediate certificates too"},
		{"trusted intermediate", Question{Chain: alone, Store: []*x509.Certificate{middle.Cert}}, true, "", `lws with OpenSSL accepts the chain only if the store, or the system, has the root "CN=root" too`},
		{"the policy has it", Question{Chain: complete, Store: []*x509.Certificate{other.Cert}, Others: map[string]*x509.Certificate{"r": root.Cert}}, false,
			"CN=root", `the policy has it: put "r" into the stack`},
		{"new key", Question{Chain: complete, Store: []*x509.Certificate{again.Cert}}, false,
			"CN=root", `the store has a certificate of "CN=root" with another key`},
		{"empty store", Question{Chain: complete}, false, "CN=root", "the store lacks the issuer"},
		{"another name", Question{Chain: complete, Store: []*x509.Certificate{root.Cert}, Host: "example.org"}, false, "", "the endpoint of the policy, or the server, is wrong"},
		{"expired", Question{Chain: complete, Store: []*x509.Certificate{root.Cert}, At: time.Now().Add(48 * time.Hour)}, false, "", "no trust store helps"},
		{"self-signed", Question{Chain: show(t, &tls.Config{Certificates: []tls.Certificate{(*testcert.Authority)(nil).Issue(func(c *x509.Certificate) {}, testcert.Key())}}), Store: []*x509.Certificate{root.Cert}}, false,
			"CN=server", "is self-signed, and the store does not hold it"},
		{"nothing", Question{}, false, "", "showed no certificate"},
		{"system", Question{Chain: complete, System: true}, false, "CN=root", "the store lacks the issuer"},
	} {
		a := Check(x.q)
		text := strings.Join(append([]string{a.Problem, a.Advice}, a.Notes...), "\n")
		if a.OK != x.ok || a.Missing != x.missing || !strings.Contains(text, x.says) {
			t.Errorf("%s: %+v", x.name, a)
		}
	}
}

// TestFetchRefused checks that a server which wants a certificate of the client still
// shows its own.
func TestFetchRefused(t *testing.T) {
	root := testcert.New("root")
	c := server(root)
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.MaxVersion = tls.VersionTLS12
	if chain := show(t, c); len(chain) != 1 {
		t.Errorf("%d certificates", len(chain))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := Fetch(ctx, (&net.Dialer{}).DialContext, l.Addr().String(), "", nil); err == nil {
		t.Error("a closed port shows a chain")
	}
}

func TestMinimize(t *testing.T) {
	a, b, c := testcert.New("a"), testcert.New("b"), testcert.New("c")
	middle := a.Intermediate("middle")
	store := []*x509.Certificate{c.Cert, middle.Cert, a.Cert, b.Cert}
	ask := func(configs ...*tls.Config) (all []Question) {
		for _, c := range configs {
			all = append(all, Question{Chain: show(t, c), Host: "example.com"})
		}
		return all
	}
	for _, x := range []struct {
		name      string
		questions []Question
		want      []int
		err       string
	}{
		{"one", ask(server(b)), []int{3}, ""},
		{"with its intermediate", ask(server(middle, middle)), []int{2}, ""},
		{"without its intermediate, OpenSSL needs both", ask(server(middle)), []int{1, 2}, ""},
		{"several", ask(server(b), server(c), server(middle, middle)), []int{0, 2, 3}, ""},
		{"none", ask(server(testcert.New("d"))), nil, "the whole store does not verify the chain of"},
		{"no chain", nil, nil, "no chain"},
	} {
		got, err := Minimize(store, x.questions)
		if !slices.Equal(got, x.want) || (err == nil) != (x.err == "") || err != nil && !strings.Contains(err.Error(), x.err) {
			t.Errorf("%s: %v, %v", x.name, got, err)
		}
	}
	if got, err := Minimize([]*x509.Certificate{middle.Cert}, ask(server(middle))); err != nil || !slices.Equal(got, []int{0}) {
		t.Errorf("an intermediate alone: %v, %v", got, err)
	}
}

func encode(c *x509.Certificate) string { return base64.StdEncoding.EncodeToString(c.Raw) }

// TestEdit imports certificates into policies of different layouts, and removes them
// again.
func TestEdit(t *testing.T) {
	old, added := testcert.New("old"), testcert.New("New CA 1")
	for _, x := range []struct{ name, stack, want string }{
		{"one line", `["old"]`, `["old", "new_ca_1"]`},
		{"empty", `[]`, `["new_ca_1"]`},
		{"lines", "[\n    \"old\"\n  ]", "[\n    \"old\",\n    \"new_ca_1\"\n  ]"},
		{"comment", "[\n    \"old\" # first\n  ]", "[\n    \"old\", # first\n    \"new_ca_1\"\n  ]"},
		{"DOS", "[\r\n    \"old\" # first\r\n  ]", "[\r\n    \"old\", # first\r\n    \"new_ca_1\"\r\n  ]"},
		{"comment on one line", "[ \"old\" # first\n ]", "[ \"old\", # first\n\"new_ca_1\"\n ]"},
	} {
		text := fmt.Sprintf("# head\n{\"certs\": [\n  {\"old\": %q} # the old one\n],\n# stores\n\"trust_stores\": [{\"name\": \"s\", \"stack\": %s}] } # end\n", encode(old.Cert), x.stack)
		d := schema.Parse("p.json", []byte(text))
		got, names, fresh, err := Import(d, []NamedCert{{NameFor(added.Cert), added.Cert}}, ImportOptions{Store: "s"})
		if err != nil || !slices.Equal(names, []string{"new_ca_1"}) || !slices.Equal(fresh, names) {
			t.Errorf("%s: %v, %v, %v", x.name, names, fresh, err)
			continue
		}
		out := got.Source.Text
		if len(got.Syntax) > 0 || !strings.Contains(out, "\"stack\": "+x.want) || !strings.Contains(out, "# the old one") || !strings.HasPrefix(out, "# head\n") || !strings.HasSuffix(out, "# end\n") {
			t.Errorf("%s: %v\n%s", x.name, got.Syntax, out)
		}
		if again, _, fresh, err := Import(got, []NamedCert{{"other_name", added.Cert}}, ImportOptions{Store: "s"}); err != nil || len(fresh) > 0 || again.Source.Text != out {
			t.Errorf("%s: a second import changes it: %v, %v\n%s", x.name, fresh, err, again.Source.Text)
		}
		kept, removed := Keep(got, "s", Stack(d, "s"))
		if !slices.Equal(removed, []string{"new_ca_1"}) || !slices.Equal(Stack(kept, "s"), Stack(d, "s")) || len(kept.Syntax) > 0 || len(List(schema.NewPolicy(kept))) != 1 {
			t.Errorf("%s: removed %v\n%s", x.name, removed, kept.Source.Text)
		}
	}
}

func TestImportNew(t *testing.T) {
	a, b := testcert.New("a"), testcert.New("b")
	empty := schema.Parse("p.json", []byte("{ \"s\": [] }"))
	d, _, fresh, err := Import(empty, []NamedCert{{"a", a.Cert}, {"b", b.Cert}, {"a", a.Cert}}, ImportOptions{Store: "new"})
	if err == nil {
		t.Errorf("two certificates of one name: %v\n%s", fresh, d.Source.Text)
	}
	d, _, fresh, err = Import(empty, []NamedCert{{"a", a.Cert}, {"b", b.Cert}}, ImportOptions{Store: "new"})
	if err != nil || len(fresh) != 2 || !slices.Equal(Stack(d, "new"), []string{"a", "b"}) {
		t.Fatalf("%v, %v", fresh, err)
	}
	if at := strings.Index; at(d.Source.Text, `"certs"`) > at(d.Source.Text, `"trust_stores"`) || at(d.Source.Text, `"trust_stores"`) > at(d.Source.Text, `"s"`) {
		t.Errorf("not in the order in which lws needs the sections:\n%s", d.Source.Text)
	}
	if _, _, _, err := Import(d, []NamedCert{{"a", b.Cert}}, ImportOptions{}); err != nil {
		t.Errorf("the same certificate under another name: %v", err)
	}
	c := testcert.New("c")
	if _, _, _, err := Import(d, []NamedCert{{"a", c.Cert}}, ImportOptions{}); err == nil {
		t.Error("a certificate was replaced without being asked")
	}
	d, _, _, err = Import(d, []NamedCert{{"a", c.Cert}}, ImportOptions{Replace: true})
	if err != nil || !List(schema.NewPolicy(d))[0].Cert.Equal(c.Cert) {
		t.Errorf("not replaced: %v", err)
	}
}

func TestRead(t *testing.T) {
	a, b := testcert.New("a"), testcert.New("b")
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	for _, x := range []struct {
		name, text string
		n          int
		err        string
	}{
		{"PEM", "text\n" + string(a.PEM()) + "more\n" + string(b.PEM()), 2, ""},
		{"DER", string(a.Cert.Raw), 1, ""},
		{"several in DER", string(a.Cert.Raw) + string(b.Cert.Raw), 2, ""},
		{"key", block("PRIVATE KEY", a.KeyPEM()), 0, "only certificates belong here"},
		{"DER of a key", string(testcert.KeyDER(a.Certify(testcert.Key(), time.Now(), "x"))), 0, "a private key"},
		{"not DER", block("CERTIFICATE", []byte("x")), 0, "certificate 1: "},
		{"cut", string(a.PEM()[:100]), 0, "no whole block"},
		{"empty", "", 0, "neither PEM nor"},
	} {
		got, err := Read([]byte(x.text))
		if len(got) != x.n || (err == nil) != (x.err == "") || err != nil && !strings.Contains(err.Error(), x.err) {
			t.Errorf("%s: %d, %v", x.name, len(got), err)
		}
	}
}

// FuzzImport checks that certificates can be imported into any policy that is read without
// errors, and that the result is one too.
func FuzzImport(f *testing.F) {
	f.Add(`{"trust_stores":[{"name":"s","stack":["a","b",]}],"certs":[{"a":"","b":""}]}`)
	f.Add("{\"certs\":[]\n#c\n,\"trust_stores\":[{\"stack\":[],\"name\":\"s\"},]}")
	f.Add(`{}`)
	a := testcert.New("a")
	f.Fuzz(func(t *testing.T, text string) {
		d := schema.Parse("p.json", []byte(text))
		if len(d.Syntax) > 0 || len(schema.Validate(d)) > 0 {
			t.Skip()
		}
		got, names, _, err := Import(d, []NamedCert{{"fresh", a.Cert}}, ImportOptions{Store: "s"})
		if err != nil {
			t.Skip()
		}
		if schema.HasErrors(got.Syntax) || schema.HasErrors(schema.Validate(got)) || !slices.Contains(Stack(got, "s"), names[0]) {
			t.Errorf("%v %v\n%s", got.Syntax, schema.Validate(got), got.Source.Text)
		}
		kept, _ := Keep(got, "s", nil)
		if schema.HasErrors(kept.Syntax) || len(Stack(kept, "s")) > 0 {
			t.Errorf("%v\n%s", kept.Syntax, kept.Source.Text)
		}
	})
}
