package rules

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

// Tests of the rules about references, TLS and trust, and secrets.
var trustRules = []*lint.Rule{
	authChain, badSymbol, certExpiry, certNotCA, certNotYetValid, certTooBig, certUnreadable, embeddedSecret,
	endpointOverride, endpointScheme, incompleteChain, joinedCerts, keyMismatch, misplacedTrust, multipartName, nameNotFirst,
	plainFetchPolicy, prefixMatch, privateKeyRule, repeatedCert, rideshareLoop, serverWithoutCert, sharedServerCert,
	tlsPort, trustWithoutTLS, trustedServerCert, undeclaredMetadata, undefinedReference, unusedDefinition,
	unusedMetadata, weakCert,
}

// trust returns a policy with certificates (pairs of name and base64), trust stores (pairs
// of name and stack) and streamtypes.
func trust(certs, stores, streams []string) string {
	var b strings.Builder
	section := func(name, form string, entries []string) {
		for i := 0; i < len(entries); i += 2 {
			fmt.Fprintf(&b, `"%s":[`+form+`],`, name, entries[i], entries[i+1])
		}
	}
	section("certs", `{"%s":"%s"}`, certs)
	section("trust_stores", `{"name":"%s","stack":%s}`, stores)
	section("s", `{"%s":{%s}}`, streams)
	return "{" + strings.TrimSuffix(b.String(), ",") + "}"
}

const (
	tls    = `"endpoint":"example.com","port":443,"tls":true,"http_method":"GET","opportunistic":true`
	trusts = tls + `,"tls_trust_store":"t"`
	serves = `"server":true,"protocol":"raw","port":7681,"tls":true,"server_cert":"id","server_key":"key"`
)

// one returns a policy with a client and a trust store of the given certificates.
func one(certs ...string) string {
	var names []string
	for i := 0; i < len(certs); i += 2 {
		names = append(names, schema.Quote(certs[i]))
	}
	return trust(certs, []string{"t", "[" + strings.Join(names, ",") + "]"}, []string{"a", trusts})
}

func client(settings string) string { return trust(nil, nil, []string{"a", settings}) }

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func der(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// derOf returns n bytes of DER that do not form a readable certificate.
func derOf(n int) string {
	return base64Of(append([]byte{0x30, 0x82, byte((n - 4) >> 8), byte(n - 4)}, make([]byte, n-4)...))
}

func TestTrust(t *testing.T) {
	slow := `"retry":[{"%s":{}},{"%s":{}}],"s":[{"a":{` + tls + `,"retry":"slow"}},{"b":{` + tls + `,"retry":"slower"}}]`
	url := func(u string) string { return client(tls + `,"http_url":"` + u + `"`) }
	with := func(u, metadata string) string {
		return client(tls + `,"http_url":"` + u + `","metadata":[` + metadata + `]`)
	}
	for _, test := range []struct {
		name, policy string
		want         []string // severity, rule, text at the span, and part of the message
	}{
		// References.
		{"longer name is newer", "{" + fmt.Sprintf(slow, "slow", "slower") + "}", []string{`error|prefix-match|"slow"|lws uses backoff scheme "slower" here`}},
		{"longer name is older", "{" + fmt.Sprintf(slow, "slower", "slow") + "}", nil},
		{"longer name comes after the use", `{"retry":[{"slow":{}}],"s":[{"a":{` + tls + `,"retry":"slow"}}],"retry":[{"slower":{}}],"s":[{"b":{` + tls + `,"retry":"slower"}}]}`, nil},
		{"newest of several", `{"retry":[{"s":{}},{"sl":{}},{"sx":{}},{"sl":{}}],"s":[{"a":{` + tls + `,"retry":"s"}}]}`,
			[]string{`info|unused-definition|"sx"|`, `error|prefix-match|"s"|lws uses backoff scheme "sl" here`}},
		{"certificates", trust([]string{"c", exampleRoot, "ca", exampleRoot2}, []string{"t", `["c","ca"]`}, []string{"a", trusts}),
			[]string{`error|prefix-match|"c"|lws uses certificate "ca" here`, `info|repeated-cert|"ca"|certificate "ca" is the same as "c"`}},
		{"names that use_auth compares whole", `{"auth":[{"name":"x"},{"name":"xy"}],"s":[{"a":{` + tls + `,"use_auth":"x"}},{"b":{` + tls + `,"use_auth":"xy"}}]}`, nil},
		{"only the start of a name", `{"retry":[{"default":{}}],"s":[{"a":{` + tls + `,"retry":"def"}}]}`,
			[]string{`error|undefined-reference|"def"|backoff scheme "def" is not defined; lws uses "default", whose name begins with it`}},
		{"no start of a name", `{"auth":[{"name":"default"}],"s":[{"a":{` + tls + `,"use_auth":"def"}}]}`,
			[]string{`error|undefined-reference|"def"|auth scheme "def" is not defined`}},

		{"each section", `{"retry":[{"r":{}}],"certs":[{"c":"` + exampleRoot + `"}],"trust_stores":[{"name":"t","stack":["c"]}],"auth":[{"name":"x"}],"s":[{"a":{` + tls + `}}]}`,
			[]string{`info|unused-definition|"r"|nothing uses backoff scheme "r"`, `info|unused-definition|"t"|nothing uses trust store "t"`, `info|unused-definition|"x"|nothing uses auth scheme "x"`}},
		{"part of a policy", `{"retry":[{"r":{}}]}`, nil},
		{"perhaps meant by a misspelt name", `{"retry":[{"r":{}},{"default":{}}],"s":[{"a":{` + tls + `,"retry":"zzz"}}]}`, []string{`error|undefined-reference|"zzz"|`}},
		{"used too early", `{"s":[{"a":{` + tls + `,"retry":"r"}}],"retry":[{"r":{}}]}`, nil},

		{"rideshare of three", `{"s":[{"x":{` + tls + `,"rideshare":"a"}},{"a":{` + tls + `,"rideshare":"b"}},{"b":{` + tls + `,"rideshare":"c"}},{"c":{` + tls + `,"rideshare":"a"}}]}`,
			[]string{`error|rideshare-loop|"b"|streamtype "a" shares the request of streamtype "b"`}},
		{"rideshare in a row", `{"s":[{"a":{` + tls + `,"rideshare":"b"}},{"b":{` + tls + `,"rideshare":"c"}},{"c":{` + tls + `}}]}`, nil},
		{"rideshare set twice", `{"s":[{"a":{` + tls + `,"rideshare":"a","rideshare":"b"}},{"b":{` + tls + `}}]}`, nil},
		{"a part and none", `{"s":[{"a":{` + tls + `,"http_multipart_name":"","rideshare":"b"}},{"b":{` + tls + `}}]}`,
			[]string{`error|multipart-name|"b"|streamtype "a" is a part of a multipart request, and streamtype "b", which shares it, is none`}},
		{"none and a part", `{"s":[{"a":{` + tls + `,"rideshare":"b"}},{"b":{` + tls + `,"http_multipart_name":"b"}}]}`,
			[]string{`error|multipart-name|"b"|streamtype "b" is a part of a multipart request, and streamtype "a", which shares it, is none`}},
		{"two parts", `{"s":[{"a":{` + tls + `,"http_multipart_name":"","rideshare":"b"}},{"b":{` + tls + `,"http_multipart_name":"b"}}]}`, nil},
		{"two loops", `{"s":[{"a":{` + tls + `,"rideshare":"a"}},{"b":{` + tls + `,"rideshare":"b"}}]}`,
			[]string{`error|rideshare-loop|"a"|shares its own request`, `error|rideshare-loop|"b"|shares its own request`}},

		{"auth of nothing", `{"auth":[{"name":"x","streamtype":"tokem"}],"s":[{"a":{` + tls + `,"use_auth":"x"}},{"token":{` + tls + `}}]}`,
			[]string{`info|auth-chain|"tokem"|does not exist: did you mean "token"?`}},
		{"auth of itself", `{"auth":[{"name":"x","streamtype":"a"}],"s":[{"a":{` + tls + `,"use_auth":"x"}}]}`, []string{`info|auth-chain|"a"|needs streamtype "a", which authenticates by it`}},
		{"auth in a circle", `{"auth":[{"name":"x","streamtype":"a"},{"name":"y","streamtype":"b"}],"s":[{"a":{` + tls + `,"use_auth":"y"}},{"b":{` + tls + `,"use_auth":"x"}}]}`,
			[]string{`info|auth-chain|"a"|authenticates by a scheme that needs it in turn`}},
		{"auth that is sound", `{"auth":[{"name":"x","streamtype":"token"}],"s":[{"a":{` + tls + `,"use_auth":"x"}},{"token":{` + tls + `}}]}`, nil},

		{"symbol not closed", url("a/${b"), []string{`error|bad-symbol|${b|"${" is not closed`}},
		{"symbol without name", url("a/${}"), []string{`error|bad-symbol|${}|there is no name`}},
		{"dollar at the end", url("a$"), []string{`error|bad-symbol|$|drops a "$" at the end`}},
		{"two dollars", url("a$$b"), []string{`error|bad-symbol|$$|makes one "$" more`}},
		{"three dollars", url("a$$$b"), []string{`error|bad-symbol|$$$|makes one "$" more`}},
		{"two dollars before a symbol", with("a$${m}", `{"m":""}`), []string{`error|bad-symbol|$|makes one "$" more`}},
		{"a dollar", url("a$b/{c}"), nil},
		{"name of 31 bytes", with("${"+strings.Repeat("n", 31)+"}", `{"`+strings.Repeat("n", 31)+`":""}`), nil},
		{"name of 32 bytes", with("${"+strings.Repeat("n", 32)+"}", `{"`+strings.Repeat("n", 32)+`":""}`), []string{`error|bad-symbol|${nnn|longer than 31 bytes`}},
		{"symbol in a symbol", url("${a${b}"), []string{`error|undeclared-metadata|${a${b}|no metadata "a${b"`}},
		{"symbol behind an escape", url(`\u0061${b}`), []string{`error|undeclared-metadata|"\u0061${b}"|no metadata "b"`}},
		{"escaped symbol", url(`a\u0024{b}`), []string{`error|undeclared-metadata|"a\u0024{b}"|no metadata "b"`}},
		{"where it is not replaced", client(tls + `,"http_auth_preamble":"${b}","ws_subprotocol":"${c"`), nil},
		{"symbol of a server", client(`"server":true,"protocol":"raw","endpoint":"${b}","port":1`), nil},

		{"misspelt metadata", with("${devise}", `{"device":"x-device:"}`), []string{`error|undeclared-metadata|${devise}|which http_url names: did you mean "device"?`}},
		{"metadata of another stream", `{"s":[{"a":{` + tls + `,"http_url":"${m}"}},{"b":{` + tls + `,"http_url":"${m}","metadata":[{"m":""}]}}]}`, []string{`error|undeclared-metadata|${m}|streamtype "a" has no metadata "m"`}},
		{"metadata in two lists", client(tls + `,"http_url":"${m}${n}","metadata":[{"m":""}],"metadata":[{"n":""}]`), nil},
		{"mqtt", client(`"endpoint":"example.com","port":8883,"tls":true,"protocol":"mqtt","mqtt_topic":"${t}","mqtt_will_message":"${w}"`),
			[]string{`error|undeclared-metadata|${t}|which mqtt_topic names`, `error|undeclared-metadata|${w}|which mqtt_will_message names`}},
		{"aws", client(tls + `,"aws_region":"region","aws_service":"us-west-2","metadata":[{"region":""}]`), []string{`error|undeclared-metadata|"us-west-2"|which aws_service names: its value is the name`}},

		{"unused metadata", with("x", `{"m":"","n":"x-n:"}`), []string{`info|unused-metadata|"m"|nothing uses`}},
		{"metadata of a server", client(`"server":true,"port":1,"metadata":[{"path":""},{"arg":""}]`), nil},
		{"metadata as headers", client(tls + `,"direct_proto_str":true,"metadata":[{"x-n":""}]`), nil},
		{"metadata of mqtt", client(`"endpoint":"example.com","port":8883,"tls":true,"protocol":"mqtt","metadata":[{"m":""}]`), nil},

		{"server certificate twice", trust([]string{"id", exampleServer, "key", exampleServerKey, "kez", exampleServerKey}, nil, []string{"a", serves, "b", strings.ReplaceAll(serves, `"key"`, `"kez"`)}),
			[]string{`info|private-key|"key"|`, `info|private-key|"kez"|`, `error|shared-server-cert|"id"|lws does not find certificate "id" here: streamtype "a" has used it`}},
		{"server key that is the certificate", trust([]string{"id", exampleServer}, nil, []string{"a", strings.ReplaceAll(serves, `"key"`, `"id"`)}), []string{`error|shared-server-cert|"id"|streamtype "a" has used it`}},
		{"trust after the server", `{"certs":[{"id":"` + exampleServer + `"}],"s":[{"a":{"server":true,"protocol":"raw","port":1,"server_cert":"id"}}],"trust_stores":[{"name":"t","stack":["id"]}],"s":[{"b":{` + trusts + `}}]}`,
			[]string{`error|shared-server-cert|"id"|`}},
		{"two of one name", trust([]string{"id", exampleServer, "id", exampleServer}, nil, []string{"a", `"server":true,"protocol":"raw","port":1,"server_cert":"id"`, "b", `"server":true,"protocol":"raw","port":2,"server_cert":"id"`}), nil},
		{"same bytes, two names", trust([]string{"ca", exampleServer, "id", exampleServer}, []string{"t", `["ca"]`}, []string{"a", trusts, "b", `"server":true,"protocol":"raw","port":1,"server_cert":"id"`}),
			[]string{`info|trusted-server-cert|"id"|is also trusted by the clients of trust store "t"`}},

		{"stack first", `{"certs":[{"c":"` + exampleRoot + `"}],"trust_stores":[{"stack":["c"],"name":"t"}]}`, []string{`error|name-not-first|"stack"|stack precedes the name`}},
		{"metrics", `{"metrics":[{"report":"*","us_schedule":1,"name":"m"},{"name":"n","report":"*"}]}`, []string{`error|name-not-first|"report"|the metric policy before "m"`}},
		{"what lws ignores may stand first", `{"metrics":[{"note":1,"name":"m","report":"*"}]}`, nil},
		{"auth in any order", `{"auth":[{"type":"sigv4","name":"m"}]}`, nil},
		{"three certificates in one", `{"certs":[{"a":"` + exampleRoot + `","b":"` + exampleRoot2 + `","c":"` + exampleExpired + `"},{}]}`,
			[]string{`error|joined-certs|"a"|certificate "a" is lost`, `error|joined-certs|"b"|certificate "b" is lost`}},
		{"stack with one twice", trust([]string{"c", exampleRoot}, []string{"t", `["c","c"]`}, []string{"a", trusts}), []string{`warning|repeated-cert|"c"|already in trust store "t"`}},
		{"same certificate by two names", one("c", exampleRoot, "d", exampleRoot), []string{`info|repeated-cert|"d"|certificate "d" is the same as "c"`}},
		{"one certificate in two stores", trust([]string{"c", exampleRoot}, []string{"t", `["c"]`, "u", `["c"]`}, []string{"a", trusts, "b", tls + `,"tls_trust_store":"u"`}), nil},

		// Certificates.
		{"root", one("c", exampleRoot), nil},
		{"no padding", one("c", strings.TrimRight(exampleRoot2, "=")), nil},
		{"root and intermediate", one("i", exampleIntermediate, "r", exampleRoot), nil},
		{"server's own", one("c", exampleServer), nil},
		{"cut short", one("c", base64Of(der(exampleRoot)[:100])), []string{`error|cert-unreadable|"c"|its DER is not an X.509 certificate`}},
		{"damaged inside", one("c", base64Of(append(slices.Clone(der(exampleRoot)[:20]), append([]byte{0xff}, der(exampleRoot)[21:]...)...))), []string{`warning|cert-unreadable|"c"|lws may be less strict`}},
		{"not used", trust([]string{"c", "MIIB", "d", exampleExpired}, nil, nil), nil},
		{"in a store that is not used", trust([]string{"c", "MIIB"}, []string{"t", `["c"]`}, []string{"a", tls}), []string{`info|unused-definition|"t"|`}},
		{"two in one", one("c", base64Of(append(slices.Clone(der(exampleRoot)), der(exampleRoot2)...))), []string{`warning|cert-unreadable|"c"|bytes follow the certificate`}},
		{"PEM is looked into", one("c", `-----BEGIN CERTIFICATE-----\n`+exampleExpired+`\n-----END CERTIFICATE-----`), []string{`warning|cert-expiry|"c"|`}},
		{"key in a store", one("c", exampleKey), []string{`error|cert-unreadable|"c"|is a private key, and trust store "t" uses it as a certificate`}},
		{"expired", one("c", exampleExpired), []string{`warning|cert-expiry|"c"|certificate "c" expired on 2021-01-01`}},
		{"expired, and its issuer is there", one("c", exampleExpiredIntermediate, "r", exampleRoot), []string{`info|cert-expiry|"c"|expired on 2021-01-01: it can be left out, since its issuer "r" is trusted as well`}},
		{"expired, and its issuer is not in each store", trust([]string{"c", exampleExpiredIntermediate, "r", exampleRoot}, []string{"t", `["c","r"]`, "u", `["c"]`}, []string{"a", trusts, "b", tls + `,"tls_trust_store":"u"`}),
			[]string{`warning|cert-expiry|"c"|expired on 2021-01-01`}},
		{"not yet valid", one("c", exampleFuture), []string{`warning|cert-not-yet-valid|"c"|certificate "c" is not valid before 2098-01-01`}},
		{"not a CA", one("c", exampleLeaf), []string{`warning|cert-not-ca|"c"|in trust store "t", is not a CA's`}},
		{"no root", one("i", exampleIntermediate), []string{`info|incomplete-chain|"i"|is issued by "CN=sspolicy test root", which is not in trust store "t"`}},
		{"root in another store", trust([]string{"i", exampleIntermediate, "r", exampleRoot}, []string{"t", `["i"]`, "u", `["r"]`}, []string{"a", trusts, "b", tls + `,"tls_trust_store":"u"`}), []string{`info|incomplete-chain|"i"|`}},
		{"weak signature", one("i", exampleSHA1, "r", exampleWeak), []string{`warning|weak-cert|"i"|the signature of certificate "i" is weak: SHA1-RSA`, `warning|weak-cert|"r"|the key of certificate "r" is weak: RSA of 1024 bits`}},
		{"3018 bytes", trust([]string{"c", derOf(3018)}, nil, nil), nil},
		{"3019 bytes", trust([]string{"c", derOf(3019)}, nil, nil), []string{`error|cert-too-big|"c"|lws takes 3018 bytes of DER, and it has 3019`}},
		{"line ends count", trust([]string{"c", strings.Repeat(derOf(3018)[:40]+`\n`, 1)[:40] + `\n\n` + derOf(3018)[40:]}, nil, nil), []string{`error|cert-too-big|"c"|the base64 of certificate "c" is too long for its 3018 bytes of DER`}},

		// Servers.
		{"server with SEC 1 key", trust([]string{"id", exampleServer, "key", exampleServerKey}, nil, []string{"a", serves}), []string{`info|private-key|"key"|is the private key of streamtype "a"`}},
		{"server with another key", trust([]string{"id", exampleServer, "key", exampleKey}, nil, []string{"a", serves}), []string{`error|key-mismatch|"key"|the key "key" does not belong to certificate "id"`}},
		{"server with PKCS #8 key", trust([]string{"id", exampleLeaf, "key", exampleKey}, nil, []string{"a", serves}), []string{`info|private-key|"key"|`}},
		{"mixed up", trust([]string{"key", exampleLeaf, "id", exampleKey}, nil, []string{"a", serves}),
			[]string{`error|cert-unreadable|"key"|is a certificate, and streamtype "a" uses it as its private key`, `error|cert-unreadable|"id"|is a private key, and streamtype "a" uses it as a certificate`}},
		{"unused key", trust([]string{"key", exampleKey}, nil, nil), []string{`warning|private-key|"key"|no server uses it`}},
		{"no key", client(`"server":true,"protocol":"raw","port":1,"tls":true,"server_cert":"id"`),
			[]string{`error|server-without-cert|"tls":true|no server_key: lws crashes`, `error|undefined-reference|"id"|`}},
		{"no certificate", client(`"server":true,"protocol":"raw","port":1,"tls":true`), []string{`error|server-without-cert|"tls":true|neither server_cert nor server_key`}},
		{"no TLS", client(`"server":true,"protocol":"raw","port":1`), nil},
		{"vhost of the program", client(`"server":true,"protocol":"raw","endpoint":"!v","port":1,"tls":true`), nil},
		{"client with a server's certificate", trust([]string{"id", exampleServer}, nil, []string{"a", tls + `,"server_cert":"id"`}), []string{`error|misplaced-trust|"server_cert"|is not a server: lws uses its server_cert as a trust store, and crashes`}},
		{"client with a server's key", trust([]string{"key", exampleServerKey}, nil, []string{"a", tls + `,"server_key":"key"`}),
			[]string{`warning|private-key|"key"|`, `warning|misplaced-trust|"server_key"|does not use server_key`}},
		{"server with a trust store", trust([]string{"c", exampleRoot}, []string{"t", `["c"]`}, []string{"a", `"server":true,"protocol":"raw","port":1,"tls_trust_store":"t"`}), []string{`warning|misplaced-trust|"tls_trust_store"|does not use a trust store`}},
		{"server with a trust store for its certificate", trust([]string{"c", exampleRoot, "id", exampleServer, "key", exampleServerKey}, []string{"t", `["c"]`}, []string{"a", serves + `,"tls_trust_store":"t"`}),
			[]string{`info|private-key|"key"|`, `error|misplaced-trust|"tls_trust_store"|uses its trust store as its certificate`}},

		// TLS.
		{"trust without TLS", trust([]string{"c", exampleRoot}, []string{"t", `["c"]`}, []string{"a", `"endpoint":"example.com","port":443,"tls_trust_store":"t"`}), []string{`warning|trust-without-tls|"tls_trust_store"|it is not encrypted`}},
		{"plain to 443", client(`"endpoint":"example.com","port":443`), []string{`warning|tls-port|443|port 443 is for TLS`}},
		{"TLS to 80", client(`"endpoint":"example.com","port":80,"tls":true`), []string{`warning|tls-port|80|port 80 is for connections without TLS`}},
		{"plain to 8883", client(`"endpoint":"example.com","port":8883,"protocol":"mqtt"`), []string{`warning|tls-port|8883|`}},
		{"http to 8883", client(`"endpoint":"example.com","port":8883`), nil},
		{"raw to 443", client(`"endpoint":"example.com","port":443,"protocol":"raw"`), nil},
		{"socket", client(`"endpoint":"+@x","port":443`), nil},
		{"https without TLS", client(`"endpoint":"https://example.com","port":443`), []string{`error|endpoint-scheme|https://|does not turn TLS on`}},
		{"ws with TLS", client(`"endpoint":"ws://example.com","port":80,"tls":true,"protocol":"ws"`), []string{`warning|endpoint-scheme|ws://|turns TLS off`}},
		{"https with TLS", client(`"endpoint":"https://example.com/a","port":443,"tls":true,"http_url":"a"`), nil},
		{"file", client(`"endpoint":"file:///etc/motd"`), nil},
		{"path in the endpoint", client(`"endpoint":"https://example.com/a","port":443,"tls":true,"http_url":"b"`), []string{`warning|endpoint-override|"https|lws requests "/a", and http_url is not used`}},
		{"port in the endpoint", client(`"endpoint":"example.com:81","port":82`), []string{`warning|endpoint-override|"example|the endpoint says port 81, and the port of streamtype "a" is not used`}},
		{"port and path", client(`"endpoint":"https://example.com","port":8443,"tls":true,"http_url":"b"`), []string{`warning|endpoint-override|"https|lws requests "/" from port 443, and port and http_url are not used`}},
		{"port in brackets", client(`"endpoint":"[2001:db8::1]:81","port":81`), nil},
		{"IPv6", client(`"endpoint":"2001:db8::1","port":81`), []string{`error|endpoint-override|"2001|lws uses "2001" as the host`}},
		{"IPv6 that works", client(`"endpoint":"::1","port":81,"http_url":"x"`), nil},
		{"colon in a symbol", client(`"endpoint":"${a:b}","port":81,"http_url":"x","metadata":[{"a:b":""}]`), nil},
		{"port after a symbol", client(`"endpoint":"${h}:81","port":81,"http_url":"x","metadata":[{"h":""}]`), []string{`warning|endpoint-override|"${h}:81"|http_url is not used`}},
		{"policy from a loopback address", trust(nil, nil, []string{"fetch_policy", `"endpoint":"127.0.0.1","port":80`}), nil},
		{"policy in clear", trust(nil, nil, []string{"fetch_policy", `"endpoint":"example.com","port":80`}), []string{`warning|plain-fetch-policy|"fetch_policy"|an attacker on the network path can replace it`}},

		// Secrets.
		{"basic", client(tls + `,"http_auth_preamble":"Basic dXNlcjpwYXNz"`), []string{`warning|embedded-secret|dXNlcjpwYXNz|write "Basic ", and let the program give the rest`}},
		{"basic without credentials", client(tls + `,"http_auth_preamble":"Basic dXNlcnBhc3M="`), nil},
		{"bearer", client(tls + `,"http_auth_preamble":"Bearer 0123456789abcdef"`), []string{`warning|embedded-secret|0123456789abcdef|holds credentials`}},
		{"what tokens follow", client(tls + `,"http_auth_preamble":"AWS4-HMAC-SHA256 Credential="`), nil},
		{"bearer alone", client(tls + `,"http_auth_preamble":"Bearer "`), nil},
		{"a value in the place of a header", client(tls + `,"http_auth_header":"Bearer eyJhbGciOiJIUzI1NiJ9"`), []string{`warning|embedded-secret|Bearer eyJhbGciOiJIUzI1NiJ9|http_auth_header is the name of a header`}},
		{"a token in the place of a header", client(tls + `,"http_auth_header":"eyJhbGciOiJIUzI1NiJ9"`), []string{`warning|embedded-secret|eyJhbGciOiJIUzI1NiJ9|http_auth_header is the name of a header`}},
		{"header with its value", client(tls + `,"http_auth_header":"authorization: Bearer abc"`), []string{`warning|embedded-secret| Bearer abc|http_auth_header is the name of a header`}},
		{"password of a proxy", `{"via-socks5":"user:pass@127.0.0.1:1080"}`, []string{`warning|embedded-secret|pass|via-socks5 holds a password`}},
		{"proxy", `{"via-socks5":"127.0.0.1:1080"}`, nil},
		{"password in an endpoint", client(`"endpoint":"https://user:pass@example.com","port":443,"tls":true`), []string{`warning|embedded-secret|pass|endpoint holds a password`}},
		{"at sign in a path", url("a:b/c@d"), nil},
		{"key in a query", url("a?api_key=0123abcd&x=1"), []string{`warning|embedded-secret|0123abcd|http_url holds a secret`}},
		{"key in a query by metadata", with("a?api_key=${k}", `{"k":""}`), nil},
		{"AWS", client(tls + `,"metadata":[{"k":"x-id: ` + `AKIA` + `IOSFODNN7EXAMPLE"}]`), []string{`warning|embedded-secret|AKIAIOSFODNN7EXAMPLE|this is an AWS access key id`}},
		{"GitHub", url("a/" + "ghp" + "_" + strings.Repeat("a1", 18)), []string{`warning|embedded-secret|ghp_|this is a GitHub token`}},
		{"PEM key", client(tls + `,"payload_fmt":"-----BEGIN EC ` + `PRIVATE KEY-----\nMIGH\n-----END EC ` + `PRIVATE KEY-----"`), []string{`warning|embedded-secret|"-----BEGIN|this is a private key`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := lint.Options{At: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)}
			d := schema.Parse("p", []byte(test.policy))
			found := lint.Run(d, trustRules, o)
			for i, g := range found {
				got := fmt.Sprintf("%s|%s|%s|%s", g.Severity, g.Rule, g.Span.Text(), g.Message)
				if i >= len(test.want) {
					t.Errorf("found %s", got)
					continue
				}
				want := strings.SplitN(test.want[i], "|", 4)
				if g.Severity.String() != want[0] || g.Rule != want[1] || !strings.HasPrefix(g.Span.Text(), want[2]) || !strings.Contains(g.Message, want[3]) {
					t.Errorf("found %s, want %s", got, test.want[i])
				}
			}
			if len(found) < len(test.want) {
				t.Errorf("not found: %q", test.want[len(found):])
			}
			for _, g := range found {
				if len(g.Fixes) > 0 {
					testFix(t, d, g, o)
				}
			}
		})
	}
}

// testFix checks that the fix of a diagnostic removes it and causes no other.
func testFix(t *testing.T, d *schema.Document, g schema.Diagnostic, o lint.Options) {
	t.Helper()
	text := schema.ApplyEdits(d.Source, g.Fixes[0].Edits)
	fixed := schema.Parse("fixed", []byte(text))
	if len(fixed.Syntax) > 0 {
		t.Fatalf("%s: fixed as %s: %v", g.Message, text, fixed.Syntax)
	}
	errors := 0
	for _, f := range lint.Run(d, trustRules, o) {
		errors += int(f.Severity) / int(schema.Error)
	}
	for _, f := range lint.Run(fixed, trustRules, o) {
		if errors -= int(f.Severity) / int(schema.Error); errors < 0 || f.Rule == g.Rule && f.Message == g.Message {
			t.Errorf("%s: fixed as %s, where there is: %s", g.Message, text, f.Message)
		}
	}
}

// TestPEM checks the message about certificates in PEM, the most common form.
func TestPEM(t *testing.T) {
	for _, policy := range []string{
		one("c", `-----BEGIN CERTIFICATE-----\n`+exampleRoot[:64]+`\n`+exampleRoot[64:]+`\n-----END CERTIFICATE-----\n`),
		one("c", "-----BEGIN CERTIFICATE-----"+exampleRoot+"-----END CERTIFICATE-----"),
		trust([]string{"c", `-----BEGIN EC PRIVATE KEY-----\n` + exampleServerKey + `\n-----END EC PRIVATE KEY-----`}, nil, nil),
	} {
		d := schema.Parse("p", []byte(policy))
		found := lint.Run(d, []*lint.Rule{certEncoding}, lint.Options{})
		if len(found) != 1 || !strings.Contains(found[0].Message, `certificate "c" is PEM`) {
			t.Fatalf("found %v", found)
		}
		if strings.Contains(policy, "PRIVATE KEY") != (len(found[0].Fixes) == 0) {
			t.Errorf("fixes: %v", found[0].Fixes)
		} else if len(found[0].Fixes) > 0 {
			testFix(t, d, found[0], lint.Options{})
		}
	}
}

func TestCertWarn(t *testing.T) {
	d := schema.Parse("p", []byte(one("c", exampleRoot)))
	for _, test := range []struct {
		at   string
		days int
		want string
	}{
		{"2099-11-30", 30, ""},
		{"2099-12-01", 31, `certificate "c" expires on 2099-12-31, in 30 days`},
		{"2099-12-31", 0, ""},
		{"2099-12-31", 1, `certificate "c" expires on 2099-12-31, in 0 days`},
		{"2100-01-01", 0, `certificate "c" expired on 2099-12-31`},
		{"2019-12-31", 0, `certificate "c" is not valid before 2020-01-01`},
		{"2020-01-01", 0, ""},
	} {
		at, err := time.Parse(time.DateOnly, test.at)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, g := range lint.Run(d, trustRules, lint.Options{At: at, CertWarn: time.Duration(test.days) * 24 * time.Hour}) {
			got = append(got, g.Message)
		}
		if got := strings.Join(got, "; "); got != test.want {
			t.Errorf("on %s, %d days ahead: %q, want %q", test.at, test.days, got, test.want)
		}
	}
}

// TestSecretsAreNotRepeated checks that a secret is reported, but never quoted in a
// message.
func TestSecretsAreNotRepeated(t *testing.T) {
	secret := "S3cr" + "etS3cretS3cret"
	for _, policy := range []string{
		`{"via-socks5":"user:` + secret + `@h:1"}`,
		client(tls + `,"http_auth_preamble":"Bearer ` + secret + `"`),
		client(tls + `,"http_auth_preamble":"Bearer\u0020` + secret + `"`),
		url443("https://user:" + secret + "@example.com/"),
		client(tls + `,"http_url":"x?password=` + secret + `"`),
	} {
		d := schema.Parse("p", []byte(policy))
		if found := lint.Run(d, []*lint.Rule{embeddedSecret}, lint.Options{}); len(found) != 1 {
			t.Errorf("%s: found %v", policy, found)
		}
		for _, g := range lint.Run(d, All(), lint.Options{}) {
			if strings.Contains(g.Message, secret) {
				t.Errorf("the message repeats the secret: %s", g.Message)
			}
		}
	}
}

// BenchmarkTrust lints policies in which each streamtype has its own trust store and
// certificate: the time must be proportional to the size.
func BenchmarkTrust(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var certs, stores, streams []string
			for i := range n {
				certs = append(certs, fmt.Sprint("cert", i), exampleRoot)
				stores = append(stores, fmt.Sprint("store", i, "."), fmt.Sprintf(`["cert%d"]`, i))
				streams = append(streams, fmt.Sprint("stream", i), tls+fmt.Sprintf(`,"tls_trust_store":"store%d.","http_url":"a/${m}","metadata":[{"m":""}]`, i))
			}
			text := trust(certs, stores, streams)
			d := schema.Parse("p", []byte(text))
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				lint.Run(d, trustRules, lint.Options{})
			}
		})
	}
}

func url443(endpoint string) string {
	return client(`"endpoint":"` + endpoint + `","port":443,"tls":true`)
}

// TestTrustOfRealPolicies checks that the policies that ship with lws have exactly these
// findings, each of which is correct.
func TestTrustOfRealPolicies(t *testing.T) {
	corpus := os.Getenv("SSPOLICY_CORPUS")
	if corpus == "" {
		t.Skip("SSPOLICY_CORPUS is not set")
	}
	files, err := filepath.Glob(filepath.Join(corpus, "lws", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies in %s: %v", corpus, err)
	}
	var got []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		d := schema.Parse(filepath.Base(f), text)
		for _, g := range lint.Run(d, trustRules, lint.Options{At: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), CertWarn: 30 * 24 * time.Hour}) {
			got = append(got, fmt.Sprintf("%s %s %s %s", d.Source.Name, g.Severity, g.Rule, g.Span.Text()))
		}
	}
	if d := cmp.Diff(realTrustFindings, got); d != "" {
		t.Error(d)
	}
}

// realTrustFindings are the file, severity, rule and text of the findings.
var realTrustFindings = []string{
	`v4.1.6-metadata.json info cert-expiry "LEX3_isrg_root_x1"`,
	`v4.1.6-minimal.json info cert-expiry "LEX3_isrg_root_x1"`,
	`v4.1.6-proxy.json info cert-expiry "LEX3_isrg_root_x1"`,
	`v4.1.6-seq.json info cert-expiry "LEX3_isrg_root_x1"`,
	`v4.3.10-minimal-direct.json error undefined-reference "le_via_dst"`,
	`v4.3.10-minimal-ostrust-direct-socks.json error undefined-reference "le_via_dst"`,
	`v4.5.8-api-test-secure-streams-socks.json info unused-definition "amz"`,
	`v4.5.8-api-test-secure-streams.json info unused-definition "amz"`,
	`v4.5.8-embedded-esp-c3dev.json info cert-expiry "LEX3_isrg_root_x1"`,
	`v4.5.8-sink-hello-world-example-policy.json info unused-definition "default"`,
	`v4.5.8-sink-hello-world-example-policy.json info unused-definition "le_via_isrg"`,
	`v4.5.8-staticpolicy-static-header-original.json info cert-expiry "LEX3_isrg_root_x1"`,
	`v5.0.0-api-test-secure-streams-socks.json info unused-definition "amz"`,
	`v5.0.0-api-test-secure-streams.json info unused-definition "amz"`,
	`v5.0.0-embedded-esp-c3dev.json info cert-expiry "LEX3_isrg_root_x2"`,
	`v5.0.0-minimal-ostrust-direct-socks.json error undefined-reference "le_via_isrg"`,
	`v5.0.0-sink-hello-world-example-policy.json info unused-definition "default"`,
	`v5.0.0-sink-hello-world-example-policy.json error joined-certs "isrg_root_x1"`,
	`v5.0.0-sink-hello-world-example-policy.json info unused-definition "le_via_isrg"`,
	`v5.0.0-staticpolicy-static-header-original.json warning cert-expiry "LEX3_isrg_root_x2"`,
	`v5.0.0-staticpolicy-static-policy.json error joined-certs "isrg_root_x1"`,
	`v5.0.0-staticpolicy-static-policy.json info unused-definition "isrg_root_x1"`,
	`v5.0.0-staticpolicy-static-policy.json warning cert-expiry "LEX3_isrg_root_x2"`,
	`v5.0.0-stress-ostrust-direct-socks.json error undefined-reference "le_via_isrg"`,
}
