package sspolicy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/cookies"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/file"
	"github.com/secure-streams/sspolicy/runtime/h3"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/sink"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
	"github.com/secure-streams/sspolicy/schema"
)

// TestAgreement checks that a policy without lint errors compiles to both languages, and
// that the runtime prepares each of its streamtypes. So lint reports an error in everything
// that the compiler or the runtime rejects. The policies are random, with settings at the
// edges of their ranges. AGREEMENT is the number of policies, AGREEMENT_SEED the seed.
func TestAgreement(t *testing.T) {
	n := 1000
	if s := os.Getenv("AGREEMENT"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal("AGREEMENT:", err)
		}
	}
	seed := uint64(1)
	if s := os.Getenv("AGREEMENT_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	clean, refused := 0, 0
	for i := range n {
		text := randomPolicy(rand.New(rand.NewPCG(seed, uint64(i))))
		found := lint.Run(schema.Parse("p", []byte(text)), rules.All(), lint.Options{})
		err := prepare(text)
		if err != nil {
			refused++
		}
		if schema.HasErrors(found) {
			continue
		}
		clean++
		if err != nil {
			t.Errorf("policy %d: lint finds no error, but: %v\n%s", i, err, text)
		}
	}
	t.Logf("of %d policies lint passes %d, and %d are refused", n, clean, refused)
	if clean < n/5 || refused < n/5 {
		t.Errorf("of %d policies lint passes %d, and %d are refused: too few to tell anything", n, clean, refused)
	}
}

// prepare compiles a policy and creates a stream of each streamtype. It returns the first
// error that the policy causes.
func prepare(text string) error {
	p, found := codegen.Compile(schema.NewPolicy(schema.Parse("p", []byte(text))))
	if schema.HasErrors(found) {
		return fmt.Errorf("compile: %s [%s]", found[0].Message, found[0].Rule)
	}
	if err := codegen.Go(io.Discard, p, codegen.GoOptions{}); err != nil {
		return fmt.Errorf("compile to Go: %w", err)
	}
	if err := codegen.C(io.Discard, p, codegen.COptions{}); err != nil {
		return fmt.Errorf("compile to C: %w", err)
	}
	c, err := runtime.NewContext(p, runtime.Options{
		Logger: quiet{},
		Transports: []transport.Transport{http.New(http.SigV4), h3.New(http.SigV4), ws.New(), mqtt.New(), raw.New(raw.TLS), file.New(), sink.New(),
			smd.New(quiet{})},
		Credentials: new(credentials.Memory),
		Cookies:     cookies.New(),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") },
	})
	if err != nil {
		return err
	}
	defer c.Close()
	for _, st := range p.StreamTypes {
		if st.Server {
			continue // not executed by the runtime
		}
		s, err := c.NewStream(st.Name, runtime.Handlers{})
		if err == nil {
			s.Destroy()
		} else if !errors.Is(err, sink.ErrNoSink) { // the program must create that transport
			return err
		}
	}
	return nil
}

type quiet struct{}

func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

// edges are values in JSON at the edges of the ranges of keys. A key without any gets
// values by its type.
var edges = map[string][]string{
	"endpoint": texts("x.org", "x.org", "x.org", "127.0.0.1", "::1", "[::1]:80", "x.org:8080", "http://x.org/a", "https://x.org", "x.org/api", " x.org", "a..b",
		"${m}", "${m}.x.org", "${m}/x", "http://${m}/${n}", "${m}://x.org", "${u}.x.org", "+/run/x", "+", "+@x", "file:///tmp/x", "file://", "me@x.org:1",
		"*.x.org", "1.2.3.300", "x.org:0", "x.org:", "mqtt://x.org", "mqtts://x.org:1", "ws://x.org", "x_y", "$x", "é.org", "a:b:c"),
	"via-socks5":              texts("h.org:1080", "u:p@h.org:1080", "h.org", ":1", "h.org:99999", "socks5://h.org:1", "[::1]:1080", "@h:1", "u@h:1"),
	"protocol":                texts("h1", "h1", "h2", "h3", "ws", "mqtt", "raw", "http", "wss"),
	"port":                    {"0", "1", "80", "443", "65535", "65536", "-1", `"80"`, "80.0", "1e3"},
	"tls":                     {"true", "true", "false", "null", "1", `"true"`},
	"server":                  {"false", "false", "false", "true"},
	"local_sink":              {"false", "false", "true"},
	"retry":                   texts("r", "r", "none"),
	"tls_trust_store":         texts("t", "t", "none"),
	"use_auth":                texts("x", "y", "none"),
	"server_cert":             texts("c"),
	"server_key":              texts("c"),
	"rideshare":               texts("b", "a", "c", "none", ""),
	"aws_region":              texts("m", "n", "none", ""),
	"aws_service":             texts("m", "n", "none", ""),
	"metadata":                {`[{"m":""},{"n":"x-n:"}]`, `[]`, `[{"m":"a b:"},{"n":""}]`, `[{"m":"","n":"content-length:"}]`, `[{"m":":"}]`, `[{"m":"x","m":"y"}]`, `[{"":""}]`, `{}`, `[1]`, `[{"m":1}]`},
	"http_resp_map":           {`[{"404":1404}]`, `[]`, `[{"404":999}]`, `[{"40":1404}]`, `[{"404":1},{"404":1001}]`, `[{"404":65536}]`, `[{"301":1404}]`},
	"http_method":             texts("GET", "POST", "get", "CONNECT", "A B", "", "PURGE"),
	"http_url":                texts("", "a", "/a", "a b", "${m}", "${u}", "a?b=${n}", "${m", "$", "http://x.org/", "a#b", "${}", "a\nb"),
	"http_auth_header":        texts("authorization:", "x", "a b", "", "host:", "Content-Length:", "content-type:", "sec-websocket-key:", "te:"),
	"http_dsn_header":         texts("x-dsn:", "x", "authorization:", "connection:"),
	"http_fwv_header":         texts("x-fwv:", "x:"),
	"http_devtype_header":     texts("x-dev:", "é"),
	"http_auth_preamble":      texts("Bearer ", "Bearer", "a\nb", ""),
	"http_multipart_name":     texts("n", "", "a\tb", `a"b`),
	"http_multipart_filename": texts("f", "", "a\nb"),
	"http_mime_content_type":  texts("text/plain", "text", "", "a b", "text/plain; charset"),
	"ws_subprotocol":          texts("chat", "a, b", "a b", "", ",", "${m}"),
	"mqtt_topic":              texts("a/b", "", "a/+", "$x", "a/${m}", "$aws/things/x/shadow/update", "a/b/c/d/e/f/g/h/i/j"),
	"mqtt_subscribe":          texts("a/b", "", "a/+/b", "a/#/b", "a+", "#", "$SYS/#", "a,b", "a/b/c/d/e/f/g/h/i/j", "${m}"),
	"mqtt_will_topic":         texts("a", "", "#", "${u}"),
	"mqtt_will_message":       texts("a", "", "${u}", "${m"),
	"mqtt_birth_topic":        texts("a", "", "+", "${m}"),
	"mqtt_birth_message":      texts("a", "", "${m}"),
	"payload_fmt":             {`"x"`, `""`, `"x\ud83dy"`, `"\ud83d\ude00"`, `"\u0000"`, `"` + strings.Repeat("x", 253) + `"`, `"` + strings.Repeat("x", 254) + `"`, `1`},
	"plugins":                 {`["x"]`, `"x"`, `["x"]`},
	"options":                 {`[]`, `[{"a":"b"}]`},
}

func texts(list ...string) []string {
	for i, s := range list {
		list[i] = schema.Quote(s)
	}
	return list
}

// usual are the typical settings of a streamtype of a protocol.
var usual = map[string]string{
	"h1":   `"endpoint":"x.org","port":443,"tls":true,"http_method":"GET","http_url":"a"`,
	"h2":   `"endpoint":"x.org","port":443,"tls":true,"http_method":"POST","http_url":"a"`,
	"h3":   `"endpoint":"x.org","port":443,"tls":true,"http_method":"GET","http_url":"a"`,
	"ws":   `"endpoint":"x.org","port":443,"tls":true,"http_url":"a"`,
	"mqtt": `"endpoint":"x.org","port":8883,"tls":true,"mqtt_topic":"a"`,
	"raw":  `"endpoint":"x.org","port":7,"tls":true`,
}

func randomPolicy(r *rand.Rand) string {
	var b bytes.Buffer
	b.WriteString(`{`)
	if r.IntN(8) == 0 {
		fmt.Fprintf(&b, `"via-socks5":%s,`, pick(r, edges["via-socks5"]))
	}
	if r.IntN(10) == 0 {
		b.WriteString(pick(r, []string{`"product":"x",`, `"product":null,`, `"product":1,`, `"release":"1",`, `"schema-version":"x",`, `"x":[1],`}))
	}
	fmt.Fprintf(&b, `"retry":[{"r":{"backoff":%s,"jitterpc":%s}}],`, pick(r, []string{`[1000]`, `[1000]`, `1000`, `[]`, `[1,2,3,4,5,6,7,8]`, `[1,2,3,4,5,6,7,8,9]`, `"5"`, `[4294967296]`}),
		pick(r, []string{"20", "20", "0", "255", "256"}))
	fmt.Fprintf(&b, `"certs":[{"c":%q}],`, pick(r, []string{testRoot, testRoot, testRoot, "AAAA", "", "A*"}))
	fmt.Fprintf(&b, `"trust_stores":[{"name":"t","stack":%s}],`, pick(r, []string{`["c"]`, `["c"]`, `"c"`, `[]`, `["c","c","c","c","c","c"]`, `["c","c","c","c","c","c"],"stack":"c"`}))
	fmt.Fprintf(&b, `"auth":[{"name":"x","type":%s,"blob":0},{"name":"y","type":"bearer","blob":%s}],`, pick(r, texts("sigv4", "sigv4", "sigV4", "")), pick(r, []string{"1", "3", "4"}))
	b.WriteString(`"s":[`)
	keys := schema.Keys(schema.Streams)
	for i, name := range []string{"a", "b"}[:1+r.IntN(2)] {
		if i > 0 {
			b.WriteByte(',')
		}
		protocol := []string{"h1", "h1", "h2", "h3", "ws", "mqtt", "raw"}[r.IntN(7)]
		fmt.Fprintf(&b, `{%q:{"protocol":%q`, name, protocol)
		set := map[string]bool{"protocol": true}
		settings := strings.Split(usual[protocol], ",")
		if r.IntN(8) == 0 {
			settings = slices.Delete(settings, 0, 1) // no endpoint
		}
		count := r.IntN(5)
		for range count {
			k := keys[r.IntN(len(keys))]
			if !k.Serves(protocol) && r.IntN(10) > 0 || set[k.Name] {
				continue
			}
			set[k.Name] = true
			values := edges[k.Name]
			if values == nil {
				values = typical(k)
			}
			settings = slices.DeleteFunc(settings, func(s string) bool { return strings.HasPrefix(s, schema.Quote(k.Name)+":") })
			settings = append(settings, schema.Quote(k.Name)+":"+pick(r, values))
		}
		if text := strings.Join(settings, ","); strings.Contains(text, "${m") || strings.Contains(text, `"m"`) || r.IntN(3) == 0 {
			if !set["metadata"] {
				settings = append(settings, `"metadata":[{"m":""},{"n":""}]`)
			}
		}
		for _, s := range settings {
			b.WriteString("," + s)
		}
		b.WriteString(`}}`)
	}
	b.WriteString(`]}`)
	return b.String()
}

// typical returns values of a key without edges of its own.
func typical(k *schema.Key) []string {
	switch {
	case k.Is("boolean"):
		return []string{"true", "true", "false", "0", `"yes"`}
	case k.Is("integer"):
		return []string{"0", "1", k.Minimum.String(), k.Maximum.String(), k.Maximum.String() + "0", "-0", `"1"`, "1.5"}
	case k.Is("string"):
		return texts("x", "", "a b", "${m}")
	}
	return []string{"null"}
}

// testRoot is a root certificate, valid until 2099.
const testRoot = "MIIBbjCCAROgAwIBAgIBATAKBggqhkjOPQQDAjAdMRswGQYDVQQDExJzc3BvbGljeSB0ZXN0IHJvb3QwIBcNMjAwMTAxMDAwMDAwWhgPMjA5OTEyMzEwMDAwMDBaMB0xGzAZBgNVBAMTEnNzcG9saWN5IHRlc3Qgcm9vdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNDAbY8ZpGvtck9zTfi45gEcVkoveW3Sc7Rp7azwwUSYvrP1EQcl2DG/DlKz5FR+hlxI0giDrcDh41Yb85SkrvejQjBAMA4GA1UdDwEB/wQEAwICBDAPBgNVHRMBAf8EBTADAQH/MB0GA1UdDgQWBBQSGdFnaM1aYsO3HHqWSSP3ZWiMvTAKBggqhkjOPQQDAgNJADBGAiEAl/Vz1wx/YXKOD4VbfVcjxNe733+21PE5ww4gXqtzE24CIQD621v/KNpM3CmFiK5AaLfSRb9/AEBHU007l1QgzzMUag=="

// pick returns an element of a list, usually the first.
func pick(r *rand.Rand, list []string) string {
	if r.IntN(3) > 0 {
		return list[0]
	}
	return list[r.IntN(len(list))]
}
