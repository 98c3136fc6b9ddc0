package rules

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

// protocolRules are the rules under test: rules of shape that are not in the JSON Schema,
// rules of protocols, and rules about policy2c.
var protocolRules = []*lint.Rule{
	backoffCut, badAuth, badContentType, badEndpoint, badHeader, badPreamble, badProxy, badSubprotocol, badTopic, badURL, bothRedirects, bufferThresholds, captivePortal, defaultJitter, dottedName, doubleContentLength, duplicateItem,
	emptyPolicy, expectedStatusMapped, finiteConceal, h3Transport, hammering, headerCase, headerColon, headerPrefix, headersOnWS, latePing,
	leadingSlash, leadingText, literalSymbol, lockstep, longEndpoint, longName, longNumber, lowState, methodOnWS, missingEndpoint, missingMethod, missingPort,
	missingTopic, missingURL, nailedUpWithoutRetry, networkPriority, nulCharacter, opportunisticNailedUp, optionsKey,
	policy2cLosses, policy2cOrder, policy2cStrings, plainText, policy2cSymbols, proxiedName, rideshareMismatch, secretInClear, serverMetadata, sharedPort, sharedStorage,
	shortString, splitConnection, surrogatePair, systemStreamtype, tooDeep, unequalMQTT, unknownMethod, unreachableStatus, unwatchedConnection, wrongProtocol,
	wrongRole,
}

// The policies of these tests: a streamtype "a" of a protocol, with additional keys.
func h1(more string) string {
	return stream(`"endpoint":"example.com","port":80,"protocol":"h1","http_method":"GET","http_url":"x"`, more)
}

func ws(more string) string {
	return stream(`"endpoint":"example.com","port":80,"protocol":"ws"`, more)
}

func mqtt(more string) string {
	return stream(`"endpoint":"example.com","port":1883,"protocol":"mqtt"`, more)
}

func raw(more string) string {
	return stream(`"endpoint":"example.com","port":22,"protocol":"raw"`, more)
}

func stream(keys, more string) string {
	if keys != "" && more != "" {
		keys += ","
	}
	return `{"s":[{"a":{` + keys + more + `}}]}`
}

// scheme is a backoff scheme, and a streamtype that names it.
func scheme(keys, streamKeys string) string {
	return `{"retry":[{"r":{` + keys + `}}],` + raw(`"retry":"r"` + streamKeys)[1:]
}

func endpointOf(endpoint string) string {
	return stream(`"port":80,"protocol":"h1","http_method":"GET","http_url":""`, `"endpoint":"`+endpoint+`","metadata":[{"m":""}]`)
}

func urlOf(url string) string {
	return stream(`"endpoint":"x.org","port":80,"protocol":"h1","http_method":"GET"`, `"http_url":"`+url+`","metadata":[{"m":""}]`)
}

func h3(more string) string {
	return stream(`"endpoint":"example.com","port":443,"protocol":"h3","http_method":"GET","http_url":"x"`, more)
}

// twoH2 are two streamtypes of one server, each with additional keys.
func twoH2(a, b string) string {
	stream := func(name, more string) string {
		if more != "" {
			more = "," + more
		}
		return `{"` + name + `":{"endpoint":"x.org","port":443,"tls":true,"protocol":"h2"` + more + `}}`
	}
	return `{"s":[` + stream("a", a) + "," + stream("b", b) + `]}`
}

// auth is a streamtype that uses an auth scheme of a type.
func auth(typ, more string) string {
	return `{"auth":[{"name":"x","type":"` + typ + `","blob":0}],` + h1(`"use_auth":"x","metadata":[{"r":""}]` + strings.Repeat(",", min(1, len(more))) + more)[1:]
}

func lws(major, minor int) []schema.Version { return []schema.Version{{Major: major, Minor: minor}} }

func TestProtocolRules(t *testing.T) {
	tested := map[*lint.Rule]bool{}
	for _, test := range []struct {
		rule   *lint.Rule
		policy string
		lws    []schema.Version
		want   []string // severity, text at the span, and part of the message
	}{
		{leadingText, ` {"s":[]}`, nil, []string{"warning| |name of a file"}},
		{leadingText, ` {"s":[]}`, lws(4, 2), nil},
		{leadingText, `{"s":[]} `, nil, nil},
		{leadingText, ``, nil, nil},
		{emptyPolicy, `{}`, nil, []string{"warning|{|no streamtype"}},
		{emptyPolicy, `{"retry":[{"r":{"backoff":[1]}}]}`, nil, []string{"warning|{|no streamtype"}},
		{emptyPolicy, `{"s":[]}`, nil, []string{"warning|s|no streamtype"}},
		{emptyPolicy, `{"s":[{"a":{}}]}`, nil, nil},
		{emptyPolicy, `{"s":{"a":{}}}`, nil, nil}, // a wrong-type
		{emptyPolicy, `{}`, lws(4, 1), []string{"error|{}|lws 4.1 refuses"}},
		{emptyPolicy, `{"s":[{}]}`, lws(4, 1), nil},

		{tooDeep, h1(`"metadata":[{"m":"x:"}]`), lws(4, 1), nil},
		{tooDeep, `{"retry":[],"certs":[],"trust_stores":[],` + h1(`"metadata":[{"m":"x:"}]`)[1:], lws(4, 1), nil},
		{tooDeep, `{"retry":[],"certs":[],"trust_stores":[],"auth":[],` + h1(`"metadata":[{"m":"x:"}]`)[1:], lws(4, 1), []string{"error|[|this is array 6"}},
		{tooDeep, `{"retry":[],"certs":[],"trust_stores":[],"auth":[],` + h1(`"metadata":[{"m":"x:"}]`)[1:], lws(4, 2), nil},
		{tooDeep, `{"release":"1","x":` + nested(10) + `}`, lws(4, 3), nil},
		{tooDeep, `{"release":"1","x":` + nested(11) + `}`, lws(4, 3), []string{"error|{|nested 11 deep: lws 4.3 reads 10"}},
		{tooDeep, `{"release":"1","x":` + nested(14) + `}`, lws(4, 5), nil},
		{tooDeep, `{"release":"1","x":` + nested(15) + `}`, lws(4, 5), []string{"error|{|nested 15 deep"}},
		{tooDeep, `{"release":"1","x":` + nested(62) + `}`, nil, nil},
		{tooDeep, `{"release":"1","x":` + nested(63) + `}`, nil, []string{"error|{|nested 63 deep"}},
		{tooDeep, `{"release":"1","x":` + strings.Repeat("[", 63) + "1" + strings.Repeat("]", 63) + `}`, nil, nil},
		{tooDeep, `{"release":"1","x":` + strings.Repeat("[", 63) + `"1"` + strings.Repeat("]", 63) + `}`, nil, []string{"error|[|nested 63 deep"}},
		{tooDeep, `{"release":"1","x":{"a":[1],"b":[1],"c":[1],"d":[1],"e":[1],"f":[1]}}`, lws(4, 1), nil},

		{certEncoding, `{"certs":[{"c":"` + exampleRoot + `\n"}]}`, lws(4, 3), []string{`warning|MII|lws 4.3 appends a byte`}},
		{certEncoding, `{"certs":[{"c":"` + exampleRoot + ` "}]}`, lws(4, 5), []string{`error|MII|lws 4.5 does not read base64 with spaces`}},
		{certEncoding, `{"certs":[{"c":"` + exampleRoot + ` "}]}`, nil, nil},
		{certEncoding, `{"certs":[{"c":"` + exampleRoot[:64] + `\n` + exampleRoot[64:] + `"}]}`, lws(4, 3), nil},

		{longName, named(112, `"metadata":[{"m":"x:"}]`), nil, nil},
		{longName, named(113, `"metadata":[{"m":"x:"}]`), nil, []string{"error|nnn|over 112 bytes lws loses the items of metadata"}},
		{longName, named(113, `"metadata":[]`), nil, nil},
		{longName, named(107, `"http_resp_map":[{"404":1404}]`), nil, nil},
		{longName, named(108, `"http_resp_map":[{"404":1404}]`), nil, []string{"error|nnn|over 107 bytes"}},
		{longName, named(118, `"port":1`), lws(4, 3), nil}, // s[]. + 118 + .port = 127
		{longName, named(119, `"port":1`), lws(4, 3), []string{"error|port|has 128 bytes, and lws 4.3 has room for 127"}},
		{longName, named(182, `"port":1`), nil, nil},
		{longName, named(183, `"port":1`), nil, []string{"error|port|has 192 bytes, and lws 5.0 has room for 191"}},
		{longName, named(112, `"plugins":[]`), lws(4, 3), nil},
		{longName, named(113, `"plugins":[]`), lws(4, 3), []string{"error|plugins|has 125 bytes, and lws 4.3 has room for 124"}},
		{longName, named(113, `"plugins":[]`), lws(4, 4), nil},

		{longEndpoint, stream(`"endpoint":"`+strings.Repeat("e", 95)+`"`, ""), lws(4, 4), nil},
		{longEndpoint, stream(`"endpoint":"`+strings.Repeat("e", 96)+`"`, ""), lws(4, 4), []string{"error|eee|has 96 bytes, and lws 4.4"}},
		{longEndpoint, stream(`"endpoint":"`+strings.Repeat("e", 191)+`"`, ""), lws(4, 5), nil},
		{longEndpoint, stream(`"endpoint":"`+strings.Repeat("e", 240)+`"`, ""), nil, []string{"error|eee|has 240 bytes"}},
		{longEndpoint, stream(`"endpoint":"${x}`+strings.Repeat("e", 239)+`"`, ""), nil, nil},
		{unsupportedVersion, `{"auth":[{"name":"x"}],"metrics":[{"name":"x"}]}`, lws(4, 1), []string{"error|auth|4.2", "error|metrics|4.2"}},
		{unsupportedVersion, stream(`"endpoint":"file:///x"`, ""), lws(4, 3), []string{"error|file:///x|4.4"}},
		{unsupportedVersion, stream(`"endpoint":"file:///x"`, ""), lws(4, 4), nil},

		{dottedName, `{"s":[{"a.b":{}}]}`, lws(4, 1), []string{"error|a.b|a phantom streamtype of each key"}},
		{dottedName, `{"s":[{"a.port":{}}]}`, nil, []string{"error|a.port|reads this name as the key port"}},
		{dottedName, `{"s":[{"a[b":{}}]}`, lws(4, 3), nil},
		{dottedName, `{"s":[{"a[b":{}}]}`, lws(4, 4), []string{"error|a[b|lws 4.4 loses the keys"}},
		{dottedName, `{"retry":[{"a.b":{}}],"certs":[{"a.b":""}],"trust_stores":[{"name":"a.b"}]}`, nil, []string{"error|a.b|backoff scheme empty"}},
		{dottedName, h1(`"metadata":[{"a.b":"x:"}]`), nil, nil},
		{dottedName, `{"s":[{"a*b":{}}]}`, nil, nil},

		{nulCharacter, h1(`"payload_fmt":"a\u0000b"`), nil, []string{`error|a\u0000b|ends the string`}},
		{nulCharacter, `{"s":[{"a\u0000":{}}]}`, nil, []string{`error|a\u0000|ends the string`}},
		{nulCharacter, h1(`"payload_fmt":"a\\u0000b\u0001"`), nil, nil},
		{surrogatePair, h1(`"payload_fmt":"x\ud83d\uDE00y"`), nil, []string{`error|\ud83d\uDE00|write 😀`}},
		{surrogatePair, h1(`"payload_fmt":"\udc00"`), nil, nil}, // a bad-value
		{surrogatePair, h1(`"payload_fmt":"\\ud83d \u00e9 \ue000"`), nil, nil},
		{longNumber, `{"schema-version":00000000000000000001}`, nil, nil},
		{longNumber, `{"schema-version":000000000000000000001}`, nil, []string{"error|000|has 21 digits"}},
		{longNumber, `{"schema-version":-12345678901234567890,"x":1234567890.1234567890}`, nil, nil},

		{backoffCut, `{"retry":[{"r":{"backoff":[1,2]}},{"q":{"backoff":[1,2]}}]}`, nil, []string{"info|[1,2]|keeps only the first"}}, // once per file
		{backoffCut, `{"retry":[{"r":{"backoff":[1,2]}}]}`, nil, []string{"info|[1,2]|lws 5.0 keeps only the first of these 2 waits, 1"}},
		{backoffCut, `{"retry":[{"r":{"backoff":[1,2]}}]}`, lws(4, 3), nil},
		{backoffCut, `{"retry":[{"r":{"backoff":[1]}},{"q":{}}]}`, nil, nil},
		{optionsKey, h1(`"options":[]`), nil, []string{"error|options|every later key of streamtype"}},
		{optionsKey, h1(`"Options":[]`), nil, nil}, // an unknown-key

		{shortString, `{"s":[{"a":{"http_url":"/"}},{"b":{"http_url":"/"}}]}`, nil, []string{"info|/|bytes of a number"}}, // once per file
		{shortString, stream("", `"endpoint":"ee.org","http_url":"/"`), nil, []string{`info|/|bytes of a number`}},
		{shortString, stream("", `"endpoint":"ee","http_url":"","retry":"r"`), nil, nil},
		{shortString, stream("", `"opportunistic":true,"nailed_up":true,"urgent_tx":true,"urgent_rx":true,"long_poll":true,"http_url":"/","tls":true`), nil,
			[]string{`warning|/|tls changes it to "?"`}},
		{shortString, stream("", `"opportunistic":true,"nailed_up":true,"urgent_tx":true,"urgent_rx":true,"long_poll":true,"http_url":"/"`), nil, []string{`info|/|`}},
		{shortString, stream("", `"opportunistic":true,"nailed_up":true,"urgent_tx":true,"urgent_rx":true,"long_poll":true,"http_url":"/","tls":false`), nil, []string{`info|/|`}},

		{missingEndpoint, stream(`"port":1`, ""), nil, []string{"error|a|crashes"}},
		{missingEndpoint, stream(`"port":1,"endpont":"x"`, ""), nil, nil}, // an unknown-key
		{missingEndpoint, stream(`"port":1,"server":true`, ""), nil, nil},
		{missingEndpoint, stream(`"local_sink":true`, ""), nil, nil},
		{missingEndpoint, stream(`"protocol":"raw"`, ""), nil, nil}, // the program provides the connection
		{missingEndpoint, stream(`"protocol":"raw"`, ""), lws(4, 3), []string{"error|a|lws 4.3 crashes when it connects, and cannot adopt"}},
		{missingEndpoint, stream(`"protocol":"raw","nailed_up":true`, ""), nil, []string{"error|a|crashes"}},

		{badEndpoint, endpointOf(`x.org`), nil, nil},
		{badEndpoint, endpointOf(`@SERVER@`), nil, []string{"error|@SERVER@|is a placeholder"}},
		{certEncoding, `{"certs":[{"c":"%s"}]}`, nil, []string{"error|%s|is a placeholder"}},
		{badEndpoint, endpointOf(`x.org/api`), nil, []string{"error|x.org/api|cannot hold '/'; the path belongs in http_url"}},
		{badEndpoint, endpointOf(` x.org`), nil, []string{"error| x.org|remove the white space"}},
		{badEndpoint, endpointOf(`https//x.org`), nil, []string{`error|https//x.org|"://" follows the scheme`}},
		{badEndpoint, endpointOf(`exa mple.com`), nil, []string{"error|exa mple.com|cannot hold ' '"}},
		{badEndpoint, endpointOf(`//x.org`), nil, []string{"error|//x.org|cannot hold '/'"}},
		{badEndpoint, endpointOf(`x.org#top`), nil, []string{"error|x.org#top|cannot hold '#'"}},
		{badEndpoint, endpointOf(`x.org?x=1`), nil, []string{"error|x.org?x=1|cannot hold '?'"}},
		{badEndpoint, endpointOf(`192.168.0.300`), nil, []string{"error|192.168.0.300|not an IPv4 address"}},
		{badEndpoint, endpointOf(`192.168.0.30`), nil, nil},
		{badEndpoint, endpointOf(`*.example.com`), nil, []string{"error|*.example.com|cannot hold '*'"}},
		{badEndpoint, endpointOf(`a..b`), nil, []string{"error|a..b|an empty label"}},
		{badEndpoint, endpointOf(`a.b.`), nil, nil},
		{badEndpoint, endpointOf(`my_host`), nil, nil},
		{badEndpoint, endpointOf(strings.Repeat("a", 64) + `.org`), nil, []string{"error|aaa|more than 63 bytes"}},
		{badEndpoint, endpointOf(`me@x.org:80`), nil, []string{"error|me@x.org:80|user name in the URL"}},
		{badEndpoint, endpointOf(`x.org:99999`), nil, []string{"error|x.org:99999|bad port"}},
		{badEndpoint, endpointOf(`http://x.org:8080/a?b=c`), nil, nil},
		{badEndpoint, endpointOf(`https://x.org`), nil, nil}, // an endpoint-scheme
		{badEndpoint, endpointOf(`[::1]:80`), nil, nil},
		{badEndpoint, endpointOf(`[::1`), nil, []string{"error|[::1|unbalanced brackets"}},
		{badEndpoint, endpointOf(`+/run/x.sock`), nil, nil},
		{badEndpoint, endpointOf(`+`), nil, []string{"error|+|unix socket without a name"}},
		{badEndpoint, endpointOf(`file:///tmp/x y`), nil, nil},
		{badEndpoint, endpointOf(`${m}`), nil, nil},
		{badEndpoint, endpointOf(`${m}.example.com`), nil, nil},
		{badEndpoint, endpointOf(`${m}.example.com/a`), nil, []string{"error|${m}|neither a name nor a URL"}},
		{badEndpoint, endpointOf(`${m}.exa mple.com`), nil, []string{"error|${m}|cannot hold ' '"}},
		{badEndpoint, endpointOf(`${m}:${m}`), nil, nil},
		{badEndpoint, endpointOf(`http://[${m}]:${m}/x`), nil, nil},
		{badEndpoint, endpointOf(`http://${m}/x`), nil, nil},
		{badEndpoint, endpointOf(`${m}://x.org`), nil, []string{"error|${m}|the scheme of a URL cannot come from metadata"}},
		{badEndpoint, stream(`"server":true,"port":1`, `"endpoint":"eth0:1/x"`), nil, nil},

		{badProxy, `{"via-socks5":"socks5://u:secret@h.org:1080","s":[]}`, nil, []string{`error|socks5:|not the address of a proxy`}},
		{badProxy, `{"via-socks5":"socks5://h.org:1080","s":[]}`, nil, []string{`error|socks5:|a URL: write host:port`}},
		{badProxy, `{"via-socks5":"h.org:99999","s":[]}`, nil, []string{`error|h.org:99999|"99999" is not a port`}},
		{badProxy, `{"via-socks5":"[::1]:1080","s":[]}`, nil, []string{`error|[::1]:1080|lws does not read the IPv6 address`}},
		{badProxy, `{"via-socks5":"a..b:1080","s":[]}`, nil, []string{`error|a..b:1080|an empty label`}},
		{badProxy, `{"via-socks5":"` + strings.Repeat("u", 96) + `:p@h.org:1080","s":[]}`, nil, []string{`error|uuu|more than 95 bytes`}},
		{badProxy, `{"via-socks5":"u:p@h.org:1080","s":[]}`, nil, nil},
		{badProxy, `{"via-socks5":"h.org","s":[]}`, nil, nil}, // a bad-value
		{badProxy, h1(`"via-socks5":"[::1]:1080"`), nil, nil},
		{badProxy, h1(`"via-socks5":"ab:cd:1080"`), nil, []string{`error|ab:cd:1080|bad character`}},

		{badURL, urlOf(`a/b?c=${m}&d=%20`), nil, nil},
		{badURL, urlOf(`http://x.org/a`), nil, []string{"error|http://|the host belongs in endpoint"}},
		{badURL, urlOf(`go?to=http://x.org/a`), nil, nil},
		{badURL, urlOf(`a b`), nil, []string{"error| |write %20"}},
		{badURL, urlOf(`a\nb`), nil, []string{`error|a\nb|write %0A`}},
		{badURL, urlOf(`a#b`), nil, []string{"warning|#b|write %23"}},

		{literalSymbol, h1(`"http_auth_header":"a:","http_auth_preamble":"${token} "`), nil, []string{"warning|${token}|expands nothing in the http_auth_preamble of a client"}},
		{literalSymbol, h1(`"payload_fmt":"a$b ${"`), nil, nil},
		{literalSymbol, stream(`"server":true,"port":1`, `"endpoint":"${m}","metadata":[{"m":""}]`), nil, []string{"warning|${m}|in the endpoint of a server"}},
		{literalSymbol, urlOf(`x/$(m)/$m/{m}/%m%/${m}`), nil, []string{"warning|$(m)|write ${m}", "warning|$m|write ${m}", "warning|{m}|write ${m}", "warning|%m%|write ${m}"}},
		{literalSymbol, urlOf(`x/$(n)/$n/{n}/$mm/%20m%20`), nil, nil},
		{badSymbol, urlOf(`x/${m`), nil, []string{"error|${m|did you mean ${m}?"}},

		{badHeader, h1(`"metadata":[{"m":"X Id:"}]`), nil, []string{"error|X Id:|cannot hold ' '"}},
		{badHeader, h1(`"metadata":[{"m":"x-id: "}]`), nil, []string{"error| |only the name of a header"}},
		{badHeader, h1(`"metadata":[{"m":"coo\u212aie:"}]`), nil, []string{"error|coo|cannot hold"}},
		{badHeader, h1(`"metadata":[{"m":":"}]`), nil, []string{"error|:|is missing before the colon"}},
		{badHeader, h1(`"metadata":[{"m":"x-id:"},{"n":""},{"o":"X-ID"}]`), nil, nil},
		{badHeader, raw(`"metadata":[{"m":"not a header"}]`), nil, nil},
		{badHeader, h1(`"http_auth_header":"te:"`), nil, []string{"error|te:|frames the message"}},
		{badHeader, h1(`"http_auth_header":"x-a:","http_dsn_header":"X-A"`), nil, []string{"error|X-A|is the header of http_auth_header too"}},
		{badHeader, ws(`"http_auth_header":"sec-websocket-key:"`), nil, []string{"error|sec-websocket-key:|handshake of ws"}},
		{badHeader, h1(`"http_multipart_name":"x","http_dsn_header":"content-type:"`), nil, []string{"error|content-type:|says that the request is multipart"}},

		{badPreamble, h1(`"http_auth_header":"a:","http_auth_preamble":"Bearer\n"`), nil, []string{`error|Bearer\n|control character`}},
		{badPreamble, h1(`"http_auth_header":"a:","http_auth_preamble":"bearer"`), nil, []string{`warning|bearer|write "bearer "`}},
		{badPreamble, h1(`"http_auth_header":"a:","http_auth_preamble":"Bearer "`), nil, nil},
		{badPreamble, h1(`"http_auth_header":"a:","http_auth_preamble":"key="`), nil, nil},
		{badPreamble, h1(`"http_auth_preamble":"Bearer "`), nil, []string{`warning|http_auth_preamble|has no http_auth_header`}},

		{badContentType, h1(`"http_multipart_name":"x","http_mime_content_type":"image/png; q=1"`), nil, nil},
		{badContentType, h1(`"http_multipart_name":"x","http_mime_content_type":""`), nil, nil},
		{badContentType, h1(`"http_multipart_name":"x","http_mime_content_type":"png"`), nil, []string{"error|png|is not a media type"}},
		{badContentType, h1(`"http_multipart_name":"x\ty"`), nil, []string{`error|x\ty|control character`}},
		{badContentType, h1(`"http_multipart_name":"x","http_www_form_urlencoded":true`), nil, []string{"error|http_www_form_urlencoded|one of the two forms"}},

		{badSubprotocol, ws(`"ws_subprotocol":"a, b"`), nil, nil},
		{badSubprotocol, ws(`"ws_subprotocol":"a b"`), nil, []string{"error|a b|not the name of a subprotocol"}},

		{duplicateItem, h1(`"http_resp_map":[{"404":1404},{"404":1405}]`), nil, []string{"error|404|the status"}},
		{duplicateItem, h1(`"http_resp_map":[{"404":1404}],"http_resp_map":[{"404":1405}]`), nil, nil}, // the last one counts
		{duplicateItem, h1(`"metadata":[{"m":"a:"}],"metadata":[{"m":"b:"}]`), nil, []string{"error|m|metadata"}},
		{duplicateItem, h1(`"metadata":[{"m":"a:","n":"b:"}]`), nil, nil},

		{badAuth, auth("sigv4", `"aws_region":"r","aws_service":"r","http_auth_header":"Authorization:"`), nil, []string{"error|Authorization:|two authorization headers"}},
		{badAuth, auth("sigv4", `"aws_region":"r","aws_service":"r","http_auth_header":"x-token:"`), nil, nil},
		{badAuth, auth("sigv4", `"aws_region":"r"`), nil, []string{"error|x|has no aws_service"}},
		{badAuth, auth("sigV4", `"http_auth_header":"a:"`), nil, []string{`error|sigV4|write "sigv4"`}},
		{badAuth, auth("bearer", `"http_auth_header":"a:"`), nil, nil},
		{badAuth, auth("bearer", ``), nil, []string{"error|x|has no http_auth_header"}},
		{badAuth, strings.Replace(auth("bearer", ``), "h1", "mqtt", 1), nil, []string{"error|x|no effect on mqtt"}},
		{badAuth, strings.Replace(auth("sigv4", ``), "h1", "ws", 1), nil, []string{"error|x|the handshake of ws is not signed"}},

		{secretInClear, h1(`"http_auth_header":"a:"`), nil, []string{"warning|http_auth_header|without TLS"}},
		{secretInClear, h1(`"http_auth_header":"a:","tls":true`), nil, nil},
		{secretInClear, strings.Replace(h1(`"http_auth_header":"a:","tls":true`), "example.com", "http://x.org/", 1), nil, []string{"warning|http_auth_header|without TLS"}},
		{secretInClear, strings.Replace(h1(`"http_auth_header":"a:"`), "example.com", "127.0.0.1", 1), nil, nil},
		{secretInClear, strings.Replace(h1(`"http_auth_header":"a:","metadata":[{"m":""}]`), "example.com", "${m}", 1), nil, nil},
		{secretInClear, auth("bearer", `"http_auth_header":"a:"`), nil, []string{"warning|http_auth_header|without TLS"}},
		{secretInClear, auth("sigv4", ``), nil, []string{"warning|use_auth|without TLS"}},

		{unwatchedConnection, scheme(`"backoff":[1]`, `,"nailed_up":true`), nil, []string{"info|r|has no svalidhup"}},
		{unwatchedConnection, scheme(`"backoff":[1],"svalidping":1,"svalidhup":2`, `,"nailed_up":true`), nil, nil},
		{unwatchedConnection, scheme(`"backoff":[1]`, ``), nil, nil},
		{unwatchedConnection, strings.Replace(scheme(`"backoff":[1]`, `,"nailed_up":true,"mqtt_keep_alive":60`), `"raw"`, `"mqtt"`, 1), nil, nil},

		{lockstep, scheme(`"backoff":[1000,30000],"conceal":65535,"jitterpc":1`, ``), nil, []string{"warning|1|after 1 h without a server"}},
		{lockstep, scheme(`"backoff":[60000,1000],"conceal":65535,"jitterpc":2`, ``), nil, []string{"warning|2|in step with lws 5.0, which keeps only the first wait"}},
		{lockstep, scheme(`"backoff":[30000],"conceal":65535,"jitterpc":20`, ``), nil, nil},
		{lockstep, scheme(`"backoff":[30000],"conceal":65535`, ``), nil, nil},
		{lockstep, scheme(`"backoff":[30000],"conceal":5,"jitterpc":1`, ``), nil, nil},
		{lockstep, scheme(`"backoff":[3000],"conceal":65535,"jitterpc":1`, ``), nil, nil},
		{hammering, scheme(`"backoff":[100,1000],"conceal":65535,"jitterpc":100`, ``), nil, []string{"info|1000|a million devices try 666666 times a second"}},
		{hammering, scheme(`"backoff":[100,60000],"conceal":65535`, ``), nil, nil},
		{hammering, scheme(`"backoff":[100],"conceal":5`, ``), nil, nil},
		{hammering, scheme(`"conceal":65535`, ``), nil, []string{"info|r|every 3450 ms"}},
		{hammering, `{"retry":[{"q":{"backoff":[1],"conceal":65535}}],` + scheme(`"backoff":[1]`, ``)[1:], nil, nil}, // an unused-definition
		{hammering, strings.Replace(scheme(`"backoff":[1],"conceal":65535`, ``), `"retry":"r"`, `"retry":"rr"`, 1), nil, []string{"info|1|every 1 ms"}},

		{splitConnection, twoH2(`"client_cert":0`, ``), nil, []string{"warning|b|share a connection"}},
		{splitConnection, twoH2(`"client_cert":1`, `"client_cert":1`), nil, nil},
		{splitConnection, twoH2(`"client_cert":1`, `"client_cert":0,"tls_trust_store":"t"`), nil, nil},

		{proxiedName, `{"s":[{"` + strings.Repeat("n", 32) + `":{"client_buflen":1}}]}`, nil, []string{"warning|nnn|this has 32"}},
		{proxiedName, `{"s":[{"` + strings.Repeat("n", 31) + `":{"client_buflen":1,"metadata":[{"` + strings.Repeat("m", 31) + `":""}]}}]}`, nil, []string{"warning|mmm|this has 31"}},
		{proxiedName, `{"s":[{"` + strings.Repeat("n", 32) + `":{}}]}`, nil, nil},

		{plainText, strings.Replace(h1(``), "example.com", "10.0.0.1", 1), nil, []string{"warning|a|without TLS"}},
		{plainText, strings.Replace(h1(``), "example.com", "localhost", 1), nil, nil},

		{rideshareMismatch, `{"s":[{"a":{"protocol":"ws","rideshare":"b"}},{"b":{"protocol":"ws"}}]}`, nil, []string{"error|b|has no request to share"}},
		{rideshareMismatch, `{"s":[{"a":{"protocol":"h2","rideshare":"b"}},{"b":{}}]}`, nil, []string{"error|b|cannot share a request"}},
		{rideshareMismatch, `{"s":[{"a":{"rideshare":"b"}},{"b":{"server":true}}]}`, nil, []string{"error|b|sends no request"}},
		{rideshareMismatch, `{"s":[{"a":{"local_sink":true,"rideshare":"b"}},{"b":{}}]}`, nil, []string{"error|b|is a local sink"}},
		{rideshareMismatch, `{"s":[{"a":{"rideshare":"b"}},{"b":{}}]}`, nil, nil},

		{h3Transport, h3(`"tls":true`), nil, nil},
		{h3Transport, h3(``), nil, []string{"error|h3|always encrypted"}},
		{h3Transport, h3(`"tls":false`), nil, []string{"error|false|always encrypted"}},
		{h3Transport, h3(`"tls":true,"via-socks5":"h:1"`), nil, []string{"error|h3|SOCKS5"}},
		{h3Transport, `{"via-socks5":"h:1",` + h3(`"tls":true`)[1:], nil, []string{"error|h3|SOCKS5"}},
		{h3Transport, strings.Replace(h3(`"tls":true`), "example.com", "+/x", 1), nil, []string{"error|+/x|unix socket"}},
		{missingPort, stream(`"endpoint":"e"`, ""), nil, []string{"error|a|no port"}},
		{missingPort, stream(`"endpoint":"e","port":0`, ""), nil, []string{"error|0|no port"}},
		{missingPort, stream(`"endpoint":"e","prot":1`, ""), nil, nil},
		{missingPort, stream(`"endpoint":"http://e"`, ""), nil, nil},
		{missingPort, stream(`"endpoint":"file:///x"`, ""), nil, nil},
		{missingPort, stream(`"endpoint":"e:81"`, ""), nil, nil},
		{missingPort, stream(`"endpoint":"+@x"`, ""), nil, nil},
		{missingPort, stream(`"endpoint":"${e}"`, ""), nil, nil},
		{missingPort, stream(`"server":true`, ""), nil, []string{"error|a|the server"}},
		{missingPort, stream(`"server":true,"endpoint":"!v"`, ""), nil, nil},
		{missingPort, stream(`"server":true,"endpoint":"+/run/x"`, ""), nil, nil},
		{missingPort, stream(`"server":true,"endpoint":"eth0"`, ""), nil, []string{"error|a|the server"}},
		{missingMethod, stream(`"endpoint":"e"`, ""), nil, []string{"error|a|requests a websocket instead"}},
		{missingMethod, stream(`"endpoint":"e","protocol":"h2"`, ""), lws(4, 5), nil},
		{missingMethod, stream(`"endpoint":"e","protocol":"h2"`, ""), nil, []string{"error|a|lws 5.0 requests"}},
		{missingMethod, stream(`"endpoint":"file:///x"`, ""), nil, nil},
		{missingMethod, stream(`"server":true`, ""), nil, nil},
		{missingMethod, ws(``), nil, nil},
		{unknownMethod, stream(`"http_method":"post"`, ""), nil, []string{"error|post|GET, POST"}},
		{unknownMethod, stream(`"http_method":""`, ""), nil, []string{"error||GET, POST"}},
		{unknownMethod, stream(`"http_method":"HEAD"`, ""), nil, nil},
		{unknownMethod, stream(`"http_method":"PROPFIND","protocol":"h2"`, ""), nil, nil},
		{missingURL, ws(``), nil, []string{"error|a|lws-secstream-ws"}},
		{missingURL, ws(`"ws_subprotocol":"s"`), nil, []string{"error|a|ws_subprotocol"}},
		{missingURL, ws(`"http_url":""`), nil, nil},
		{missingURL, stream(`"protocol":"h1"`, ""), lws(4, 3), nil},
		{missingURL, stream(`"protocol":"h1"`, ""), lws(4, 2), []string{"error|a|lws 4.2 requests no valid path"}},
		{leadingSlash, ws(`"http_url":"/x"`), nil, []string{"warning|/|puts a slash"}},
		{leadingSlash, ws(`"http_url":"x/"`), nil, nil},
		{leadingSlash, stream(`"http_url":"/x"`, ""), nil, nil},
		{leadingSlash, stream(`"http_url":"/x"`, ""), lws(4, 1), []string{"warning|/|lws 4.1 puts"}},
		{leadingSlash, stream(`"protocol":"h2","http_url":"/x"`, ""), lws(4, 2), []string{"warning|/|lws 4.2 puts"}},
		{leadingSlash, stream(`"protocol":"h2","http_url":"/x"`, ""), lws(4, 3), nil},
		{methodOnWS, ws(`"http_method":"GET"`), nil, []string{"error|http_method|plain HTTP"}},
		{methodOnWS, stream(`"server":true,"protocol":"ws","http_method":"GET"`, ""), nil, nil},
		{headersOnWS, ws(`"metadata":[{"a":""},{"b":"x:"}],"http_dsn_header":"d:"`), nil, []string{"warning|x:|x:", "warning|http_dsn_header|http_dsn_header"}},
		{headersOnWS, h1(`"metadata":[{"b":"x:"}]`), nil, nil},

		{sharedStorage, h1(`"mqtt_qos":1`), nil, []string{"error|mqtt_qos|in the place of a key of http"}},
		{sharedStorage, stream(`"mqtt_topic":"t"`, ""), nil, []string{`error|mqtt_topic|"protocol": "mqtt"`}},
		{sharedStorage, mqtt(`"http_url":"x","ws_binary":true`), nil, []string{"error|http_url|in the place of a key of mqtt", "error|ws_binary|in the place of a key of mqtt"}},
		{sharedStorage, h1(`"aws_iot":false`), nil, nil},
		{sharedStorage, raw(`"mqtt_qos":1`), nil, nil},
		{sharedStorage, mqtt(`"mqtt_qos":1,"http_no_content_length":true`), nil, nil},
		{wrongProtocol, mqtt(`"http_no_content_length":true`), nil, []string{"info|http_no_content_length|no effect on mqtt: it is for h1, h2, h3"}},
		{wrongProtocol, raw(`"mqtt_qos":1,"http_url":"x"`), nil, []string{"info|mqtt_qos|raw", "info|http_url|raw"}},
		{wrongProtocol, h1(`"long_poll":false`), nil, nil},
		{wrongProtocol, stream(`"protocol":"h2"`, `"long_poll":true`), nil, nil},
		{wrongRole, stream(`"server":true`, `"opportunistic":true,"http_url":"","tls":true,"metadata":[],"plugins":[]`), nil,
			[]string{"warning|opportunistic|is for a client", "warning|http_url|is for a client"}},
		{wrongRole, stream(`"server":true,"protocol":"mqtt"`, ``), nil, []string{"error|server|no server for mqtt"}},
		{wrongRole, h1(`"opportunistic":true,"server":false`), nil, nil},
		{wrongRole, stream(`"server":true,"port":1`, `"http_no_content_length":true`), nil, nil},
		{wrongRole, stream(`"server":true,"port":1`, `"http_no_content_length":true`), lws(4, 3), []string{"warning|http_no_content_length|is for a client"}},

		{opportunisticNailedUp, raw(`"opportunistic":true,"nailed_up":false`), nil, nil},
		{opportunisticNailedUp, raw(`"opportunistic":true,"nailed_up":true`), nil, []string{"warning|opportunistic|nailed_up"}},
		{nailedUpWithoutRetry, raw(`"nailed_up":true`), nil, []string{"warning|nailed_up|gives up"}},
		{nailedUpWithoutRetry, raw(`"nailed_up":true,"retry":"x"`), nil, nil},
		{finiteConceal, scheme(`"conceal":65535`, `,"nailed_up":true`), nil, nil},
		{finiteConceal, scheme(`"conceal":65534`, `,"nailed_up":true`), nil, []string{"info|r|after 65535 failures"}},
		{finiteConceal, scheme(``, `,"nailed_up":true`), nil, []string{"info|r|after 1 failures"}},
		{finiteConceal, scheme(`"conceal":1`, ``), nil, nil},
		{defaultJitter, `{"retry":[{"r":{}},{"q":{"jitterpc":0}},{"p":{"jitterpc":1}}]}`, nil, []string{"info|r|no jitterpc", "info|0|30 per cent"}},
		{latePing, `{"retry":[{"r":{"svalidping":5,"svalidhup":5}}]}`, nil, []string{"warning|5|after 5 seconds"}},
		{latePing, `{"retry":[{"r":{"svalidping":5,"svalidhup":0}},{"q":{"svalidping":5}},{"p":{"svalidping":4,"svalidhup":5}}]}`, nil, nil},
		{bothRedirects, h1(`"allow_redirects":true,"http_fail_redirect":true`), nil, []string{"warning|allow_redirects|followed"}},
		{bothRedirects, h1(`"allow_redirects":true,"http_fail_redirect":false`), nil, nil},
		{unreachableStatus, h1(`"http_expect":204`), nil, nil},
		{unreachableStatus, h1(`"http_expect":0`), nil, nil},
		{unreachableStatus, h1(`"http_expect":304`), nil, nil},
		{unreachableStatus, h1(`"http_expect":503`), nil, []string{"warning|503|tries again later"}},
		{unreachableStatus, h1(`"http_expect":600`), nil, []string{"warning|600|not an HTTP status"}},
		{unreachableStatus, h1(`"http_expect":1404,"http_resp_map":[{"404":1404}]`), nil, []string{"warning|1404|the state that 404 is mapped to"}},
		{unreachableStatus, h1(`"http_resp_map":[{"404":1404},{"302":1302}]`), nil, []string{"warning|302|follows the redirect"}},
		{lowState, h1(`"http_resp_map":[{"404":999,"500":1000}]`), nil, []string{"error|999|start at 1000"}},
		{expectedStatusMapped, h1(`"http_expect":404,"http_resp_map":[{"404":1404,"500":1500}]`), nil, []string{"info|404|gets both"}},
		{expectedStatusMapped, h1(`"http_resp_map":[{"404":1404}]`), nil, nil},
		{doubleContentLength, stream(`"http_method":"POST","http_www_form_urlencoded":true`, ""), nil, []string{"warning|http_www_form_urlencoded|two"}},
		{doubleContentLength, stream(`"http_method":"GET","http_www_form_urlencoded":true`, ""), nil, nil},
		{doubleContentLength, stream(`"protocol":"h2","http_method":"POST","http_www_form_urlencoded":true`, ""), nil, nil},
		{headerColon, h1(`"metadata":[{"a":"accept"},{"b":""},{"c":"x-y:"}]`), nil, []string{`info|accept|write "accept:"`}},
		{headerColon, h1(`"http_auth_header":"authorization"`), lws(4, 2), []string{`warning|authorization|lws 4.2 sends none`}},
		{headerColon, h1(`"metadata":[{"a":"acc"}]`), nil, nil}, // a header-prefix
		{headerColon, ws(`"metadata":[{"a":"x"}]`), nil, nil},
		{headerCase, h1(`"metadata":[{"a":"coo\u212aie:"}]`), nil, nil}, // a bad-header
		{headerCase, h1(`"metadata":[{"a":"Accept:"},{"B":"x:"}]`), nil, []string{`info|Accept:|write "accept:"`}},
		{headerPrefix, h1(`"metadata":[{"a":"c"},{"b":"accept"},{"c":"accept:"},{"d":""},{"e":"x-foo"},{"f":"C"}]`), nil, []string{`warning|c|"connection:"`}},
		{headerPrefix, h1(`"metadata":[{"a":"c"}]`), lws(4, 1), nil},

		{missingTopic, mqtt(``), nil, []string{"error|a|HTTP request"}},
		{missingTopic, mqtt(`"mqtt_subscribe":"x"`), nil, nil},
		{missingTopic, mqtt(`"mqtt_topic":"x","mqtt_will_qos":1,"mqtt_birth_retain":true,"mqtt_birth_message":"m"`), nil,
			[]string{"warning|mqtt_will_qos|no will", "warning|mqtt_birth_message|no birth"}},
		{missingTopic, mqtt(`"mqtt_topic":"x","mqtt_will_qos":0,"mqtt_will_retain":false`), nil, nil},
		{badTopic, mqtt(`"mqtt_topic":"a/+"`), nil, []string{"error|a/+|for filters"}},
		{badTopic, mqtt(`"mqtt_topic":""`), nil, []string{"error||empty"}},
		{badTopic, mqtt(`"mqtt_topic":"$SYS/x"`), nil, []string{"error|$SYS/x|broker's own"}},
		{badTopic, mqtt(`"mqtt_topic":"$aws/x","aws_iot":true`), nil, nil},
		{badTopic, mqtt(`"mqtt_subscribe":"$SYS/#"`), nil, []string{"error|$SYS/#|subscribes to nothing"}},
		{badTopic, mqtt(`"mqtt_subscribe":"#","mqtt_topic":"/"`), nil, nil},
		{badTopic, mqtt(`"mqtt_subscribe":"a/#"`), nil, nil},
		{badTopic, mqtt(`"mqtt_subscribe":"a#"`), nil, []string{"error|a#|alone"}},
		{badTopic, mqtt(`"mqtt_subscribe":"#/a"`), nil, []string{"error|#/a|last level"}},
		{badTopic, mqtt(`"mqtt_subscribe":"+/a/+"`), nil, nil},
		{badTopic, mqtt(`"mqtt_subscribe":"a+/b"`), nil, []string{"error|a+/b|alone"}},
		{badTopic, mqtt(`"mqtt_subscribe":"${x}+/b","metadata":[{"x":""}]`), nil, nil},
		{badTopic, mqtt(`"mqtt_subscribe":"1/2/3/4/5/6/7/8","aws_iot":true`), nil, nil},
		{badTopic, mqtt(`"mqtt_subscribe":"1/2/3/4/5/6/7/8/9","aws_iot":true`), nil, []string{"error|1/2|7 slashes"}},
		{badTopic, mqtt(`"mqtt_subscribe":"1/2/3/4/5/6/7/8/9"`), nil, nil},
		{badTopic, mqtt(`"mqtt_topic":"a","mqtt_will_topic":"b/#","mqtt_birth_topic":"+"`), nil, []string{"error|b/#|mqtt_will_topic", "error|+|mqtt_birth_topic"}},
		{unequalMQTT, two(`"mqtt_keep_alive":60`, `"mqtt_keep_alive":0`, ``), nil, []string{"warning|0|mqtt_keep_alive"}},
		{unequalMQTT, two(`"mqtt_keep_alive":0,"mqtt_clean_start":false`, ``, ``), nil, nil},
		{unequalMQTT, two(`"mqtt_will_topic":"w"`, ``, ``), nil, []string{"warning|b|mqtt_will_topic"}},
		{unequalMQTT, two(`"mqtt_will_topic":"w"`, ``, `"tls":true`), nil, nil},
		{bufferThresholds, h1(`"proxy_buflen_rxflow_on_above":8,"proxy_buflen_rxflow_off_below":8`), nil, []string{"warning|8|must be less"}},
		{bufferThresholds, h1(`"client_buflen":8,"client_buflen_rxflow_on_above":8,"client_buflen_rxflow_off_below":1`), nil, []string{"warning|8|never filled"}},
		{bufferThresholds, h1(`"proxy_buflen":0,"proxy_buflen_rxflow_on_above":8`), nil, nil},
		{networkPriority, h1(`"attr_priority":6`), nil, nil},
		{networkPriority, h1(`"attr_priority":7`), nil, []string{"warning|7|6"}},

		{sharedPort, serverPair(`"port":1`, `"port":1`), nil, []string{"error|1|only one"}},
		{sharedPort, serverPair(`"port":1`, `"port":1,"endpoint":"lo"`), nil, []string{"error|1|only one"}},
		{sharedPort, serverPair(`"port":1,"endpoint":"lo"`, `"port":1`), nil, []string{"error|1|only one"}},
		{sharedPort, serverPair(`"port":1,"endpoint":"eth0"`, `"port":1,"endpoint":"lo"`), nil, nil},
		{sharedPort, serverPair(`"port":1`, `"port":1,"endpoint":"!v"`), nil, nil},
		{sharedPort, serverPair(`"port":1`, `"port":2`), nil, nil},
		{serverMetadata, stream(`"server":true`, `"metadata":[{"path":""}]`), nil, []string{`error|a|"method"`}},
		{serverMetadata, stream(`"server":true,"protocol":"ws"`, ``), nil, nil},
		{captivePortal, strings.Replace(h1(`"http_expect":204,"tls":true`), `"a"`, `"captive_portal_detect"`, 1), nil,
			[]string{"warning|captive_portal_detect|http_fail_redirect", "warning|tls|TLS"}},
		{captivePortal, strings.Replace(h1(`"http_expect":0,"http_fail_redirect":true`), `"a"`, `"captive_portal_detect"`, 1), nil, []string{"warning|captive_portal_detect|http_expect"}},
		{systemStreamtype, `{"s":[{"Fetch_Policy":{}},{"fetchpolicy":{}},{"fetch_ploicy":{}},{"fetch_policies":{}},{"api_amazon_com_lwa":{}},{"_lws_smd":{}}]}`, nil,
			[]string{"warning|Fetch_Policy|", "warning|fetchpolicy|", "warning|fetch_ploicy|", "warning|_lws_smd|is built in"}},
		{systemStreamtype, `{"s":[{"fetch-policy":{}},{"fetch_policy":{}}]}`, nil, nil},

		{policy2cStrings, h1(`"payload_fmt":"a\tb","via-socks5":"a\\b"`), nil, []string{`info|a\tb|a control character`, `info|a\\b|a backslash`}},
		{policy2cStrings, `{"s":[{"a\"":{"endpoint":"??=x","metadata":[{"m":"??x"}]}}]}`, nil, []string{`info|a|a quote`, "info|??=x|the trigraph ??="}},
		{policy2cStrings, `{"certs":[{"c":"a\nb"}],"s":[{"a":{"endpoint":"é?"}}]}`, nil, nil},
		{policy2cSymbols, `{"certs":[{"a-b":"MIIB"},{"a_b":"MIIB"}],"trust_stores":[{"name":"a_b","stack":["a-b"]}]}`, nil,
			[]string{"info|a_b|_ss_der_a_b", "info|a-b|not a C symbol"}},
		{policy2cSymbols, `{"s":[{"a_b":{"metadata":[{"c":""},{"c":""}]}},{"a":{"metadata":[{"b_c":""}]}}]}`, nil, []string{"info|c|_md_a_b_c", "info|b_c|_md_a_b_c"}},
		{policy2cSymbols, named(63, `"metadata":[{"`+strings.Repeat("m", 59)+`":""}]`), nil, nil},
		{policy2cSymbols, named(63, `"metadata":[{"`+strings.Repeat("m", 60)+`":""}]`), nil, []string{"info|mmm|have 123 bytes"}},
		{policy2cSymbols, named(64, ``), nil, []string{"info|nnn|has 64 bytes"}},
		{policy2cLosses, h1(`"http_auth_header":"a:","http_dsn_header":"d:","http_fwv_header":"f:"`), nil, nil},
		{policy2cLosses, h1(`"http_auth_header":"a:","http_devtype_header":"t:"`), nil, []string{"info|http_devtype_header|to another blob"}},
		{policy2cLosses, h1(`"http_dsn_header":"d:"`), nil, []string{"info|http_dsn_header|no http_auth_header"}},
		{policy2cLosses, h1(`"attr_priority":3,"tls":false`), nil, []string{"info|attr_priority|no flag"}},
		{policy2cLosses, h1(`"attr_priority":3,"tls":true`), nil, nil},
		{policy2cOrder, `{"trust_stores":[{"name":"t","stack":["a","b"]},{"name":"u","stack":["a","b"]}]}`, nil, []string{"info|stack|from the last"}},
		{policy2cOrder, h1(`"metadata":[{"a":""},{"b":""}]`), nil, []string{"info|metadata|from the last"}},
	} {
		tested[test.rule] = true
		t.Run(test.rule.Name+"/"+test.policy[:min(90, len(test.policy))], func(t *testing.T) {
			var found []schema.Diagnostic
			for _, d := range lint.Run(schema.Parse("p", []byte(test.policy)), All(), lint.Options{LWS: test.lws, With: Groups()}) {
				if d.Rule == test.rule.Name {
					found = append(found, d)
				}
			}
			for i, d := range found {
				text := strings.Trim(d.Span.Text(), `"`)
				got := fmt.Sprintf("%s|%s|%s", d.Severity, text, d.Message)
				if i >= len(test.want) {
					t.Errorf("found %s", got)
					continue
				}
				want := strings.SplitN(test.want[i], "|", 3)
				if d.Severity.String() != want[0] || !strings.HasPrefix(text, want[1]) || want[1] == "" && text != "" || !strings.Contains(d.Message, want[2]) {
					t.Errorf("found %s, want %s", got, test.want[i])
				}
			}
			if len(found) < len(test.want) {
				t.Errorf("not found: %q", test.want[len(found):])
			}
		})
	}
	for _, r := range protocolRules {
		if !tested[r] {
			t.Errorf("%s has no test but its examples", r.Name)
		}
	}
}

// nested is an object that contains n nested objects.
func nested(n int) string {
	return strings.Repeat(`{"k":`, n) + "1" + strings.Repeat("}", n)
}

// named is a streamtype whose name has n bytes.
func named(n int, keys string) string {
	return `{"s":[{"` + strings.Repeat("n", n) + `":{` + keys + `}}]}`
}

// two are streamtypes of mqtt at one broker.
func two(a, b, moreOfB string) string {
	return mqtt(a)[:len(mqtt(a))-2] + "," + strings.Replace(strings.TrimPrefix(mqtt(strings.Trim(b+","+moreOfB, ",")), `{"s":[`), `"a"`, `"b"`, 1)
}

// serverPair is two servers of raw.
func serverPair(a, b string) string {
	return `{"s":[{"a":{"server":true,"protocol":"raw",` + a + `}},{"b":{"server":true,"protocol":"raw",` + b + `}}]}`
}

// TestProtocolFixes checks that the fix of a rule removes the finding of the rule
// in its bad example.
func TestProtocolFixes(t *testing.T) {
	for _, r := range protocolRules {
		o := lint.Options{LWS: r.Versions, UnsafeFixes: true, With: Groups()}
		fixed, applied := lint.Fix(schema.Parse("bad", []byte(r.Bad)), All(), o)
		if len(applied) == 0 {
			continue
		}
		for _, d := range lint.Run(fixed, All(), o) {
			if d.Rule == r.Name || d.Rule == schema.RuleSyntax {
				t.Errorf("%s: left after its fix: %s\n%s", r.Name, d.Message, fixed)
			}
		}
	}
	for policy, want := range map[string]string{
		"\n\n{\"s\":[]}":                     `{"s":[]}`,
		"# a\n{\"s\":[]}":                    "{ # a\n\"s\":[]}",
		h1(`"payload_fmt":"x\ud83d\uDE00y"`): h1(`"payload_fmt":"x😀y"`),
		stream(`"server":true,"protocol":"raw","port":1,"nailed_up":true`, ""):                                                               stream(`"server":true,"protocol":"raw","port":1`, ""),
		"{\"s\":[{\"a\":{\n  \"server\":true,\n  \"nailed_up\":true, # for ever\n  \"protocol\":\"raw\", \"retry\":\"r\",\n  \"port\":1}}]}": "{\"s\":[{\"a\":{\n  \"server\":true,\n   # for ever\n  \"protocol\":\"raw\", \"port\":1}}]}",
		ws(`"http_url":"/chat"`): ws(`"http_url":"chat"`),
	} {
		if got, _ := lint.Fix(schema.Parse("p", []byte(policy)), All(), lint.Options{UnsafeFixes: true}); got.String() != want {
			t.Errorf("%s is fixed to %s, want %s", policy, got, want)
		}
	}
}

// hazards maps the policies that harm lws or policy2c to the rules that report them.
var hazards = map[string]string{
	"D01-cert-order-reversed": "policy2c-order", "D02-cert-name-not-mangled": "policy2c-symbols",
	"D03a-quote-unescaped": "policy2c-strings", "D03b-backslash-unescaped": "policy2c-strings",
	"D03c-newline-unescaped": "policy2c-strings", "D03d-backslash-hex": "policy2c-strings",
	"D04a-symbol-collision-stream": "policy2c-symbols", "D04b-symbol-collision-metadata": "policy2c-symbols",
	"D04d-symbol-collision-truststore": "policy2c-symbols", "D04e-symbol-collision-auth": "policy2c-symbols",
	"D04f-symbol-collision-utf8": "policy2c-symbols", "D04g-duplicate-streamtype": "duplicate-definition",
	"D04h-duplicate-metadata": "policy2c-symbols", "D05a-name-64": "policy2c-symbols",
	"D05b-md-symbol-truncated": "policy2c-symbols", "D05c-name-long-smash": "policy2c-symbols",
	"D06-raw-unsupported": "policy2c-losses", "D08a-blob-header-no-auth": "policy2c-losses",
	"D08b-blob-header-shifted": "policy2c-losses", "D09-priority-without-flags": "policy2c-losses",
	"D10-global-socks5": "policy2c-losses", "D11-buflens": "policy2c-losses", "D12a-metadata-order": "policy2c-order",
	"D12b-metadata-nul": "nul-character", "D13-metrics": "policy2c-losses", "D14-options": "options-key",
	"D15-auth-null": "policy2c-losses", "D15b-auth-noname": "missing-key", "D17-empty-s": "policy2c-losses",
	"D24-incomplete": "syntax", "D40-trigraph": "policy2c-strings", "L01-backoff-truncated": "backoff-cut",
	"L02-options-bogus-stream": "options-key", "L03-unknown-member": "unknown-key", "L04-long-string": "bad-length",
	"L05-long-metadata": "bad-length", "L06-prefix-match": "prefix-match", "L07-dotted-name": "dotted-name",
	"L08-string-fold-flags": "short-string", "L09-string-fold-chunks": "short-string",
	"L10-two-certs-one-object": "joined-certs", "L11-bad-base64": "cert-encoding", "L12-big-cert": "cert-too-big",
	"L14-empty-stack": "bad-count", "L15-stack-before-name": "name-not-first", "L16-mqtt-members-on-h1": "shared-storage",
	"L17-long-path": "long-name", "L18-surrogate-pair": "surrogate-pair", "L19-empty-streamtype-name": "bad-length",
	"L20-leading-space": "leading-text", "L22-metrics-before-name": "name-not-first", "L23-stack-first-crash": "name-not-first",
	"L24-small-bad-base64": "cert-encoding", "L25-wrong-types": "wrong-type", "L26-integer-wrap": "out-of-range",
	"L27-forward-reference": "forward-reference", "L28-http-token-prefix": "header-prefix",
	"L29-mismatched-brackets": "lax-syntax", "L30-trailing-comma": "lax-syntax", "L31-metadata-256": "bad-count",
}

// corpus returns the policies in a folder of the corpus.
func corpus(t *testing.T, folder string) map[string]*schema.Document {
	t.Helper()
	root := os.Getenv("SSPOLICY_CORPUS")
	if root == "" {
		t.Skip("SSPOLICY_CORPUS is not set to the folder of the corpus")
	}
	files, err := filepath.Glob(filepath.Join(root, folder, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies in %s/%s", root, folder)
	}
	docs := map[string]*schema.Document{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		docs[name] = schema.Parse(name, text)
	}
	return docs
}

// TestHazards checks that every policy that harms lws has the finding of its hazard.
func TestHazards(t *testing.T) {
	for name, d := range corpus(t, "hazards") {
		if hazards[name] == "" {
			t.Errorf("%s: no rule is named for it", name)
			continue
		}
		if !slices.ContainsFunc(lint.Run(d, All(), lint.Options{With: Groups()}), func(g schema.Diagnostic) bool { return g.Rule == hazards[name] }) {
			t.Errorf("%s: no %s", name, hazards[name])
		}
	}
}

// TestRealErrors checks that each error in a real policy has been reviewed and is correct,
// for the given reason.
func TestRealErrors(t *testing.T) {
	reasons := map[string]string{ // by rule and the start of the message
		`syntax "]" is missing`: "the programs build the text and leave a bracket out; lws takes what it has read, with -1",
		`syntax "@`:             "templates of cmake",
		`syntax "%d"`:           "formats of printf",
		`bad-endpoint "@LWS_CTEST_SERVER_RESOLVE@"`:  "a template of cmake",
		`cert-encoding certificate "local_ca": "%s"`: "a format of printf",
		`undefined-reference trust store`:            "the stores are built without the one that a streamtype names; lws refuses the policy",
		`joined-certs certificate "isrg_root_x1"`:    "two certificates in one object; lws keeps the DER of the last one alone",
		`out-of-range conceal must be 0 to 65535`:    "99999, for never giving up; lws keeps 34463",
		`missing-method streamtype`:                  "h1 without http_method; lws sends a websocket handshake",
		`unknown-key "timeout"`:                      "meant for timeout_ms; the retry and trust store after it go to a phantom",
		`bad-length this name is empty`:              "the name is made of a variable that is empty",
	}
	used := map[string]bool{}
	for _, folder := range []string{"lws", "found"} {
		for name, d := range corpus(t, folder) {
			for _, g := range lint.Run(d, All(), lint.Options{}) {
				if g.Severity != schema.Error {
					continue
				}
				known := false
				for reason := range reasons {
					if strings.HasPrefix(g.Rule+" "+g.Message, reason) {
						known, used[reason] = true, true
					}
				}
				if !known {
					t.Errorf("%s/%s: %v: %s [%s]", folder, name, g.Span, g.Message, g.Rule)
				}
			}
		}
	}
	for reason := range reasons {
		if !used[reason] {
			t.Errorf("no policy has %s any more", reason)
		}
	}
}

// TestRealPolicies checks that testdata/real.txt contains the findings of these rules in
// real policies, each reviewed. To rewrite the file, remove it.
func TestRealPolicies(t *testing.T) {
	mine := map[string]bool{}
	for _, r := range protocolRules {
		mine[r.Name] = true
	}
	type finding struct{ rule, severity, what string }
	count := map[finding]int{}
	for _, d := range corpus(t, "lws") {
		for _, g := range lint.Run(d, All(), lint.Options{With: Groups()}) {
			if mine[g.Rule] {
				count[finding{g.Rule, g.Severity.String(), g.Message}]++
			}
		}
	}
	var got strings.Builder
	for _, f := range slices.SortedFunc(maps.Keys(count), func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.rule, b.rule), cmp.Compare(a.what, b.what))
	}) {
		fmt.Fprintf(&got, "%3d %-7s %-23s %s\n", count[f], f.severity, f.rule, f.what)
	}
	file := filepath.FromSlash("testdata/real.txt")
	want, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		err = os.WriteFile(file, []byte(got.String()), 0o666)
		t.Errorf("wrote %s: look at it, and run the test again", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	if d := diff.Diff(string(want), got.String()); d != "" && want != nil {
		t.Error(d)
	}
}
